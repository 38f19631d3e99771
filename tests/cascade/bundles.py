"""Two bundles of tiny networks that name a colour, a rough and an exact one, and pictures that are pale or not."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from PIL import Image

from edgetl.bench.machine import describe
from edgetl.bundle.confidence import ConfidenceSource
from edgetl.bundle.golden import GoldenSet
from edgetl.bundle.manifest import InputForm, Provenance
from edgetl.bundle.pack import Contents, VariantSource, pack
from edgetl.cascade.stage import CascadeConfig
from edgetl.export.bake import bake_preprocess
from edgetl.inputs.image import PreprocessSpec, load_pixels, normalise
from edgetl.records.cascade import Cascade, CascadeMember, CascadeRecord
from edgetl.records.measured import Latency
from edgetl.records.scores import Score
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from edgetl.tasks.base import LOGITS, Classification
from edgetl.tasks.conformal import conformity
from tests.onnx_models import colours

LABELS = ("red", "green", "blue")
SMALL = PreprocessSpec(size=16, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
LARGE = PreprocessSpec(size=32, mean=(0.4, 0.4, 0.4), std=(0.2, 0.2, 0.2))


def paint(seed: int, label: int, side: int = 40) -> NDArray[np.uint8]:
    """A noisy grey picture with more or less of one colour."""
    generator = np.random.default_rng(seed)
    pixels = generator.normal(120, 12, (side, side, 3))
    other = (label + 1 + seed % 2) % 3
    pixels[..., other] += (strength := generator.uniform(0, 40))
    pixels[..., label] += strength + generator.uniform(-1, 40)
    return pixels.clip(0, 255).astype(np.uint8)


def pictures(folder: Path, counts: dict[str, int]) -> Path:
    """A set SPLIT/CLASS/*; so many images of each class in each split."""
    for split, count in counts.items():
        for label, name in enumerate(LABELS):
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            for at in range(count):
                seed = _seed(split, at, label)
                Image.fromarray(paint(seed, label)).save(folder / split / name / f"{at:03}.png")
    return folder


def _seed(split: str, at: int, label: int) -> int:
    return 3 * (at + 10_000 * ("train", "val", "test").index(split)) + label


def network(spec: PreprocessSpec, rough: float, *, slow: bool = False) -> bytes:
    """An ONNX file. The rougher, the more it takes a pale picture for another colour; a slow one takes long for it."""
    model = onnx.load_from_string(colours(spec.size))
    graph, generator = model.graph, np.random.default_rng(3)
    weights = next(tensor for tensor in graph.initializer if tensor.name == "f")
    turned = 40 * np.eye(3) + rough * generator.normal(size=(3, 3))
    weights.CopyFrom(onnx.numpy_helper.from_array(turned.astype(np.float32), "f"))
    if slow:  # what comes of it is nothing but time
        for name, shape in (("w1", (32, 3, 5, 5)), ("w2", (32, 32, 5, 5)), ("w3", (3, 32, 5, 5))):
            value = 1e-9 * generator.random(shape)
            graph.initializer.append(onnx.numpy_helper.from_array(value.astype(np.float32), name))
        node = onnx.helper.make_node
        graph.node.insert(0, node("Conv", ["images", "w1"], ["x1"], pads=[2] * 4))
        graph.node.insert(1, node("Conv", ["x1", "w2"], ["x2"], pads=[2] * 4))
        graph.node.insert(2, node("Conv", ["x2", "w3"], ["x3"], pads=[2] * 4))
        graph.node.insert(3, node("Add", ["images", "x3"], ["slow"]))
        graph.node[4].input[0] = "slow"
    return model.SerializeToString()


def bundle(
    path: Path,
    spec: PreprocessSpec,
    rough: float,
    *,
    labels: tuple[str, ...] = LABELS,
    sure: bool = True,
    baked: bool = False,
    slow: bool = False,
    target: str = "any",
    splits: dict[str, list[str]] | None = None,
) -> Path:
    """Write the bundle of such a network."""
    buffer = io.BytesIO()
    Image.fromarray(paint(1, 1)).save(buffer, "PNG")
    pixels = load_pixels(buffer.getvalue(), spec)[None]
    model = network(spec, rough, slow=slow)
    if baked:
        model = bake_preprocess(onnx.load_from_string(model), spec).SerializeToString()
    with OnnxBackend(model, threads=1) as backend:
        outputs = backend.run(pixels if baked else normalise(pixels, spec))
    confidence = ConfidenceSource(
        temperatures={LOGITS: 20.0}, conformities={LOGITS: conformity(np.linspace(0, 1, 50))}
    )
    source = VariantSource(
        name="fp32",
        precision="fp32",
        target=target,
        model=model,
        input=InputForm.UINT8 if baked else InputForm.FLOAT32,
        confidence=confidence if sure else None,
    )
    pack(
        Contents(
            name=path.stem,
            task=Classification(labels=labels),
            preprocess=spec,
            variants=[source],
            default="fp32",
            golden=GoldenSet(images=(buffer.getvalue(),), pixels=pixels, outputs={"fp32": outputs}),
            provenance=Provenance(),
            splits=splits,
        ),
        path,
    )
    return path


def config(place: Path, out: Path, **changes: object) -> CascadeConfig:
    """A cascade of `small.edgetl` and `large.edgetl` in a folder, by its images in `set`."""
    plain = CascadeConfig(
        small=place / "small.edgetl",
        large=place / "large.edgetl",
        data=place / "set",
        out=out,
        threads=1,
        runs=100,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def _latency(mean_ms: float) -> Latency:
    return Latency(
        scenario="single-stream",
        batch=1,
        threads=1,
        warmup=0,
        runs=1,
        mean_ms=mean_ms,
        p50_ms=mean_ms,
        p90_ms=mean_ms,
        p99_ms=3.0,
        throughput=1000 / mean_ms,
    )


def told(lost: int, won: int, p_value: float, *, top1: float = 0.9, floor: float | None = None) -> Cascade:
    """What might be told of a cascade that was judged on 100 images."""
    member = CascadeMember(bundle="a", sha256="", variant="fp32", size=32, top1=Score(value=0.9))
    return Cascade(
        small=member,
        large=member,
        threshold=1.0,
        floor=floor,
        chosen_on=100,
        judged_on=100,
        handed_on=0.2,
        top1=Score(value=top1),
        lost=lost,
        won=won,
        p_value=p_value,
        large_latency=_latency(2.0),
    )


def record(lost: int, won: int, p_value: float) -> CascadeRecord:
    """The command's result for such a one that takes half the larger model's time."""
    return CascadeRecord(
        path="both.edgetl",
        sha256="",
        size_bytes=1000,
        variant="cascade",
        cascade=told(lost, won, p_value),
        latency=_latency(1.0),
        machine=describe(),
        left_out=0,
        holds=True,
        reason="",
    )
