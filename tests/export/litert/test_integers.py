"""What runs on integers in LiteRT lies within a step of what its Q/DQ pairs mean, and nothing is quantized twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetl.config import Target
from edgetl.errors import ModelError
from edgetl.export.litert.convert import _WRITERS, to_network, to_tflite
from edgetl.quantize.targets import ACTIVATIONS, WEIGHTED, rules_for
from tests.export.litert.running import graph, in_litert, in_onnxruntime, kinds, needs_litert
from tests.export.litert.test_operators import node, values

needs_litert()

IMAGE = (1, 6, 8, 10)
STEP = 0.05
ZERO = -3


def quantized(
    tensor: str, scale: float = STEP, zero: int = ZERO, *, unsigned: bool = False
) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """The pair behind a tensor, which ends in `TENSOR_dq`; its constants."""
    shift = np.uint8(zero + 128) if unsigned else np.int8(zero)
    constants = {f"{tensor}_scale": np.float32(scale), f"{tensor}_zero": shift}
    nodes = [
        node("QuantizeLinear", tensor, *constants, result=f"{tensor}_q"),
        node("DequantizeLinear", f"{tensor}_q", *constants, result=f"{tensor}_dq"),
    ]
    return nodes, constants


def weights(
    name: str, shape: Sequence[int], source: float
) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """Weights and a bias stored as integers: `NAME_dq` and `NAME_bias_dq`."""
    scale = (np.abs(values(shape[0])) + 0.5).astype(np.float32) / 127
    constants = {
        name: np.random.default_rng(1).integers(-127, 128, shape).astype(np.int8),
        f"{name}_scale": scale,
        f"{name}_zero": np.zeros(shape[0], np.int8),
        f"{name}_bias": np.random.default_rng(2).integers(-900, 900, shape[0]).astype(np.int32),
        f"{name}_bias_scale": (scale * np.float32(source)).astype(np.float32),
    }
    nodes = [
        node("DequantizeLinear", name, f"{name}_scale", f"{name}_zero", result=f"{name}_dq", axis=0),
        node("DequantizeLinear", f"{name}_bias", f"{name}_bias_scale", result=f"{name}_bias_dq", axis=0),
    ]
    return nodes, constants


def between_integers(
    operators: Sequence[onnx.NodeProto],
    shape: Sequence[int] = IMAGE,
    *,
    result: tuple[float, int] = (0.06, 5),
    constants: dict[str, np.ndarray] | None = None,
    before: Sequence[onnx.NodeProto] = (),
    unsigned: bool = False,
) -> onnx.ModelProto:
    """Operators that read `images_dq` and make `x`, between pairs."""
    first, known = quantized("images", unsigned=unsigned)
    last, more = quantized("x", *result, unsigned=unsigned)
    return graph(
        [*before, *first, *operators, *last, node("Identity", "x_dq")],
        shape,
        constants=known | more | (constants or {}),
    )


def check(
    model: onnx.ModelProto, shape: Sequence[int] = IMAGE, *, step: float = 0.06, steps: float = 1.0
) -> list[str]:
    images = values(3, *shape[1:]) * 2
    expected, found = in_onnxruntime(model, images), in_litert(to_tflite(model), images)
    assert np.abs(found - expected).max() <= steps * step * 1.001
    return kinds(to_network(model))


LIMITS = {"zero": np.float32(0), "six": np.float32(6)}
AT = ("c0", "c1", "c2", "c3")
SINGLE: dict[str, tuple[list[onnx.NodeProto], dict[str, Any]]] = {
    "Add": ([node("Add", "images_dq", "images_dq", result="x")], {}),
    "AveragePool": (
        [node("AveragePool", "images_dq", result="x", kernel_shape=[2, 2], strides=[2, 2])],
        {"result": (STEP, ZERO)},
    ),
    "Concat": ([node("Concat", "images_dq", "images_dq", result="x", axis=1)], {}),
    "Clip": ([node("Clip", "images_dq", "zero", "six", result="x")], {"constants": LIMITS}),
    "Flatten": ([node("Flatten", "images_dq", result="x")], {"result": (STEP, ZERO)}),
    "GlobalAveragePool": ([node("GlobalAveragePool", "images_dq", result="x")], {"result": (0.02, 5)}),
    "HardSigmoid": (
        [node("HardSigmoid", "images_dq", result="x", alpha=1 / 6, beta=0.5)],
        {"result": (1 / 255, -128)},
    ),
    "HardSwish": ([node("HardSwish", "images_dq", result="x")], {"result": (0.03, -115)}),
    "Identity": ([node("Identity", "images_dq", result="x")], {"result": (STEP, ZERO)}),
    "MaxPool": (
        [node("MaxPool", "images_dq", result="x", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])],
        {"result": (STEP, ZERO)},
    ),
    "Mul": ([node("Mul", "images_dq", "images_dq", result="x")], {"result": (0.3, -100)}),
    "Reshape": (
        [node("Reshape", "images_dq", "c0", result="x")],
        {"result": (STEP, ZERO), "constants": {"c0": np.array([0, 6, 80])}},
    ),
    "Resize": (
        [
            node(
                *("Resize", "images_dq", "", "c0"),
                result="x",
                mode="nearest",
                coordinate_transformation_mode="asymmetric",
                nearest_mode="floor",
            )
        ],
        {"result": (STEP, ZERO), "constants": {"c0": np.array([1, 1, 2, 2], np.float32)}},
    ),
    "Relu": ([node("Relu", "images_dq", result="x")], {"result": (0.03, -128)}),
    "Sigmoid": ([node("Sigmoid", "images_dq", result="x")], {"result": (1 / 256, -128)}),
    "Sigmoid, on another grid": ([node("Sigmoid", "images_dq", result="x")], {"result": (1 / 200, -120)}),
    "Slice": (
        [node("Slice", "images_dq", *AT, result="x")],
        {
            "result": (STEP, ZERO),
            "constants": {name: np.array([v]) for name, v in zip(AT, (1, 7, 2, 2), strict=True)},
        },
    ),
    "Squeeze": (
        [node("Unsqueeze", "images_dq", "c0", result="u"), node("Squeeze", "u", "c0", result="x")],
        {"result": (STEP, ZERO), "constants": {"c0": np.array([1])}},
    ),
    "Unsqueeze": (
        [node("Unsqueeze", "images_dq", "c0", result="x")],
        {"result": (STEP, ZERO), "constants": {"c0": np.array([1])}},
    ),
    "Sub": ([node("Relu", "images_dq", result="r"), node("Sub", "images_dq", "images_dq", result="x")], {}),
    "Transpose": ([node("Transpose", "images_dq", result="x", perm=[0, 3, 1, 2])], {"result": (STEP, ZERO)}),
}


@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("name", SINGLE)
def test_one_operator(name: str, unsigned: bool) -> None:
    operators, options = SINGLE[name]
    model = between_integers(operators, unsigned=unsigned, **options)
    found = check(model, step=options.get("result", (0.06, 5))[0])
    # Integers go in once and come out once; what lies between may be put on another grid.
    assert found.count("DEQUANTIZE") == 1


def test_every_operator_that_is_quantized_for_litert_is_held_to_a_step() -> None:
    rules = rules_for(Target.LITERT)
    asked = rules.integer_operators | rules.gates | rules.transparent_operators | ACTIVATIONS | WEIGHTED
    below = {"Conv", "Gemm", "MatMul"}
    assert asked - below - {name.partition(",")[0] for name in SINGLE} == {"DepthToSpace"}
    assert "DepthToSpace" not in _WRITERS  # it is refused by name


def test_hard_swish_of_images_stays_with_the_fast_kernels() -> None:
    operators, options = SINGLE["HardSwish"]
    found = check(between_integers(operators, **options), step=options["result"][0])
    assert found == ["QUANTIZE", "DEPTHWISE_CONV_2D", "MUL", "TRANSPOSE", "DEQUANTIZE"]
    flat = between_integers(operators, (1, 12), **options)
    assert check(flat, (1, 12), step=options["result"][0]) == ["QUANTIZE", "HARD_SWISH", "DEQUANTIZE"]


def network_of_integers() -> onnx.ModelProto:
    """(N, 6, 8, 10) through convolutions with padding and strides, a gate, a shortcut, a mean and a product."""
    parts: list[onnx.NodeProto] = []
    constants: dict[str, np.ndarray] = {}

    def put(operator: onnx.NodeProto, scale: float, zero: int) -> None:
        pair, known = quantized(operator.output[0], scale, zero)
        parts.extend([operator, *pair])
        constants.update(known)

    stored = [
        weights("v", (6, 6, 3, 3), STEP),
        weights("w", (6, 1, 3, 3), 0.2),
        weights("m", (5, 6), 0.02),
    ]
    for nodes, known in stored:
        parts.extend(nodes)
        constants.update(known)
    put(node("Conv", "images_dq", "v_dq", "v_bias_dq", result="a", pads=[1] * 4), 0.2, 3)
    put(node("HardSwish", "a_dq", result="b"), 0.15, -120)
    put(node("Add", "a_dq", "b_dq", result="c"), 0.2, -40)
    depthwise = node(
        "Conv", "c_dq", "w_dq", "w_bias_dq", result="d", group=6, strides=[2, 2], pads=[1, 1, 0, 0]
    )
    put(depthwise, 0.2, -10)
    put(node("GlobalAveragePool", "d_dq", result="e"), 0.02, 0)
    put(node("Flatten", "e_dq", result="f"), 0.02, 0)
    product = node("Gemm", "f_dq", "m_dq", "m_bias_dq", result="x", transB=1)
    return between_integers([*parts, product], ("batch", *IMAGE[1:]), constants=constants, result=(0.02, 0))


def test_a_network_of_integers() -> None:
    found = check(network_of_integers(), IMAGE, step=0.02, steps=4.0)
    assert (found[0], found[-1]) == ("QUANTIZE", "DEQUANTIZE")
    assert found.count("DEQUANTIZE") == 1


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[onnx.ModelProto, float]:
    groups = draw(st.sampled_from([1, 2, 6]))
    kernel, stride = (draw(st.tuples(st.integers(1, most), st.integers(1, most))) for most in (3, 2))
    pads = draw(st.lists(st.integers(0, 1), min_size=4, max_size=4))
    before, constants = weights("w", (groups * 2, 6 // groups, *kernel), STEP)
    taps = 6 // groups * kernel[0] * kernel[1]
    step = float(np.float32(0.03 * taps**0.5))
    names = ("images_dq", "w_dq", "w_bias_dq")[: draw(st.integers(2, 3))]
    operator = node("Conv", *names, result="x", group=groups, kernel_shape=kernel, strides=stride, pads=pads)
    zero = draw(st.sampled_from([-128, 0, 7]))
    return between_integers([operator], before=before, constants=constants, result=(step, zero)), step


@settings(max_examples=40)
@given(convolutions())
def test_convolutions(drawn: tuple[onnx.ModelProto, float]) -> None:
    model, step = drawn
    found = check(model, step=step)
    assert [kind for kind in found if kind not in ("PAD", "TRANSPOSE")] == [
        "QUANTIZE",
        "DEPTHWISE_CONV_2D" if "DEPTHWISE_CONV_2D" in found else "CONV_2D",
        "DEQUANTIZE",
    ]


@st.composite
def poolings(draw: st.DrawFn) -> onnx.ModelProto:
    kernel, stride = (draw(st.tuples(st.integers(2, 4), st.integers(1, 3))) for _ in range(2))
    pads = [draw(st.integers(0, length - 1)) for length in (*kernel, *kernel)]
    options: dict[str, Any] = {"kernel_shape": kernel, "strides": stride, "pads": pads}
    kind = draw(st.sampled_from(["MaxPool", "AveragePool"]))
    if kind == "AveragePool":
        options["count_include_pad"] = draw(st.integers(0, 1))
    return between_integers([node(kind, "images_dq", result="x", **options)], result=(STEP, ZERO))


@settings(max_examples=30)
@given(poolings())
def test_poolings(model: onnx.ModelProto) -> None:
    check(model, step=STEP)


def test_a_product_of_a_sequence() -> None:
    before, constants = weights("w", (5,), STEP)
    constants |= {"w": np.random.default_rng(1).integers(-127, 128, (12, 5)).astype(np.int8)}
    before = [node("DequantizeLinear", "w", "w_scale", "w_zero", result="w_dq", axis=1)]
    del constants["w_bias"], constants["w_bias_scale"]
    operator = node("MatMul", "images_dq", "w_dq", result="x")
    model = between_integers([operator], (1, 4, 12), before=before, constants=constants, result=(0.1, 4))
    assert "FULLY_CONNECTED" in check(model, (1, 4, 12), step=0.1)


@pytest.mark.parametrize("between", [True, False])
def test_a_product_with_weights_is_exact_where_its_result_stays_real(between: bool) -> None:
    """Behind the last product nothing is quantized: its integers are multiplied as the numbers that they are."""
    before, constants = weights("w", (5, 12), STEP)
    operator = node("Gemm", "images_dq", "w_dq", "w_bias_dq", result="x", transB=1)
    if between:
        model = between_integers([operator], (1, 12), before=before, constants=constants, result=(0.1, 4))
        assert check(model, (1, 12), step=0.1) == ["QUANTIZE", "FULLY_CONNECTED", "DEQUANTIZE"]
        return
    pair, known = quantized("images")
    model = graph([*before, *pair, operator], (1, 12), constants=constants | known, result="x")
    assert check(model, (1, 12), step=1e-5) == ["QUANTIZE", "DEQUANTIZE", "DEQUANTIZE", "FULLY_CONNECTED"]
    stored = [t for t in to_network(model).tensors if t.data is not None and t.dtype == "int8"]
    assert [tensor.shape for tensor in stored] == [(5, 12)]


def test_weights_have_a_scale_a_channel_and_biases_the_products_grid() -> None:
    before, constants = weights("w", (6, 1, 3, 3), STEP)
    operator = node("Conv", "images_dq", "w_dq", "w_bias_dq", result="x", group=6, pads=[1] * 4)
    network = to_network(between_integers([operator], before=before, constants=constants))
    [convolution] = [o for o in network.operators if o.kind == "DEPTHWISE_CONV_2D"]
    source, weight, bias = (network.tensors[at] for at in convolution.inputs)
    assert (weight.shape, weight.grid.axis, weight.grid.zero_point) == ((1, 3, 3, 6), 3, 0)
    np.testing.assert_array_equal(weight.data[0, :, :, 4], constants["w"][4, 0])
    assert bias.dtype == "int32"
    np.testing.assert_array_equal(bias.data, constants["w_bias"])
    np.testing.assert_allclose(bias.grid.scale, source.grid.scale * weight.grid.scale, rtol=1e-6)


def test_integers_of_another_scale_are_brought_together() -> None:
    pairs = [quantized("a", 0.03, -128), quantized("b", 0.05, 10)]
    operators = [
        node("Relu", "images_dq", result="a"),
        *pairs[0][0],
        node("Sub", "images_dq", "a_dq", result="b"),
        *pairs[1][0],
        node("Concat", "a_dq", "b_dq", result="x", axis=1),
    ]
    model = between_integers(operators, constants=pairs[0][1] | pairs[1][1], result=(0.05, 10))
    found = check(model, step=0.05, steps=2.0)
    assert found.count("QUANTIZE") == 2  # the images, and the half that stands on another grid
    assert found.count("DEQUANTIZE") == 1


def test_the_same_integers_on_another_scale_are_a_product() -> None:
    """As gates are written for CPUs: what is quantized once is read with alpha times the scale."""
    first, known = quantized("images")
    known["half"] = np.float32(STEP / 2)
    nodes = [
        *first,
        node("DequantizeLinear", "images_q", "half", "images_zero", result="halved"),
        node("Add", "images_dq", "halved", result="x"),
    ]
    last, more = quantized("x", 0.08, 0)
    model = graph([*nodes, *last, node("Identity", "x_dq")], IMAGE, constants=known | more)
    assert "MUL" in check(model, step=0.08)


def test_what_stays_in_float_reads_real_numbers() -> None:
    pair, known = quantized("images")
    nodes = [*pair, node("Exp", "images_dq"), node("Tanh", "images_dq", result="other")]
    model = graph(nodes[:-1], IMAGE, constants=known)
    assert check(model, step=1e-3) == ["QUANTIZE", "DEQUANTIZE", "EXP", "TRANSPOSE"]


@pytest.mark.parametrize("stored", ["half", "int8"])
def test_weights_are_stored_in_as_few_bytes_as_in_onnx(stored: str) -> None:
    real = values(32, 16, 3, 3)
    if stored == "half":
        constants = {"s": real.astype(np.float16)}
        nodes = [node("Cast", "s", result="w", to=onnx.TensorProto.FLOAT)]
    else:
        scale = np.abs(real).max(axis=(1, 2, 3), keepdims=True) / 127
        constants = {"s": np.rint(real / scale).astype(np.int8), "scale": scale.astype(np.float32)}
        nodes = [
            node("Cast", "s", result="t", to=onnx.TensorProto.FLOAT),
            node("Mul", "t", "scale", result="w"),
        ]
    model = graph([*nodes, node("Conv", "images", "w")], (1, 16, 8, 8), constants=constants)
    images = values(2, 16, 8, 8)
    content = to_tflite(model)
    np.testing.assert_allclose(in_litert(content, images), in_onnxruntime(model, images), rtol=0, atol=1e-4)
    assert len(content) < real.size * (2 if stored == "half" else 1) + 4000
    assert kinds(to_network(model)) == ["DEQUANTIZE", "CONV_2D", "TRANSPOSE"]


def test_a_constant_that_is_quantized_is_worked_out() -> None:
    pair, known = quantized("c")
    constants = known | {"c": values(1, 6, 1, 1)}
    model = graph([*pair, node("Mul", "images", "c_dq")], IMAGE, constants=constants)
    images = values(2, *IMAGE[1:])
    np.testing.assert_allclose(
        in_litert(to_tflite(model), images), in_onnxruntime(model, images), rtol=0, atol=1e-6
    )


def test_scales_a_channel_of_activations_are_refused() -> None:
    constants = {"s": np.full(6, 0.1, np.float32), "z": np.zeros(6, np.int8)}
    nodes = [
        node("QuantizeLinear", "images", "s", "z", result="q", axis=1),
        node("DequantizeLinear", "q", "s", "z", axis=1),
    ]
    with pytest.raises(ModelError, match="activations have one scale, and integers of 8 bits"):
        to_network(graph(nodes, IMAGE, constants=constants))
