"""What the variants of `tests.bundles` make of known images: computed by their own networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from edgetl.bundle.pack import Contents
from edgetl.bundle.reference import Reference, decode, encode
from edgetl.bundle.unknown import UnknownSource
from edgetl.inputs.image import load_pixels, normalise
from edgetl.inputs.looks import PIXELS, looks
from edgetl.records.unknown import ScoreName
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from edgetl.runtime.features import EMBEDDING, MAP, embeddings, pooled_head
from edgetl.runtime.unknown.judge import normal
from edgetl.runtime.unknown.scores import Features, scorer
from edgetl.runtime.wire import with_outputs
from edgetl.tasks.base import LOGITS, Classification
from tests.bundles import LABELS, SPEC, picture


def reference_of(model: bytes, training: int = 24, validation: int = 40) -> Reference:
    """Pictures of noise over a gradient, as a classifier of `tests.onnx_models` sees them."""
    pictures = [load_pixels(picture(100 + at), SPEC) for at in range(training + validation)]
    with OnnxBackend(with_outputs(model, pooled_head(model, ["logits"]).shown), threads=1) as backend:
        outputs = backend.run(normalise(np.stack(pictures), SPEC))
    found = embeddings({MAP: outputs[MAP]})
    classes, seen = (
        np.arange(training, dtype=np.int32) % len(LABELS),
        np.stack([looks(one) for one in pictures]),
    )
    return Reference(
        embeddings=found[:training],
        classes=classes,
        means=np.stack([found[:training][classes == at].mean(axis=0) for at in range(len(LABELS))]),
        counts=np.bincount(classes, minlength=len(LABELS)).astype(np.int32),
        validation=found[training:],
        validation_classes=outputs["logits"][training:].argmax(axis=1).astype(np.int32),
        logits={"logits": outputs["logits"][training:]},
        looks=seen[:training],
        validation_looks=seen[training:],
    )


def with_references(parts: Contents, score: ScoreName = ScoreName.NEIGHBOURS) -> Contents:
    """The parts of `tests.bundles.contents`, each variant with what it makes of known images, to tell others by it."""
    sources = []
    for one in parts.variants:
        assert isinstance(one.model, Path)
        model = one.model.read_bytes()
        content = encode(reference_of(model))
        known = decode(content, parts.task, "x")
        features = Features(reference=known, weights=pooled_head(model, [LOGITS]).weights)
        assert isinstance(parts.task, Classification)
        shown = {EMBEDDING: known.validation, PIXELS: known.validation_looks, **known.logits}
        scores = scorer(score, parts.task, features)(shown)
        sources.append(
            replace(one, reference=content, unknown=UnknownSource(score=score, normal=normal(scores)))
        )
    return replace(parts, variants=sources)
