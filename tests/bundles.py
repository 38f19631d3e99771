"""A small real bundle for tests: two variants of a tiny classifier, golden images, provenance."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from edgetl.bundle.golden import GoldenSet
from edgetl.bundle.manifest import Provenance
from edgetl.bundle.pack import Contents, VariantSource
from edgetl.inputs.image import PreprocessSpec, load_pixels, normalise
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from edgetl.tasks.base import Classification
from tests.onnx_models import SIZE, classifier

LABELS = ("rose", "daisy", "tulip")
SPEC = PreprocessSpec(size=SIZE)


def picture(seed: int = 0, size: tuple[int, int] = (48, 40), kind: str = "PNG") -> bytes:
    """An encoded image of noise over a gradient."""
    generator = np.random.default_rng(seed)
    ramp = np.linspace(0, 160, size[0])[None, :, None]
    noise = generator.integers(0, 95, (size[1], size[0], 3))
    buffer = io.BytesIO()
    Image.fromarray((ramp + noise).astype(np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def contents(folder: Path, *, images: int = 3, default: str = "fp32") -> Contents:
    """Parts of a bundle; model files are written to `folder`."""
    encoded = tuple(picture(i, kind=("PNG", "JPEG")[i % 2]) for i in range(images))
    pixels = np.stack([load_pixels(content, SPEC) for content in encoded])
    sources, outputs = [], {}
    for name, precision, target, zero_point in (
        ("fp32", "fp32", "any", None),
        ("int8-cpu-x86", "int8", "cpu-x86", 0),
    ):
        path = folder / f"model-{name}.onnx"
        path.write_bytes(classifier(zero_point=zero_point))
        with OnnxBackend(path, threads=1) as backend:
            outputs[name] = backend.run(normalise(pixels, SPEC))
        sources.append(VariantSource(name=name, precision=precision, target=target, model=path))
    return Contents(
        name="flowers",
        task=Classification(labels=LABELS),
        preprocess=SPEC,
        variants=sources,
        default=default,
        golden=GoldenSet(images=encoded, pixels=pixels, outputs=outputs),
        provenance=Provenance(recipe_sha256="a" * 64, data_sha256="b" * 64, seed=7, packages={"numpy": "2"}),
    )
