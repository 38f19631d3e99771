"""What precision each layer really got, against what was asked.

Two witnesses. The parsed network: it is strongly typed, so the types of its tensors are what the builder must obey;
this needs no GPU. The finished engine, through TensorRT's inspector: it must be loaded for that, so it needs the GPU
that it was compiled for. Only convolutions and matrix products count: they are where the time goes.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from edgetl.errors import ModelError
from edgetl.export.tensorrt.options import EnginePrecision

_COMPUTE = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY", "EINSUM", "ATTENTION")
_MOVES = ("SHUFFLE", "IDENTITY")
_TYPES = {
    "FLOAT": EnginePrecision.FP32,
    "HALF": EnginePrecision.FP16,
    "BF16": EnginePrecision.BF16,
    "FP8": EnginePrecision.FP8,
    "INT8": EnginePrecision.INT8,
}
_QUANTIZED = (EnginePrecision.INT8, EnginePrecision.FP8)
_ONNX_LAYER = re.compile(r"\[ONNX Layer: (.*?)\]")
# The inspector's words: `Row major linear FP32`, `Int8 NC/32HW32`, `Half`, ...
_WORDS = (
    (re.compile(r"\bint8\b", re.I), EnginePrecision.INT8),
    (re.compile(r"\bfp8\b", re.I), EnginePrecision.FP8),
    (re.compile(r"\b(bf16|bfloat16)\b", re.I), EnginePrecision.BF16),
    (re.compile(r"\b(fp16|half)\b", re.I), EnginePrecision.FP16),
    (re.compile(r"\b(fp32|float)\b", re.I), EnginePrecision.FP32),
)
_LEAST_SHARE = 0.5
"""Of the convolutions and matrix products that must be quantized in a quantized engine."""
_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class LayerPrecision:
    """A convolution or matrix product: the name of its ONNX node, and what it computes in."""

    name: str
    precision: EnginePrecision


def of_network(network: Any) -> tuple[LayerPrecision, ...]:
    """The precision of each convolution and matrix product, from the types in a parsed network.

    Raises:
        ModelError: one computes in a type that is not known here.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    makers = {layer.get_output(index).name: layer for layer in layers for index in range(layer.num_outputs)}
    return tuple(
        LayerPrecision(name=_name(layer), precision=_precision(layer, makers))
        for layer in layers
        if _kind(layer) in _COMPUTE
    )


def of_engine(information: str) -> dict[str, frozenset[EnginePrecision]]:
    """What the engine's layers read and write, by the name of the ONNX node that each came from.

    Layers that were fused from several convolutions or matrix products do not show what each computes in; nodes of
    such a layer map to all of the layer's types.

    Args:
        information: the inspector's JSON, of TensorRT 10 (`Format/Datatype`) or 11 (`DataType`); built with detailed
            profiling verbosity.
    """
    found: dict[str, frozenset[EnginePrecision]] = {}
    for layer in json.loads(information).get("Layers", []):
        if not isinstance(layer, Mapping):  # Names alone: the engine was built without details.
            continue
        types = set()
        for tensor in (*layer.get("Inputs", []), *layer.get("Outputs", [])):
            text = (
                f"{tensor.get('Format/Datatype', '')} {tensor.get('DataType', '')} {tensor.get('Format', '')}"
            )
            types |= {precision for pattern, precision in _WORDS if pattern.search(text)}
        for name in _ONNX_LAYER.findall(str(layer.get("Metadata", ""))):
            found[name] = found.get(name, frozenset()) | types
    return found


def check(
    asked: EnginePrecision, layers: Sequence[LayerPrecision], float32_layers: Sequence[str] = ()
) -> tuple[str, ...]:
    """Hold the layers to the precision that was asked for; return those that have another one, with the reason.

    A quantized engine may keep layers in float, as the quantizer chose, but at most half of them. Any other engine
    may keep those alone that are named in `float32_layers`.

    Raises:
        ModelError: the network is not what was asked.
    """
    others = [layer for layer in layers if layer.precision is not asked]
    match asked:
        case EnginePrecision.INT8 | EnginePrecision.FP8:
            if len(layers) - len(others) < _LEAST_SHARE * len(layers) or len(others) == len(layers):
                raise ModelError(_precision_missed(asked, layers))
            return tuple(f"{layer.name}: {layer.precision}, not quantized in the ONNX" for layer in others)
        case EnginePrecision.FP32 | EnginePrecision.FP16 | EnginePrecision.BF16:
            kept = set(float32_layers)
            fine = [o for o in others if o.precision is EnginePrecision.FP32 and o.name in kept]
            if len(fine) != len(others) or (layers and len(fine) == len(layers)):
                raise ModelError(_precision_missed(asked, layers))
            return tuple(f"{layer.name}: fp32, it would overflow in {asked}" for layer in fine)
        case _:
            assert_never(asked)


def check_engine(
    layers: Sequence[LayerPrecision], engine: Mapping[str, frozenset[EnginePrecision]]
) -> tuple[int, int]:
    """Compare the engine with its network: how many layers it shows, and how many there are.

    Raises:
        ModelError: a layer of the engine neither reads nor writes the type that its network prescribes.
    """
    shown = [layer for layer in layers if engine.get(layer.name)]
    wrong = [layer for layer in shown if layer.precision not in engine[layer.name]]
    if wrong:
        named = "; ".join(
            f"{layer.name} is {'/'.join(sorted(engine[layer.name]))} instead of {layer.precision}"
            for layer in wrong[:_SHOWN]
        )
        raise ModelError(
            f"The engine is not what was asked: {len(wrong)} of {len(layers)} layers have another type: {named}."
        )
    return len(shown), len(layers)


def counts(layers: Sequence[LayerPrecision]) -> dict[str, int]:
    """How many layers compute in what."""
    return dict(sorted(Counter(layer.precision.value for layer in layers).items()))


def _precision_missed(asked: EnginePrecision, layers: Sequence[LayerPrecision]) -> str:
    got = (
        ", ".join(f"{number} in {precision}" for precision, number in counts(layers).items()) or "none at all"
    )
    named = [f"{layer.name} ({layer.precision})" for layer in layers if layer.precision is not asked][:_SHOWN]
    remedy = {
        EnginePrecision.FP32: "Compile the float32 variant.",
        EnginePrecision.FP16: "Convert the ONNX to half precision first (edgetl build --precision fp16 does).",
        EnginePrecision.BF16: "Convert the ONNX to bfloat16 first.",
        EnginePrecision.FP8: "Quantize the model to FP8 first.",
        EnginePrecision.INT8: "Quantize the model for this target first (quantize.target in the recipe).",
    }[asked]
    return (
        f"The engine would not be what was asked: {asked} was asked, but of {len(layers)} convolutions and matrix "
        f"products there are {got}; e.g. {', '.join(named) or 'no layer'}. {remedy}"
    )


def _kind(layer: Any) -> str:
    return str(layer.type).rpartition(".")[2]


def _name(layer: Any) -> str:
    stated = _ONNX_LAYER.search(str(getattr(layer, "metadata", "") or ""))
    return stated.group(1) if stated else str(layer.name)


def _precision(layer: Any, makers: Mapping[str, Any]) -> EnginePrecision:
    """The quantized type where all operands are dequantized from it, else the first operand's own type."""
    operands = [layer.get_input(i) for i in range(min(2, layer.num_inputs))]
    types = [_source_type(tensor, makers) for tensor in operands if tensor is not None]
    if types and types[0] in _QUANTIZED and len(set(types)) == 1:
        return types[0]
    return _precision_of(operands[0])


def _source_type(tensor: Any, makers: Mapping[str, Any]) -> EnginePrecision:
    maker = makers.get(tensor.name)
    while maker is not None and _kind(maker) in _MOVES:
        tensor = maker.get_input(0)
        maker = makers.get(tensor.name)
    if maker is not None and _kind(maker) == "DEQUANTIZE":
        tensor = maker.get_input(0)
    return _precision_of(tensor)


def _precision_of(tensor: Any) -> EnginePrecision:
    name = str(tensor.dtype).rpartition(".")[2]
    if name not in _TYPES:
        raise ModelError(
            f"The network computes with {tensor.name} in {name.lower()}, which cannot be proved against what was "
            f"asked; known are {', '.join(EnginePrecision)}."
        )
    return _TYPES[name]
