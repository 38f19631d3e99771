"""Operators that move values without a look at them; they keep integers as they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from edgetl.export.litert.graph import attributes, label
from edgetl.export.litert.layout import CHANNELS_LAST, plain, reshaped, transposed, without
from edgetl.export.litert.parts import refusal
from edgetl.export.litert.values import Constant, Operand
from edgetl.export.litert.writer import Writer

_END = 2**31 - 1


def transpose(writer: Writer, node: onnx.NodeProto) -> None:
    """Transpose: only the axes' names change; what has to be moved is moved where it is read."""
    source = writer.read(node)
    rank = len(source.shape)
    permutation = attributes(node).get("perm", list(reversed(range(rank))))
    writer.values[node.output[0]] = Operand(
        tensor=source.tensor,
        shape=tuple(source.shape[axis] for axis in permutation),
        order=transposed(source.order, permutation),
        grid=source.grid,
    )


def reshape(writer: Writer, node: onnx.NodeProto) -> None:
    """Reshape, Flatten, Squeeze and Unsqueeze, whose result's shape is known."""
    source, shape = writer.read(node), writer.shape(node.output[0])
    before, after = reshaped(source.shape, source.order, shape)
    source = writer.ordered(source, before)
    writer.values[node.output[0]] = writer.stored_as(source, shape, after)


def identity(writer: Writer, node: onnx.NodeProto) -> None:
    """Identity and Dropout, which do nothing when a model runs."""
    writer.values[node.output[0]] = writer.values[node.input[0]]


def concat(writer: Writer, node: onnx.NodeProto) -> None:
    """Concat: of integers all are put on the result's grid first."""
    shape = writer.shape(node.output[0])
    axis = attributes(node)["axis"] % len(shape)
    sides = [writer.values[name] for name in node.input]
    operands = [side for side in sides if isinstance(side, Operand)]
    order = operands[0].order if operands else plain(len(shape))
    grid = writer.grid_after(node.output[0])
    if len(operands) < len(sides) or not all(operand.grid is not None for operand in operands):
        grid = None
    inputs = []
    for name, side in zip(node.input, sides, strict=True):
        if isinstance(side, Constant):
            inputs.append(writer.weights(name, side, lambda values: values.transpose(order)))
            continue
        formed = writer.regridded(side, grid) if grid is not None else writer.real(side)
        inputs.append(writer.ordered(formed, order).tensor)
    writer.values[node.output[0]] = writer.step(
        "CONCATENATION",
        inputs,
        node.output[0],
        shape,
        order,
        "ConcatenationOptions",
        grid=grid,
        version=1 if grid is None else 2,
        axis=order.index(axis),
    )


def split(writer: Writer, node: onnx.NodeProto) -> None:
    """Split along an axis, into equal parts or by lengths."""
    source = writer.read(node)
    axis = attributes(node).get("axis", 0) % len(source.shape)
    lengths = [writer.shape(name)[axis] for name in node.output]
    own = label(node)
    parts = []
    for name, length in zip(node.output, lengths, strict=True):
        shape = list(source.shape)
        shape[axis] = length
        parts.append(writer.new(name, shape, source.order, source.grid))
    place = writer.numbers(f"{own}.axis", np.array(source.order.index(axis)))
    tensors = [part.tensor for part in parts]
    version = 1 if source.grid is None else 2
    if len(set(lengths)) == 1:
        inputs, kind, table = [place, source.tensor], "SPLIT", "SplitOptions"
    else:
        inputs = [source.tensor, writer.numbers(f"{own}.lengths", lengths), place]
        kind, table = "SPLIT_V", "SplitVOptions"
    writer.write(kind, inputs, tensors, table, version=version, numSplits=len(parts))
    writer.values.update(zip(node.output, parts, strict=True))


def cut(writer: Writer, node: onnx.NodeProto) -> None:
    """Slice by constant bounds, forwards."""
    source = writer.read(node)
    rank = len(source.shape)
    starts, ends = (writer.fixed(node, n, name).tolist() for n, name in ((1, "start"), (2, "end")))
    axes = writer.constant(node, 3)
    steps = writer.constant(node, 4)
    chosen = axes.values.tolist() if axes is not None else list(range(len(starts)))
    strides = steps.values.tolist() if steps is not None else [1] * len(starts)
    begin, end, step = [0] * rank, list(source.shape), [1] * rank
    for axis, start, stop, stride in zip(chosen, starts, ends, strides, strict=True):
        if stride < 1:
            raise refusal(node.op_type, label(node), "it goes backwards.")
        begin[axis], end[axis], step[axis] = slice(start, stop, stride).indices(source.shape[axis])
    writer.values[node.output[0]] = taken(writer, node.output[0], source, begin, end, step)


def taken(
    writer: Writer, name: str, source: Operand, begin: Sequence[int], end: Sequence[int], step: Sequence[int]
) -> Operand:
    """The part of a tensor between bounds, a number for each of ONNX's axes."""
    shape = [len(range(*bounds)) for bounds in zip(begin, end, step, strict=True)]
    version = 1 if source.grid is None else 2

    def numbers(what: str, values: Sequence[int]) -> int:
        return writer.numbers(f"{name}_{what}", [values[axis] for axis in source.order])

    if all(each == 1 for each in step):
        inputs = [source.tensor, numbers("begin", begin), numbers("size", shape)]
        return writer.step(
            "SLICE", inputs, name, shape, source.order, "SliceOptions", grid=source.grid, version=version
        )
    inputs = [source.tensor, numbers("begin", begin), numbers("end", end), numbers("step", step)]
    return writer.step(
        "STRIDED_SLICE",
        inputs,
        name,
        shape,
        source.order,
        "StridedSliceOptions",
        grid=source.grid,
        version=version,
    )


def gather(writer: Writer, node: onnx.NodeProto) -> None:
    """Gather of one place or several along an axis, by constant indices."""
    source, indices = writer.read(node), writer.fixed(node, 1, "index")
    axis = attributes(node).get("axis", 0) % len(source.shape)
    places = np.where(indices < 0, indices + source.shape[axis], indices)
    if indices.ndim == 0:
        begin, end = [0] * len(source.shape), list(source.shape)
        begin[axis], end[axis] = int(places), int(places) + 1
        part = taken(writer, node.output[0], source, begin, end, [1] * len(end))
        kept = tuple(length for at, length in enumerate(part.shape) if at != axis)
        writer.values[node.output[0]] = writer.stored_as(part, kept, without(part.order, [axis]))
        return
    if indices.ndim != 1:
        raise refusal(node.op_type, label(node), f"its indices have {indices.ndim} axes.")
    shape = list(source.shape)
    shape[axis] = len(places)
    writer.values[node.output[0]] = writer.step(
        "GATHER",
        [source.tensor, writer.numbers(f"{label(node)}.places", places)],
        node.output[0],
        shape,
        source.order,
        "GatherOptions",
        grid=source.grid,
        version=1 if source.grid is None else 2,
        axis=source.order.index(axis),
    )


def pad(writer: Writer, node: onnx.NodeProto) -> None:
    """Pad by zeros, another constant, or a reflection."""
    source, options = writer.read(node), attributes(node)
    pads = writer.fixed(node, 1, "padding").reshape(2, -1)
    rank = len(source.shape)
    axes = writer.constant(node, 3)
    amounts = np.zeros((rank, 2), np.int64)
    chosen = [int(a) % rank for a in axes.values] if axes is not None else list(range(rank))
    amounts[chosen] = pads.T
    if (amounts < 0).any():
        raise refusal(node.op_type, label(node), "it takes values away.")
    fill = writer.constant(node, 2)
    value = 0.0 if fill is None else float(fill.values.reshape(()))
    mode = options.get("mode", b"constant")
    inputs = [source.tensor, writer.numbers(f"{label(node)}.padding", amounts[list(source.order)])]
    match mode:
        case b"constant":
            kind, table, more = "PAD", "PadOptions", {}
            if value:
                source = writer.real(source)
                inputs = [
                    source.tensor,
                    inputs[1],
                    writer.put(f"{label(node)}.fill", np.array([value], np.float32)),
                ]
                kind, table = "PADV2", "PadV2Options"
        case b"reflect":
            kind, table, more = "MIRROR_PAD", "MirrorPadOptions", {"mode": 0}
        case _:
            raise refusal(node.op_type, label(node), f"its mode is {mode.decode()}.")
    writer.values[node.output[0]] = writer.step(
        kind,
        inputs,
        node.output[0],
        writer.shape(node.output[0]),
        source.order,
        table,
        grid=source.grid,
        version=1 if source.grid is None else 2,
        **more,
    )


def resize(writer: Writer, node: onnx.NodeProto) -> None:
    """Resize of height and width: nearest, or bilinear as PyTorch computes it."""
    source, options = writer.read(node), attributes(node)
    shape = writer.shape(node.output[0])
    if len(shape) != 4 or shape[:2] != source.shape[:2]:
        raise refusal(node.op_type, label(node), "it changes more than height and width.")
    mode = options.get("mode", b"nearest")
    how = options.get("coordinate_transformation_mode", b"half_pixel")
    rounded = options.get("nearest_mode", b"round_prefer_floor")
    match mode, how:
        case b"nearest", b"asymmetric" if rounded == b"floor":
            kind, table, more = "RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions", {}
        case b"linear", b"half_pixel" | b"pytorch_half_pixel":
            source = writer.real(source)
            kind, table, more = "RESIZE_BILINEAR", "ResizeBilinearOptions", {"halfPixelCenters": True}
        case b"linear", b"align_corners":
            source = writer.real(source)
            kind, table, more = "RESIZE_BILINEAR", "ResizeBilinearOptions", {"alignCorners": True}
        case _:
            raise refusal(node.op_type, label(node), f"it is {mode.decode()} by {how.decode()} coordinates.")
    source = writer.ordered(source, CHANNELS_LAST)
    version = 3 if "halfPixelCenters" in more else 1 if source.grid is None else 2
    writer.values[node.output[0]] = writer.step(
        kind,
        [source.tensor, writer.numbers(f"{label(node)}.size", shape[2:])],
        node.output[0],
        shape,
        CHANNELS_LAST,
        table,
        grid=source.grid,
        version=version,
        **more,
    )


def expand(writer: Writer, node: onnx.NodeProto) -> None:
    """Expand: repeats along axes of length 1."""
    source, shape = writer.read(node), writer.shape(node.output[0])
    if len(shape) != len(source.shape):
        added = len(shape) - len(source.shape)
        wider = (*range(added), *(axis + added for axis in source.order))
        source = writer.stored_as(source, (1,) * added + source.shape, wider)
    if shape == source.shape:
        writer.values[node.output[0]] = source
        return
    source = writer.real(source)
    wanted = writer.numbers(f"{label(node)}.shape", [shape[axis] for axis in source.order])
    writer.values[node.output[0]] = writer.step(
        "BROADCAST_TO",
        [source.tensor, wanted],
        node.output[0],
        shape,
        source.order,
        "BroadcastToOptions",
        version=2,
    )
