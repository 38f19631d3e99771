"""A detector that works, made by hand: bright squares of pure colours on black, found by one fixed convolution.

Its graph is laid out as an exported one's: raw maps, then a decode in float whose nodes' names begin with `decode/`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edgetl.bundle.golden import GoldenSet
from edgetl.bundle.manifest import Provenance
from edgetl.bundle.pack import Contents, VariantSource, pack
from edgetl.inputs.image import Interpolation, PreprocessSpec, Resize, load_pixels
from edgetl.runtime.engines.base import run_pixels
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from edgetl.tasks.base import Detection

COLOURS = ("red", "green", "blue")
TASK = Detection(labels=COLOURS, threshold=0.5)
SPEC = PreprocessSpec(
    size=96,
    resize=Resize.PAD,
    interpolation=Interpolation.BILINEAR,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)
SIDE = 16
"""Of the squares that are found, in pixels of the input."""
_STEEP, _MIDDLE = 16.0, 0.55


def model(
    *,
    blind: int | None = None,
    scale: float = 1.0,
    swapped: bool = False,
    quantized_decode: bool = False,
    side: int = SIDE,
    spec: PreprocessSpec = SPEC,
) -> onnx.ModelProto:
    """The detector.

    Args:
        blind: a class that it does not find.
        scale: by which its boxes are wrong.
        swapped: x for y.
        side: of the squares that it finds, in pixels of the input.
        quantized_decode: the decode in 8 bits, with one range for all distances.
        spec: kept in the metadata, as an export does; its size is the input's.
    """
    classes, window, stride = len(COLOURS), 2 * side, side // 2
    # How much more of a colour there is inside the square than around it.
    inside = np.zeros((window, window), np.float32)
    inside[stride:-stride, stride:-stride] = 1
    kernel = inside / inside.sum() - (1 - inside) / (1 - inside).sum()
    pure = 1.5 * np.eye(classes, dtype=np.float32) - 0.5
    weights = _STEEP * pure[:, :, None, None] * kernel[None, None]
    bias = np.full(classes, -_STEEP * _MIDDLE, np.float32)
    if blind is not None:
        weights[blind], bias[blind] = 0, -9
    # One more channel than the classes, which is 0, serves as all four distances (of one stride, exp(0)).
    weights = np.concatenate([np.zeros((4, classes, window, window), np.float32), weights])
    bias = np.concatenate([np.zeros(4, np.float32), bias])
    line = (np.arange(spec.size // stride, dtype=np.float32) + 0.5) * stride
    y, x = np.meshgrid(line, line, indexing="ij")
    centres = np.stack([y, x] if swapped else [x, y], axis=-1).reshape(1, -1, 2)
    ends = np.iinfo(np.int64).max
    constants: dict[str, Any] = {
        "weights": weights,
        "bias": bias,
        "rows": np.array([0, 4 + classes, -1], np.int64),
        "decode/centres": (scale * centres).astype(np.float32),
        "decode/strides": np.float32(scale * stride),
        **{f"decode/at{n}": np.array([n], np.int64) for n in (0, 2, 4)},
        "decode/end": np.array([ends], np.int64),
        "decode/step": np.float32(12.0),
        "decode/zero": np.uint8(0),
    }

    def node(kind: str, inputs: list[str], result: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(kind, inputs, [result], name=f"{kind}_{result}", **attributes)

    def part(tensor: str, start: str, end: str, result: str) -> onnx.NodeProto:
        return node("Slice", [tensor, f"decode/{start}", f"decode/{end}", "decode/at2"], f"decode/{result}")

    pad = (window - stride) // 2
    nodes = [
        node("Conv", ["images", "weights", "bias"], "maps", strides=[stride] * 2, pads=[pad] * 4),
        node("Reshape", ["maps", "rows"], "flat"),
        node("Transpose", ["flat"], "raw", perm=[0, 2, 1]),
        part("raw", "at0", "at4", "distances"),
        node("Exp", ["decode/distances"], "decode/steps"),
        node("Mul", ["decode/steps", "decode/strides"], "decode/reach"),
    ]
    reach = "decode/reach"
    if quantized_decode:
        nodes += [
            node("QuantizeLinear", [reach, "decode/step", "decode/zero"], "decode/bytes"),
            node("DequantizeLinear", ["decode/bytes", "decode/step", "decode/zero"], "decode/again"),
        ]
        reach = "decode/again"
    nodes += [
        part(reach, "at0", "at2", "before"),
        part(reach, "at2", "at4", "behind"),
        node("Sub", ["decode/centres", "decode/before"], "decode/low"),
        node("Add", ["decode/centres", "decode/behind"], "decode/high"),
        node("Concat", ["decode/low", "decode/high"], "boxes", axis=2),
        part("raw", "at4", "end", "logits"),
        node("Sigmoid", ["decode/logits"], "scores"),
    ]
    places = len(line) ** 2
    graph = helper.make_graph(
        nodes,
        "squares",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, spec.size, spec.size])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", places, width])
            for name, width in (("boxes", 4), ("scores", classes))
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    from edgetl.records.codec import to_json

    helper.set_model_props(
        made,
        {
            "edgetl.labels": json.dumps(COLOURS),
            "edgetl.preprocess": json.dumps(to_json(spec), sort_keys=True),
        },
    )
    onnx.checker.check_model(made, full_check=True)
    return made


Square = tuple[int, int, int, int]
"""(x, y, side, colour) in the picture's pixels."""


WIDTH, HEIGHT = 192, 144
"""Of the pictures, in pixels."""


def squares(seed: int) -> list[Square]:
    """Two to five squares that do not touch, of 32 pixels, so of 16 in the input, near its grid."""
    generator = np.random.default_rng(seed)
    cells = [(x, y) for x in range(8, WIDTH - 34, 48) for y in range(0, HEIGHT - 34, 48)]
    chosen = generator.permutation(len(cells))[: generator.integers(2, 6)]
    moved = generator.integers(0, 3, (len(chosen), 2))
    return [
        (cells[c][0] + int(dx), cells[c][1] + int(dy), 32, int(generator.integers(0, len(COLOURS))))
        for c, (dx, dy) in zip(chosen, moved, strict=True)
    ]


def drawn(found: Sequence[Square]) -> Image.Image:
    """A picture of squares on black."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for x, y, side, colour in found:
        pixels[y : y + side, x : x + side, colour] = 255
    return Image.fromarray(pixels)


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """It as a file's bytes."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def write_set(folder: Path, images: int = 12, *, first: int = 100) -> Path:
    """Pictures of squares, and COCO's JSON of them; the JSON's path."""
    folder.mkdir(parents=True, exist_ok=True)
    listed: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for at in range(images):
        found = squares(first + at)
        name = f"{at:04}.png"
        (folder / name).write_bytes(encoded(drawn(found)))
        listed.append({"id": at + 1, "file_name": name, "width": WIDTH, "height": HEIGHT})
        annotations += [
            {
                "id": len(annotations) + number + 1,
                "image_id": at + 1,
                "category_id": 10 + colour,
                "bbox": [x, y, side, side],
                "area": side * side,
                "iscrowd": 0,
            }
            for number, (x, y, side, colour) in enumerate(found)
        ]
    names = [{"id": 10 + at, "name": name} for at, name in enumerate(COLOURS)]
    path = folder / "annotations.json"
    path.write_text(json.dumps({"images": listed, "annotations": annotations, "categories": names}))
    return path


def write_bundle(
    path: Path,
    models: dict[str, onnx.ModelProto] | None = None,
    *,
    task: Detection = TASK,
    spec: PreprocessSpec = SPEC,
) -> Path:
    """A bundle of the detector, or of these variants of it, the first of which is the default."""
    models = models or {"fp32": model()}
    images = tuple(encoded(drawn(squares(seed))) for seed in range(3))
    pixels = np.stack([load_pixels(image, spec) for image in images])
    outputs, variants = {}, []
    for name, one in models.items():
        content = one.SerializeToString()
        with OnnxBackend(content, threads=1) as backend:
            outputs[name] = run_pixels(backend, pixels, spec)
        precision = name.partition("-")[0]
        variants.append(VariantSource(name=name, precision=precision, target="any", model=content))
    pack(
        Contents(
            name=path.stem,
            task=task,
            preprocess=spec,
            variants=variants,
            default=next(iter(models)),
            golden=GoldenSet(images=images, pixels=pixels, outputs=outputs),
            provenance=Provenance(),
        ),
        path,
    )
    return path
