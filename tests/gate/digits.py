"""A real classifier of real pictures for the gate: handwritten digits, sound or damaged in one class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from edgetl.bundle.golden import GoldenSet
from edgetl.bundle.manifest import Provenance
from edgetl.bundle.pack import Contents, VariantSource, pack
from edgetl.inputs.image import Interpolation, PreprocessSpec, Resize, load_pixels, normalise
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from edgetl.tasks.base import Classification

LABELS = tuple("0123456789")
SPEC = PreprocessSpec(
    size=8,
    resize=Resize.SQUASH,
    crop_fraction=1.0,
    interpolation=Interpolation.BILINEAR,
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
)
TESTED = 1000
"""The first so many digits are the test images; the rest may be trained on."""


def write_images(folder: Path) -> Path:
    """CLASS/*.png of the test images."""
    digits = load_digits()
    for at in range(TESTED):
        path = folder / str(digits.target[at]) / f"{at:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(_pixels(digits.images[at])).save(path)
    return folder


def write_digits_bundle(path: Path, *, images: int, lose: int | None = None) -> Path:
    """A linear classifier fitted to `images` digits; the row of the digit `lose` in its last layer is damaged."""
    digits = load_digits()
    chosen = slice(TESTED, TESTED + images)
    tensors = np.stack([np.repeat(_pixels(image)[None], 3, 0) for image in digits.images])
    inputs = ((tensors / 255 - 0.5) / 0.25).astype(np.float32).reshape(len(tensors), -1)
    fitted = LogisticRegression(C=0.01, max_iter=400).fit(inputs[chosen], digits.target[chosen])
    weights, bias = fitted.coef_.T.astype(np.float32), fitted.intercept_.astype(np.float32)
    if lose is not None:
        weights[:, lose] *= 0.5
        bias[lose] -= 3
    model = path.with_suffix(".onnx")
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["images"], ["flat"]),
            helper.make_node("Gemm", ["flat", "weights", "bias"], ["logits"]),
        ],
        "digits",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")],
    )
    opset = helper.make_opsetid("", 18)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=9), str(model))
    golden_file = path.with_suffix(".png")
    Image.fromarray(_pixels(digits.images[0])).save(golden_file)
    golden = golden_file.read_bytes()
    pixels = load_pixels(golden, SPEC)[None]
    with OnnxBackend(model, threads=1) as backend:
        outputs = backend.run(normalise(pixels, SPEC))
    pack(
        Contents(
            name=path.stem,
            task=Classification(labels=LABELS),
            preprocess=SPEC,
            variants=[VariantSource(name="fp32", precision="fp32", target="any", model=model)],
            default="fp32",
            golden=GoldenSet(images=(golden,), pixels=pixels, outputs={"fp32": outputs}),
            provenance=Provenance(data_sha256="d" * 64),
        ),
        path,
    )
    return path


def _pixels(image: np.ndarray) -> np.ndarray:
    return np.rint(image * (255 / 16)).astype(np.uint8)
