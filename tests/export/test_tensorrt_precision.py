"""What counts as INT8, FP16, FP32; and what the inspectors of TensorRT 10 and 11 say."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from edgetl.errors import ModelError
from edgetl.export.tensorrt import EnginePrecision
from edgetl.export.tensorrt.precision import LayerPrecision, check, check_engine, of_engine, of_network
from tests.export.test_tensorrt import Layer, tensor

FP32, FP16, INT8 = EnginePrecision.FP32, EnginePrecision.FP16, EnginePrecision.INT8


def parsed(*layers: Layer) -> Any:
    return SimpleNamespace(num_layers=len(layers), get_layer=lambda index: layers[index])


def dequantized(name: str) -> tuple[Layer, Any]:
    made = tensor(f"{name}_dq")
    return Layer("DEQUANTIZE", f"{name}_dq", [tensor(f"{name}_q", "INT8"), tensor("scale")], made), made


def found(*layers: Layer) -> list[tuple[str, str]]:
    return [(layer.name, layer.precision.value) for layer in of_network(parsed(*layers))]


def test_a_layer_is_int8_where_both_operands_are_dequantized() -> None:
    images, weights = dequantized("images"), dequantized("weights")
    conv = Layer("CONVOLUTION", "conv", [images[1], weights[1]], tensor("c"))
    alone = Layer("CONVOLUTION", "alone", [images[1]], tensor("a"))
    mixed = Layer("MATRIX_MULTIPLY", "mixed", [images[1], tensor("float")], tensor("m"))
    assert found(images[0], weights[0], conv, alone, mixed) == [
        ("conv", "int8"),
        ("alone", "int8"),
        ("mixed", "fp32"),
    ]


def test_a_shuffle_between_does_not_hide_it() -> None:
    images, weights = dequantized("images"), dequantized("weights")
    turned = Layer("SHUFFLE", "turn", [weights[1]], tensor("turned"))
    product = Layer("MATRIX_MULTIPLY", "fc", [images[1], tensor("turned")], tensor("p"))
    assert found(images[0], weights[0], turned, product) == [("fc", "int8")]


def test_a_type_that_is_not_known_is_an_error() -> None:
    with pytest.raises(ModelError, match="computes with x in fp4, which cannot be proved"):
        found(Layer("MATRIX_MULTIPLY", "fc", [tensor("x", "FP4")], tensor("p")))


def layers(*precisions: EnginePrecision) -> list[LayerPrecision]:
    return [LayerPrecision(name=f"l{i}", precision=p) for i, p in enumerate(precisions)]


def test_half_of_the_layers_at_least_must_be_quantized() -> None:
    assert check(INT8, layers(INT8, INT8, FP32)) == ("l2: fp32, not quantized in the ONNX",)
    with pytest.raises(
        ModelError, match="of 3 convolutions and matrix products there are 2 in fp32, 1 in int8"
    ):
        check(INT8, layers(INT8, FP32, FP32))


def test_all_in_float32_is_not_half_precision_even_where_all_would_overflow() -> None:
    with pytest.raises(ModelError, match="fp16 was asked"):
        check(FP16, layers(FP32, FP32), ["l0", "l1"])
    assert check(FP16, layers(FP16, FP32), ["l1"]) == ("l1: fp32, it would overflow in fp16",)


def test_the_inspector_s_words() -> None:
    def stated(name: str, words: str, **more: str) -> dict[str, Any]:
        held = {"Name": "t", "Format/Datatype": words, **more}
        return {"Name": name, "Metadata": f"[ONNX Layer: {name}]", "Inputs": [held], "Outputs": []}

    information = {
        "Layers": [
            stated("a", "Row major Int8 format"),
            stated("b", "Thirty-two wide channel vectorized row major Int8 format"),
            stated("c", "Row major linear FP32"),
            stated("d", "Channel major FP16 format where channel % 8 == 0"),
            stated("e", "", DataType="Half"),
            stated("f", "", DataType="BFloat16"),
            "names alone",
        ]
    }
    types = {name: sorted(kinds) for name, kinds in of_engine(json.dumps(information)).items()}
    assert types == {"a": ["int8"], "b": ["int8"], "c": ["fp32"], "d": ["fp16"], "e": ["fp16"], "f": ["bf16"]}
    assert check_engine(layers(FP32), {"l0": frozenset({FP32})}) == (1, 1)
    assert check_engine(layers(FP32), {}) == (0, 1)
