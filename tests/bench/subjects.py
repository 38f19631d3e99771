"""What the benchmarks of the runtime run on: an exported pretrained network in a bundle, and photographs."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from edgetl.bundle.archive import open_bundle
from edgetl.bundle.golden import GoldenSet
from edgetl.bundle.manifest import Provenance
from edgetl.bundle.pack import Contents, VariantSource, pack
from edgetl.inputs.image import PreprocessSpec, Resize, load_pixels, normalise
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from edgetl.tasks.base import Classification, joined
from tests.real_sets import unpacked

BACKBONE = "efficientnet_lite0"
CLASSES = tuple(f"class {i}" for i in range(12))
SPEC = PreprocessSpec(size=224, crop_fraction=0.875)
LARGE, SMALL = (4000, 3000), (640, 480)


@dataclass(frozen=True)
class Subject:
    """A bundle, the ONNX file of the variant that ships, and its preprocessing."""

    bundle: Path
    model: Path
    spec: PreprocessSpec
    name: str


def subject(folder: Path) -> Subject:
    """The bundle that `EDGETL_BENCH_BUNDLE` names, else one of the pretrained backbone."""
    named = os.environ.get("EDGETL_BENCH_BUNDLE", "")
    opened = open_bundle(Path(named) if named else write_bundle(folder))
    assert opened.manifest.preprocess.resize is Resize.CROP, "the peers crop"
    model = folder / "subject.onnx"
    model.write_bytes(opened.model())
    name = f"{opened.manifest.name}, {opened.variant().name}" if named else f"{BACKBONE}, 224 px, fp32"
    return Subject(opened.path, model, opened.manifest.preprocess, name)


def write_bundle(folder: Path) -> Path:
    """A bundle of the pretrained backbone with a fresh head for twelve classes; its speed is that of a trained one."""
    from edgetl.export import onnx
    from edgetl.models import backbones

    model = folder / "model.onnx"
    exported = onnx.to_onnx(
        backbones.create(BACKBONE, len(CLASSES)), task=Classification(labels=CLASSES), spec=SPEC, opset=17
    )
    model.write_bytes(onnx.to_bytes(exported))
    images = tuple(photographs(2, SMALL))
    pixels = np.stack([load_pixels(image, SPEC) for image in images])
    with OnnxBackend(model, threads=1) as backend:
        outputs = joined([backend.run(normalise(row[None], SPEC)) for row in pixels])
    out = folder / "bench.edgetl"
    pack(
        Contents(
            name="bench",
            task=Classification(labels=CLASSES),
            preprocess=SPEC,
            variants=[VariantSource(name="fp32", precision="fp32", target="any", model=model)],
            default="fp32",
            golden=GoldenSet(images=images, pixels=pixels, outputs={"fp32": outputs}),
            provenance=Provenance(),
        ),
        out,
    )
    return out


def photographs(count: int, size: tuple[int, int], seed: int = 0) -> list[bytes]:
    """JPEGs of width x height `size` as a camera writes them: detail, sensor noise, quality 85 to 92.

    Scaled from photographs of flowers12 where `EDGETL_DATA` names a folder that holds the set, else from smooth
    random pictures.
    """
    generator = np.random.default_rng(seed)
    made = []
    for number in range(count):
        picture = _picture(number, generator).resize(size, Image.Resampling.BICUBIC)
        noise = generator.normal(0, 3, (size[1], size[0], 1)).astype(np.float32)
        pixels = (np.asarray(picture, dtype=np.float32) + noise).clip(0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=(85, 88, 90, 92)[number % 4])
        made.append(buffer.getvalue())
    return made


def origin() -> str:
    """Where the photographs come from, for a claim's line."""
    return "flowers12 photographs" if _files() else "random pictures (no EDGETL_DATA)"


def _picture(number: int, generator: np.random.Generator) -> Image.Image:
    if files := _files():
        with Image.open(files[37 * number % len(files)]) as image:
            return image.convert("RGB")
    return Image.fromarray(generator.integers(0, 256, (24, 32, 3), dtype=np.uint8))


def _files() -> Sequence[Path]:
    home = unpacked("flowers12")
    return sorted((home / "test").rglob("*.jpg")) if home else ()
