"""Why pruned widths are multiples of 16 on x86: INT8 depthwise convolutions of more and fewer channels, in turn."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgetl.bench.timer import PAUSE_S, block_of, time_interleaved
from edgetl.quantize.score import open_session
from tests.bench.claims import Claim, at_least

SIDE = 72
CHANNELS = (16, 24, 32, 40, 48, 120, 128)
PAIRS = ((24, 32), (40, 48), (120, 128))


def run() -> Iterator[Claim]:
    """Yield the claims."""
    calls = {str(channels): _call(channels) for channels in CHANNELS}
    settle, block = block_of(calls)
    timed = time_interleaved(
        calls, warmup=2 * block, runs=10 * block, pause_s=PAUSE_S, settle=settle, block=block
    )
    taken = {int(name): statistics.median(samples) for name, samples in timed.items()}
    for channels, ms in taken.items():
        yield Claim(name=f"3x3 depthwise, {SIDE}x{SIDE}, {channels} channels", measured=f"{1000 * ms:.0f} us")
    for odd, even in PAIRS:
        name = f"{odd} channels' time over that of {even}"
        yield at_least(name, taken[odd] / taken[even], 1.0, "x")


def _call(channels: int) -> Callable[[], object]:
    """A depthwise convolution alone, on one thread."""
    session = open_session(_model(channels), threads=1)
    image = np.zeros((1, channels, SIDE, SIDE), np.uint8)
    return lambda: session.run(None, {"x": image})


def _model(channels: int) -> onnx.ModelProto:
    constants = {
        "scale": np.float32(0.02),
        "zero": np.uint8(0),
        "weights": np.random.default_rng(0).integers(-60, 60, (channels, 1, 3, 3), dtype=np.int8),
        "weight_scale": np.full(channels, 0.01, np.float32),
        "weight_zero": np.zeros(channels, np.int8),
    }
    inputs = ["x", "scale", "zero", "weights", "weight_scale", "weight_zero", "scale", "zero"]
    node = helper.make_node(
        "QLinearConv", inputs, ["y"], group=channels, kernel_shape=[3, 3], pads=[1, 1, 1, 1]
    )
    shape = [1, channels, SIDE, SIDE]
    graph = helper.make_graph(
        [node],
        "depthwise",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
