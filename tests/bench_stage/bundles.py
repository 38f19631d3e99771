"""Tiny real bundles for the tests of bench and gate."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edgetl.bundle.archive import open_bundle
from edgetl.bundle.golden import GoldenSet
from edgetl.bundle.manifest import Provenance
from edgetl.bundle.pack import Contents, VariantSource, pack
from edgetl.inputs.image import Interpolation, PreprocessSpec, Resize, load_pixels, normalise
from edgetl.records.scores import Evaluation
from edgetl.runtime import tuned
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from edgetl.runtime.targets import EngineName
from edgetl.tasks.base import Classification
from edgetl.tasks.classification.scores import evaluate_predictions

LABELS = ("red", "green", "blue")
SIZE = 16
SPEC = PreprocessSpec(
    size=SIZE,
    resize=Resize.SQUASH,
    crop_fraction=1.0,
    interpolation=Interpolation.BILINEAR,
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
)


def colour_png(label: int, shade: int = 200, noise: int = 0) -> bytes:
    """A picture whose class is its strongest channel."""
    generator = np.random.default_rng(noise)
    pixels = np.full((20, 24, 3), 40, dtype=np.uint8)
    pixels[..., label] = shade
    pixels += generator.integers(0, 20, pixels.shape, dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_model(path: Path, *, layers: int = 1, weights: np.ndarray | None = None) -> None:
    """Mean colour times `weights` (3, classes), after `layers` convolutions that only take time."""
    matrix = np.eye(3, dtype=np.float32) if weights is None else weights.astype(np.float32)
    identity = np.zeros((3, 3, 7, 7), dtype=np.float32)
    identity[range(3), range(3), 3, 3] = 1
    nodes, name = [], "images"
    for layer in range(layers):
        nodes.append(helper.make_node("Conv", [name, "identity"], [f"c{layer}"], pads=[3, 3, 3, 3]))
        name = f"c{layer}"
    nodes += [
        helper.make_node("GlobalAveragePool", [name], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", matrix.shape[1]])],
        [numpy_helper.from_array(identity, "identity"), numpy_helper.from_array(matrix, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, str(path))


def evaluation(right: int, images: int = 90) -> Evaluation:
    """Scores of a classifier that got `right` of `images` images, spread over the classes."""
    labels = np.arange(images) % 3
    predicted = np.where(np.arange(images) < right, labels, (labels + 1) % 3)
    return evaluate_predictions(labels, predicted, LABELS)


def write_bundle(
    path: Path,
    *,
    layers: int = 1,
    weights: np.ndarray | None = None,
    test: Evaluation | None = None,
    data_sha256: str = "d" * 64,
    labels: tuple[str, ...] = LABELS,
    splits: Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """Pack a bundle of one float32 variant with three golden images."""
    model = path.with_suffix(".onnx")
    write_model(model, layers=layers, weights=weights)
    images = tuple(colour_png(label) for label in range(3))
    pixels = np.stack([load_pixels(image, SPEC) for image in images])
    with OnnxBackend(model, threads=1) as backend:
        outputs = backend.run(normalise(pixels, SPEC))
    pack(
        Contents(
            name=path.stem,
            task=Classification(labels=labels),
            preprocess=SPEC,
            variants=[VariantSource(name="fp32", precision="fp32", target="any", model=model, test=test)],
            default="fp32",
            golden=GoldenSet(images=images, pixels=pixels, outputs={"fp32": outputs}),
            provenance=Provenance(data_sha256=data_sha256),
            splits=splits,
        ),
        path,
    )
    return path


def write_variants(path: Path) -> Path:
    """Pack a bundle of five float32 variants that suit every engine.

    `fp32`, the default, is slow and `quick` fast, both with the same score; `worse` scores lower, `unscored` has no
    score, and `wrong` does not give the logits that are recorded for it.
    """
    images = tuple(colour_png(label) for label in range(3))
    pixels = np.stack([load_pixels(image, SPEC) for image in images])
    sources, outputs = [], {}
    for name, layers, right in (
        ("fp32", 40, 85),
        ("quick", 1, 85),
        ("worse", 1, 84),
        ("unscored", 1, None),
        ("wrong", 1, 85),
    ):
        model = path.with_name(f"{path.stem}-{name}.onnx")
        write_model(model, layers=layers)
        with OnnxBackend(model, threads=1) as backend:
            found = backend.run(normalise(pixels, SPEC))
            outputs[name] = {"logits": found["logits"] + np.float32(name == "wrong")}
        val = None if right is None else evaluation(right)
        sources.append(VariantSource(name=name, precision="fp32", target="any", model=model, val=val))
    pack(
        Contents(
            name=path.stem,
            task=Classification(labels=LABELS),
            preprocess=SPEC,
            variants=sources,
            default="fp32",
            golden=GoldenSet(images=images, pixels=pixels, outputs=outputs),
            provenance=Provenance(),
        ),
        path,
    )
    return path


def keep_winner(path: Path, target: EngineName, *, threads: int = 1) -> None:
    """As if `edgetl tune` had found the variant `fp32` the fastest on `target`."""
    winner = tuned.Winner(
        variant="fp32",
        target=target,
        reason=f"fp32 on {target} was the fastest of 2",
        date="2026-11-24",
        machine=tuned.this_machine(),
        versions=tuned.engine_versions(),
    )
    tuned.keep(open_bundle(path), threads, winner)
