"""What the variants of `tests.bundles` make of known images: computed by their own networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from edgetl.bundle.pack import Contents
from edgetl.bundle.reference import Reference, encode
from edgetl.inputs.image import load_pixels, normalise
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from edgetl.runtime.features import MAP, embeddings, pooled_head
from edgetl.runtime.wire import with_outputs
from tests.bundles import LABELS, SPEC, picture


def reference_of(model: bytes, training: int = 24, validation: int = 40) -> Reference:
    """Pictures of noise over a gradient, as a classifier of `tests.onnx_models` sees them."""
    pictures = [load_pixels(picture(100 + at), SPEC) for at in range(training + validation)]
    with OnnxBackend(with_outputs(model, pooled_head(model, ["logits"]).shown), threads=1) as backend:
        outputs = backend.run(normalise(np.stack(pictures), SPEC))
    found = embeddings({MAP: outputs[MAP]})
    classes = np.arange(training, dtype=np.int32) % len(LABELS)
    return Reference(
        embeddings=found[:training],
        classes=classes,
        means=np.stack([found[:training][classes == at].mean(axis=0) for at in range(len(LABELS))]),
        counts=np.bincount(classes, minlength=len(LABELS)).astype(np.int32),
        validation=found[training:],
        validation_classes=outputs["logits"][training:].argmax(axis=1).astype(np.int32),
        logits={"logits": outputs["logits"][training:]},
    )


def with_references(parts: Contents) -> Contents:
    """The parts of `tests.bundles.contents`, each variant with what it makes of known images."""
    sources = []
    for one in parts.variants:
        assert isinstance(one.model, Path)
        sources.append(replace(one, reference=encode(reference_of(one.model.read_bytes()))))
    return replace(parts, variants=sources)
