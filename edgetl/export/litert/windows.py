"""Operators that slide a window over height and width: convolutions and poolings, and padding before them.

Padding is exact: SAME or VALID where these mean the same as ONNX's numbers, else an operator of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgetl.export.litert.graph import attributes, label
from edgetl.export.litert.layout import CHANNELS_LAST
from edgetl.export.litert.parts import Grid, refusal
from edgetl.export.litert.values import Constant, Operand
from edgetl.export.litert.writer import Writer

SAME, VALID = 0, 1
"""The schema's numbers."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """A window's way over height and width.

    Attributes:
        size: the picture's (H, W).
        result: how many places it takes, (H, W).
        kernel, strides, dilations: (H, W).
        before: the padding above and on the left.
    """

    size: tuple[int, int]
    result: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    before: tuple[int, int]

    @property
    def after(self) -> tuple[int, int]:
        """The padding below and on the right that is looked at; what ONNX pads beyond is of no effect."""
        return self._each(lambda a: max(self._reach(a) - self.size[a] - self.before[a], 0))

    @property
    def is_valid(self) -> bool:
        """Whether nothing is padded."""
        return self.before == self.after == (0, 0)

    @property
    def is_same(self) -> bool:
        """Whether the padding is what SAME means: as much as every stride needs, the smaller half before."""

        def fits(a: int) -> bool:
            total = max(self._reach(a) - self.size[a], 0)
            halves = (total // 2, total - total // 2)
            return self.result[a] == -(-self.size[a] // self.strides[a]) and halves == (
                self.before[a],
                self.after[a],
            )

        return fits(0) and fits(1)

    def _reach(self, a: int) -> int:
        """Pixels from the first one that is looked at to the last, padding included."""
        return (self.result[a] - 1) * self.strides[a] + (self.kernel[a] - 1) * self.dilations[a] + 1

    @staticmethod
    def _each(function: Any) -> tuple[int, int]:
        return function(0), function(1)


def window_of(writer: Writer, node: onnx.NodeProto, kernel: tuple[int, ...]) -> Window:
    """A node's window.

    Raises:
        ModelError: it does not slide over two axes.
    """
    size, result = writer.shape(node.input[0]), writer.shape(node.output[0])
    if len(size) != 4:
        raise refusal(node.op_type, label(node), f"it works on {len(size)} axes, and only images are taken.")
    options = attributes(node)
    strides = tuple(options.get("strides", (1, 1)))
    dilations = tuple(options.get("dilations", (1, 1)))
    pads = options.get("pads", (0, 0, 0, 0))
    before = (pads[0], pads[1])
    auto = options.get("auto_pad", b"NOTSET")
    if auto in (b"SAME_UPPER", b"SAME_LOWER"):
        totals = [
            max((result[2 + a] - 1) * strides[a] + (kernel[a] - 1) * dilations[a] + 1 - size[2 + a], 0)
            for a in (0, 1)
        ]
        extra = 0 if auto == b"SAME_UPPER" else 1
        before = ((totals[0] + extra) // 2, (totals[1] + extra) // 2)
    window = Window(
        size=(size[2], size[3]),
        result=(result[2], result[3]),
        kernel=(kernel[0], kernel[1]),
        strides=(strides[0], strides[1]),
        dilations=(dilations[0], dilations[1]),
        before=before,
    )
    if options.get("ceil_mode", 0) and any(
        (window.result[a] - 1) * strides[a] >= window.size[a] + before[a] for a in (0, 1)
    ):
        # ONNX's shape inference and its runtimes disagree on whether there is such a place.
        raise refusal(node.op_type, label(node), "its last place lies beyond the image.")
    return window


def padded(writer: Writer, operand: Operand, window: Window, fill: float | None = None) -> Operand:
    """An image, channels last, with the window's padding around it: zeros, or `fill` on its own grid's lowest."""
    (top, left), (bottom, right) = window.before, window.after
    name = writer.network.tensors[operand.tensor].name
    amounts = writer.numbers(f"{name}_padding", [[0, 0], [top, bottom], [left, right], [0, 0]])
    batch, channels, height, width = operand.shape
    shape = (batch, channels, height + top + bottom, width + left + right)
    inputs, kind, table = [operand.tensor, amounts], "PAD", "PadOptions"
    if fill is not None:
        grid = operand.grid
        value = np.array([fill], np.float32) if grid is None else np.array([-128], np.int8)
        inputs.append(writer.put(f"{name}_fill", value, grid))
        kind, table = "PADV2", "PadV2Options"
    return writer.step(
        kind,
        inputs,
        f"{name}_padded",
        shape,
        CHANNELS_LAST,
        table,
        grid=operand.grid,
        version=1 if operand.grid is None else 2,
    )


def convolution(writer: Writer, node: onnx.NodeProto) -> None:
    """Conv: CONV_2D, or DEPTHWISE_CONV_2D where every channel has its own filters."""
    images, weights = writer.read(node), writer.constant(node, 1)
    if weights is None:
        raise refusal(node.op_type, label(node), "its weights are no constant.")
    if len(images.shape) != 4:
        raise refusal(node.op_type, label(node), f"it works on {len(images.shape)} axes, not on images.")
    groups, filters = attributes(node).get("group", 1), weights.values.shape[0]
    depthwise = groups == images.shape[1] and groups > 1
    window = window_of(writer, node, weights.values.shape[2:])
    grid = _integer_grid(writer, node, images, weights)
    images = writer.ordered(images if grid is not None else writer.real(images), CHANNELS_LAST)
    if not (window.is_same or window.is_valid):
        images = padded(writer, images, window)

    def rearrange(values: NDArray[Any]) -> NDArray[Any]:
        # (filters, channels of a group, H, W): behind, and of depthwise ones all filters of one place together
        return values.transpose(1, 2, 3, 0) if depthwise else values.transpose(0, 2, 3, 1)

    axis = 3 if depthwise else 0
    own = label(node)
    inputs = [
        images.tensor,
        (writer.integers if grid is not None else writer.weights)(
            f"{own}.weight", weights, rearrange, axis=axis
        ),
        bias_of(writer, node, filters, images, weights if grid is not None else None),
    ]
    options: dict[str, Any] = {
        "padding": SAME if window.is_same else VALID,
        "strideH": window.strides[0],
        "strideW": window.strides[1],
        "dilationHFactor": window.dilations[0],
        "dilationWFactor": window.dilations[1],
    }
    if depthwise:
        options["depthMultiplier"] = filters // groups
    version = 1 if grid is None else 3
    if depthwise and version == 1 and window.dilations != (1, 1):
        version = 2
    if groups > 1 and not depthwise:
        version = 6
    writer.values[node.output[0]] = writer.step(
        "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D",
        inputs,
        node.output[0],
        writer.shape(node.output[0]),
        CHANNELS_LAST,
        "DepthwiseConv2DOptions" if depthwise else "Conv2DOptions",
        grid=grid,
        version=version,
        **options,
    )


def _integer_grid(writer: Writer, node: onnx.NodeProto, images: Operand, weights: Constant) -> Grid | None:
    """The grid of the node's result where it runs on integers, else None."""
    bias = writer.constant(node, 2)
    if images.grid is None or not stored_as_int8(weights):
        return None
    if bias is not None and (bias.integers is None or bias.integers.values.dtype != np.int32):
        return None
    return writer.grid_after(node.output[0])


def stored_as_int8(weights: Constant) -> bool:
    """Whether a constant is stored as int8 around 0."""
    integers = weights.integers
    return integers is not None and integers.values.dtype == np.int8 and integers.zero_point == 0


def bias_of(
    writer: Writer, node: onnx.NodeProto, filters: int, source: Operand, weights: Constant | None
) -> int:
    """A node's bias, zeros where it has none: float32, or int32 on the products' grid where `weights` are integers."""
    name, constant = f"{label(node)}.bias", writer.constant(node, 2)
    if weights is None:
        values = np.zeros(filters, np.float32) if constant is None else constant.values
        return writer.put(name, values.astype(np.float32).reshape(filters))
    assert source.grid is not None
    assert weights.integers is not None
    if constant is not None:
        return writer.integers(name, constant, lambda values: values)
    scale = np.broadcast_to(source.grid.scale * weights.integers.scale.reshape(-1), (filters,))
    return writer.put(name, np.zeros(filters, np.int32), Grid(scale=scale.astype(np.float32), zero_point=0))


def max_pooling(writer: Writer, node: onnx.NodeProto) -> None:
    """MaxPool; what is padded never wins."""
    images = writer.ordered(writer.read(node), CHANNELS_LAST)
    window = window_of(writer, node, tuple(attributes(node)["kernel_shape"]))
    if window.dilations != (1, 1):
        raise refusal(node.op_type, label(node), "its window has gaps.")
    if not (window.is_same or window.is_valid):
        # Zeros never win over what a ReLU left, and every window holds a pixel.
        nothing = None if _starts_at_zero(writer, images) else float(np.finfo(np.float32).min)
        images = padded(writer, images, window, nothing)
    _pool(writer, node, "MAX_POOL_2D", images, window)


def average_pooling(writer: Writer, node: onnx.NodeProto) -> None:
    """AveragePool: padding is counted or left out, as the node says."""
    images = writer.ordered(writer.read(node), CHANNELS_LAST)
    options = attributes(node)
    window = window_of(writer, node, tuple(options["kernel_shape"]))
    if window.dilations != (1, 1):
        raise refusal(node.op_type, label(node), "its window has gaps.")
    if window.is_valid:
        _pool(writer, node, "AVERAGE_POOL_2D", images, window)
        return
    counted = np.ones(window.size)
    if options.get("count_include_pad", 0):
        pads = options.get("pads", (0, 0, 0, 0))
        counted = np.pad(counted, [(pads[0], pads[2]), (pads[1], pads[3])], constant_values=1.0)
        shown = np.pad(counted, [(0, max(a - p, 0)) for a, p in zip(window.after, pads[2:], strict=True)])
    else:
        (top, left), (bottom, right) = window.before, window.after
        shown = np.pad(counted, [(top, bottom), (left, right)])
    correction = _area(window) / _sums(shown, window)
    if window.is_same and not options.get("count_include_pad", 0):
        _pool(writer, node, "AVERAGE_POOL_2D", images, window)
        return
    if not np.all(correction == 1.0):
        images = writer.real(images)
    images = padded(writer, images, window)
    _pool(writer, node, "AVERAGE_POOL_2D", images, window, padding=VALID)
    if np.all(correction == 1.0):
        return
    mean = writer.values[node.output[0]]
    assert isinstance(mean, Operand)
    factors = writer.put(f"{label(node)}.area", correction.astype(np.float32)[None, :, :, None])
    writer.values[node.output[0]] = writer.step(
        "MUL", [mean.tensor, factors], node.output[0], mean.shape, CHANNELS_LAST, "MulOptions"
    )


def _area(window: Window) -> float:
    return float(window.kernel[0] * window.kernel[1])


def _sums(shown: NDArray[np.float64], window: Window) -> NDArray[np.float64]:
    """How many pixels count at each of the window's places, (H, W)."""
    (height, width), (rows, columns) = window.kernel, window.strides
    return np.array(
        [
            [
                shown[y * rows : y * rows + height, x * columns : x * columns + width].sum()
                for x in range(window.result[1])
            ]
            for y in range(window.result[0])
        ]
    )


def _pool(
    writer: Writer,
    node: onnx.NodeProto,
    kind: str,
    images: Operand,
    window: Window,
    *,
    padding: int | None = None,
) -> None:
    if padding is None:
        padding = SAME if window.is_same else VALID
    writer.values[node.output[0]] = writer.step(
        kind,
        [images.tensor],
        node.output[0],
        writer.shape(node.output[0]),
        CHANNELS_LAST,
        "Pool2DOptions",
        grid=images.grid,
        version=1 if images.grid is None else 2,
        padding=padding,
        strideH=window.strides[0],
        strideW=window.strides[1],
        filterHeight=window.kernel[0],
        filterWidth=window.kernel[1],
    )


def _starts_at_zero(writer: Writer, operand: Operand) -> bool:
    if operand.grid is not None:
        return operand.grid.low == 0.0
    maker = writer.maker(operand)
    if maker is None:
        return False
    return maker.kind in ("RELU", "RELU6", "RELU_0_TO_1", "LOGISTIC") or maker.options.get(
        "fusedActivationFunction"
    ) in (1, 3)
