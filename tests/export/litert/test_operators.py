"""Every operator in LiteRT gives what it gives in ONNX Runtime: floats to 1e-5, with channels last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgetl.errors import ModelError
from edgetl.export.litert.convert import _WRITERS, to_network
from tests.export.litert.running import check, graph, kinds, needs_litert

needs_litert()

RANDOM = np.random.default_rng(0)
IMAGE = (1, 6, 8, 10)
INT64 = np.int64


def values(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def node(kind: str, *inputs: str, result: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, list(inputs), [result], f"the {kind} of {result}", **attributes)


def single(
    kind: str,
    shape: Sequence[int] = IMAGE,
    *constants: np.ndarray,
    opset: int = 18,
    **attributes: Any,
) -> onnx.ModelProto:
    """One operator on the images and constants."""
    named = {f"c{number}": constant for number, constant in enumerate(constants)}
    return graph(
        [node(kind, "images", *named, **attributes)], ("batch", *shape[1:]), constants=named, opset=opset
    )


PLAIN: dict[str, onnx.ModelProto] = {
    "Abs": single("Abs"),
    "Add": single("Add", IMAGE, values(6, 1, 1)),
    "Add, of one number": single("Add", IMAGE, np.float32(2)),
    "BatchNormalization": single(
        "BatchNormalization", IMAGE, values(6), values(6), values(6), np.abs(values(6)) + 0.1
    ),
    "Cast": single("Cast", to=TensorProto.FLOAT),
    "Clip, any": single("Clip", IMAGE, np.float32(-0.3), np.float32(0.7)),
    "Clip, to 1": single("Clip", IMAGE, np.float32(0), np.float32(1)),
    "Clip, ReLU6": single("Clip", IMAGE, np.float32(0), np.float32(6)),
    "Clip, from below": single("Clip", IMAGE, np.float32(-0.2)),
    "Concat": single("Concat", IMAGE, values(1, 2, 8, 10), axis=1),
    "Div": single("Div", IMAGE, np.abs(values(6, 1, 1)) + 0.5),
    "Dropout": single("Dropout"),
    "Elu": single("Elu"),
    "Exp": single("Exp"),
    "Expand": single("Expand", (1, 6, 1, 1), np.array([1, 6, 4, 5], INT64)),
    "Flatten": single("Flatten"),
    "Gather, one": single("Gather", (1, 5, 7), np.array(-2, INT64), axis=1),
    "Gather, several": single("Gather", IMAGE, np.array([3, 0, 5], INT64), axis=1),
    "Gelu": single("Gelu", opset=20),
    "Gelu, by tanh": single("Gelu", opset=20, approximate="tanh"),
    "Gemm": single("Gemm", (1, 5), values(5, 4), values(4)),
    "Gemm, turned": single("Gemm", (1, 5), values(4, 5), transB=1),
    "GlobalAveragePool": single("GlobalAveragePool"),
    "HardSigmoid": single("HardSigmoid", alpha=1 / 6, beta=0.5),
    "HardSigmoid, any": single("HardSigmoid", alpha=0.3, beta=0.4),
    "HardSwish": single("HardSwish"),
    "Identity": single("Identity"),
    "LayerNormalization": single("LayerNormalization", (1, 5, 12), values(12), values(12)),
    "LayerNormalization, of an image": single("LayerNormalization", IMAGE, values(10), epsilon=1e-3),
    "LeakyRelu": single("LeakyRelu", alpha=0.2),
    "MatMul": single("MatMul", (1, 5, 12), values(12, 7)),
    "MatMul, of an image": single("MatMul", IMAGE, values(10, 7)),
    "MatMul, of several": single("MatMul", (1, 2, 5, 12), values(1, 2, 12, 7)),
    "Max": single("Max", IMAGE, np.float32(0.1)),
    "Min": single("Min", IMAGE, np.float32(0.1)),
    "Mul": single("Mul", IMAGE, values(1, 6, 1, 1)),
    "Neg": single("Neg"),
    "Pad": single("Pad", IMAGE, np.array([0, 0, 1, 2, 0, 1, 0, 3], INT64)),
    "Pad, by a number": single("Pad", IMAGE, np.array([0, 0, 1, 2, 0, 0, 0, 3], INT64), np.float32(0.5)),
    "Pad, reflected": single("Pad", IMAGE, np.array([0, 0, 1, 2, 0, 0, 3, 1], INT64), mode="reflect"),
    "Pow, 2": single("Pow", IMAGE, np.float32(2)),
    "Pow, 3": single("Pow", IMAGE, np.float32(3)),
    "ReduceL2": single("ReduceL2", IMAGE, np.array([2, 3], INT64)),
    "ReduceMax": single("ReduceMax", IMAGE, np.array([1], INT64), keepdims=0),
    "ReduceMean": single("ReduceMean", IMAGE, np.array([-1, -2], INT64), keepdims=0),
    "ReduceMin": single("ReduceMin", IMAGE, np.array([3], INT64), keepdims=0),
    "ReduceSum": single("ReduceSum", IMAGE, np.array([1], INT64)),
    "Relu": single("Relu"),
    "Reshape": single("Reshape", IMAGE, np.array([0, 6, 80], INT64)),
    "Reshape, that moves": single("Reshape", IMAGE, np.array([1, 16, -1], INT64)),
    "Resize, nearest": single(
        "Resize",
        IMAGE,
        np.array([], np.float32),
        np.array([1, 1, 2, 3], np.float32),
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    ),
    "Resize, linear": single(
        "Resize", IMAGE, np.array([], np.float32), np.array([1, 1, 2, 2], np.float32), mode="linear"
    ),
    "Sigmoid": single("Sigmoid"),
    "Slice": single("Slice", IMAGE, *(np.array(v, INT64) for v in ([1, -3], [4, 99], [1, 3]))),
    "Slice, in steps": single("Slice", IMAGE, *(np.array([v], INT64) for v in (1, 7, 2, 2))),
    "Softmax": single("Softmax", (1, 4, 9)),
    "Softmax, of channels": single("Softmax", IMAGE, axis=1),
    "Squeeze": single("Squeeze", (1, 6, 1, 5), np.array([2], INT64)),
    "Sub": single("Sub", IMAGE, values(8, 10)),
    "Tanh": single("Tanh"),
    "Transpose": single("Transpose", IMAGE, perm=[0, 2, 3, 1]),
    "Transpose, others": single("Transpose", IMAGE, perm=[0, 3, 1, 2]),
    "Unsqueeze": single("Unsqueeze", (1, 6, 5), np.array([1], INT64)),
}


@pytest.mark.parametrize("name", PLAIN)
def test_one_operator(name: str) -> None:
    model = PLAIN[name]
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    check(model, values(3, *shape[1:]))


def test_every_operator_that_can_be_written_is_held_to_onnx_runtime() -> None:
    single_ones = {name.partition(",")[0] for name in PLAIN}
    others = {"AveragePool", "Conv", "MaxPool", "Split", "Sqrt"}  # below
    integers = {"DequantizeLinear", "QuantizeLinear"}  # in test_integers
    assert single_ones | others | integers == set(_WRITERS)


def test_square_roots_of_what_is_not_negative() -> None:
    model = graph([node("Sqrt", "images")], IMAGE)
    check(model, np.abs(values(2, *IMAGE[1:])))


@pytest.mark.parametrize("lengths", [(2, 2, 2), (1, 5)])
def test_split(lengths: tuple[int, ...]) -> None:
    parts = [f"part{number}" for number in range(len(lengths))]
    nodes = [
        helper.make_node("Split", ["images", "lengths"], parts, "the Split", axis=1),
        node("Concat", *reversed(parts), axis=1),
    ]
    constants = {"lengths": np.array(lengths, INT64)}
    found = check(graph(nodes, IMAGE, constants=constants), values(2, *IMAGE[1:]))
    assert ("SPLIT" if len(set(lengths)) == 1 else "SPLIT_V") in found


@st.composite
def convolutions(draw: st.DrawFn) -> onnx.ModelProto:
    groups = draw(st.sampled_from([1, 1, 2, 3, 6]))
    kernel, stride, gap = (draw(st.tuples(st.integers(1, most), st.integers(1, most))) for most in (4, 3, 2))
    pads = draw(st.lists(st.integers(0, 2), min_size=4, max_size=4))
    filters = groups * draw(st.integers(1, 3))
    size = draw(st.tuples(st.integers(7, 12), st.integers(7, 12)))
    constants = {"w": values(filters, 6 // groups, *kernel)} | (
        {"b": values(filters)} if draw(st.booleans()) else {}
    )
    convolution = node(
        "Conv",
        "images",
        *constants,
        result="x",
        group=groups,
        kernel_shape=kernel,
        strides=stride,
        dilations=gap,
        pads=pads,
    )
    after = draw(
        st.sampled_from([node("Relu", "x"), node("Identity", "x"), node("Clip", "x", "zero", "six")])
    )
    constants |= {"zero": np.float32(0), "six": np.float32(6)} if after.op_type == "Clip" else {}
    return graph([convolution, after], (1, 6, *size), constants=constants)


@settings(max_examples=60)
@given(convolutions())
def test_convolutions(model: onnx.ModelProto) -> None:
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    found = check(model, values(2, *shape[1:]))
    assert set(found) <= {"PAD", "CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE", "RESHAPE"}
    assert found.count("TRANSPOSE") <= 1  # of the output, which ONNX has with its channels first


@st.composite
def poolings(draw: st.DrawFn) -> onnx.ModelProto:
    kernel, stride = (draw(st.tuples(st.integers(2, 4), st.integers(1, 4))) for _ in range(2))
    pads = [draw(st.integers(0, length - 1)) for length in (*kernel, *kernel)]
    options: dict[str, Any] = {
        "kernel_shape": kernel,
        "strides": stride,
        "pads": pads,
        "ceil_mode": draw(st.integers(0, 1)),
    }
    kind = draw(st.sampled_from(["MaxPool", "AveragePool"]))
    if kind == "AveragePool":
        options["count_include_pad"] = draw(st.integers(0, 1))
    size = draw(st.tuples(st.integers(7, 12), st.integers(7, 12)))
    reach = [size[a] + pads[a] + pads[2 + a] - kernel[a] for a in (0, 1)]
    if options["ceil_mode"]:
        assume(all(-(-reach[a] // stride[a]) * stride[a] < size[a] + pads[a] for a in (0, 1)))
    before = node(draw(st.sampled_from(["Relu", "Identity"])), "images", result="x")
    return graph([before, node(kind, "x", **options)], (1, 6, *size))


@settings(max_examples=60)
@given(poolings())
def test_poolings(model: onnx.ModelProto) -> None:
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    check(model, values(2, *shape[1:]))


@given(
    left=st.lists(st.sampled_from([1, 4]), min_size=3, max_size=3),
    right=st.lists(st.sampled_from([1, 4]), min_size=0, max_size=3),
    kind=st.sampled_from(["Add", "Sub", "Mul"]),
    turned=st.booleans(),
)
@settings(max_examples=40)
def test_broadcasts(left: list[int], right: list[int], kind: str, turned: bool) -> None:
    inputs = ("c", "x") if turned else ("x", "c")
    model = graph(
        [node("Relu", "images", result="x"), node(kind, *inputs)],
        (1, *left),
        constants={"c": values(*right)},
    )
    check(model, values(2, *left))


@st.composite
def moves(draw: st.DrawFn) -> onnx.ModelProto:
    """A few operators that only move values, one behind the other, on images of any small shape."""
    first = shape = [1, *draw(st.lists(st.integers(3, 6), min_size=3, max_size=3))]
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, np.ndarray] = {}
    source = "images"

    def constant(name: str, numbers: Sequence[int]) -> str:
        constants[f"{source}_{name}"] = np.array(numbers, INT64)
        return f"{source}_{name}"

    for step in range(draw(st.integers(1, 3))):
        result, axis = f"x{step}", draw(st.integers(1, 3))
        length = shape[axis]
        match draw(st.sampled_from(["Slice", "Pad", "Transpose", "Split", "Resize"])):
            case "Slice":
                start, stride = draw(st.integers(0, length - 1)), draw(st.integers(1, 2))
                end = draw(st.integers(start + 1, length))
                bounds = [
                    constant(n, [v])
                    for n, v in zip(("a", "b", "c", "d"), (start, end, axis, stride), strict=True)
                ]
                nodes.append(node("Slice", source, *bounds, result=result))
                shape = [*shape[:axis], len(range(start, end, stride)), *shape[axis + 1 :]]
            case "Pad":
                before, behind = (draw(st.integers(0, min(2, length - 1))) for _ in range(2))
                amounts = [0] * 8
                amounts[axis], amounts[4 + axis] = before, behind
                mode = draw(st.sampled_from(["constant", "reflect"]))
                nodes.append(node("Pad", source, constant("pads", amounts), result=result, mode=mode))
                shape = [*shape[:axis], length + before + behind, *shape[axis + 1 :]]
            case "Transpose":
                order = [0, *draw(st.permutations([1, 2, 3]))]
                nodes.append(node("Transpose", source, result=result, perm=order))
                shape = [shape[a] for a in order]
            case "Split":
                if length < 2:
                    continue
                head = draw(st.integers(1, length - 1))
                lengths = constant("lengths", [head, length - head])
                parts = [f"{result}_head", f"{result}_tail"]
                nodes.append(helper.make_node("Split", [source, lengths], parts, f"split {step}", axis=axis))
                nodes.append(node("Concat", *reversed(parts), result=result, axis=axis))
            case _:
                constants[f"{source}_scale"] = np.array([1, 1, 2, 2], np.float32)
                nodes.append(
                    node(
                        *("Resize", source, "", f"{source}_scale"),
                        result=result,
                        mode="nearest",
                        coordinate_transformation_mode="asymmetric",
                        nearest_mode="floor",
                    )
                )
                shape = [*shape[:2], 2 * shape[2], 2 * shape[3]]
        source = result
    return graph([*nodes, node("Neg", source)], first, constants=constants)


@given(moves())
@settings(max_examples=30)
def test_moves_one_behind_the_other(model: onnx.ModelProto) -> None:
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    check(model, values(2, *shape[1:]), tolerance=0)


def test_two_computed_tensors_of_two_orders() -> None:
    nodes = [
        node("Transpose", "images", result="turned", perm=[0, 1, 3, 2]),
        node("Add", "images", "turned"),
    ]
    found = check(graph(nodes, (1, 6, 8, 8)), values(2, 6, 8, 8))
    assert found.count("ADD") == 1


def test_the_bias_of_a_product_is_taken_along() -> None:
    nodes = [node("MatMul", "images", "w", result="x"), node("Add", "b", "x")]
    found = check(graph(nodes, (1, 5, 8), constants={"w": values(8, 4), "b": values(4)}), values(2, 5, 8))
    assert found == ["FULLY_CONNECTED"]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("scaled", ["Div", "Mul"])
def test_a_chain_that_is_gelu_becomes_one_operator(first: bool, scaled: str) -> None:
    root = np.float32(2**0.5)
    constants = {"root": root if scaled == "Div" else 1 / root, "one": np.float32(1), "half": np.float32(0.5)}
    nodes = [
        node(scaled, "images", "root", result="a"),
        node("Erf", "a", result="b"),
        node("Add", "b", "one", result="c"),
        *(
            (node("Mul", "images", "half", result="d"), node("Mul", "d", "c"))
            if first
            else (node("Mul", "images", "c", result="d"), node("Mul", "d", "half"))
        ),
    ]
    assert check(graph(nodes, (1, 5, 8), constants=constants), values(2, 5, 8)) == ["GELU"]


def test_attention_needs_no_transposed_keys() -> None:
    nodes = [
        node("Transpose", "images", result="keys", perm=[0, 2, 1]),
        node("MatMul", "images", "keys", result="scores"),
        node("Softmax", "scores", result="shares"),
        node("MatMul", "shares", "images"),
    ]
    assert check(graph(nodes, (1, 5, 8)), values(2, 5, 8)) == ["BATCH_MATMUL", "SOFTMAX", "BATCH_MATMUL"]


def test_channels_are_shuffled_by_one_transposition() -> None:
    nodes = [
        node("Conv", "images", "w", result="a"),
        node("Reshape", "a", "split", result="b"),
        node("Transpose", "b", result="c", perm=[0, 2, 1, 3, 4]),
        node("Reshape", "c", "joined", result="d"),
        node("GlobalAveragePool", "d", result="e"),
        node("Flatten", "e"),
    ]
    constants = {
        "w": values(6, 6, 1, 1),
        "split": np.array([1, 2, 3, 8, 10], INT64),
        "joined": np.array([1, 6, 8, 10], INT64),
    }
    found = check(graph(nodes, IMAGE, constants=constants), values(2, *IMAGE[1:]))
    assert found == ["CONV_2D", "RESHAPE", "TRANSPOSE", "RESHAPE", "MEAN", "RESHAPE"]


def test_padding_is_an_operator_only_where_it_has_to_be() -> None:
    def operators(kernel: int, stride: int, pad: int, size: int) -> list[str]:
        constants = {"w": values(4, 6, kernel, kernel)}
        convolution = node("Conv", "images", "w", result="x", pads=[pad] * 4, strides=[stride] * 2)
        nodes = [convolution, node("GlobalAveragePool", "x", result="z"), node("Flatten", "z")]
        return kinds(to_network(graph(nodes, (1, 6, size, size), constants=constants)))

    assert operators(3, 1, 1, 8) == ["CONV_2D", "MEAN", "RESHAPE"]
    assert operators(3, 2, 1, 9) == ["CONV_2D", "MEAN", "RESHAPE"]
    assert operators(3, 2, 1, 8) == ["PAD", "CONV_2D", "MEAN", "RESHAPE"]
    assert operators(3, 1, 0, 8) == ["CONV_2D", "MEAN", "RESHAPE"]


def test_operators_that_have_no_counterpart_are_named() -> None:
    for model, sentence in (
        (
            single("Sign"),
            "The operator Sign of node the Sign of y cannot be written for LiteRT: LiteRT has no operator",
        ),
        (single("Slice", IMAGE, *(np.array([v], INT64) for v in (5, -99, 1, -1))), "it goes backwards"),
        (single("MaxPool", IMAGE, kernel_shape=[2, 2], dilations=[2, 2]), "its window has gaps"),
        (
            single(
                "MaxPool", (1, 6, 7, 7), kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1
            ),
            "its last place lies beyond the image",
        ),
        (single("Conv", (1, 6, 8), values(4, 6, 3)), "it works on 3 axes"),
        (single("Pad", IMAGE, np.array([0, 0, 1, 1, 0, 0, 1, 1], INT64), mode="edge"), "its mode is edge"),
        (
            single("Resize", IMAGE, np.array([], np.float32), np.ones(4, np.float32), mode="cubic"),
            "it is cubic",
        ),
    ):
        with pytest.raises(ModelError, match=sentence):
            to_network(model)
