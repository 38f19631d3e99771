"""What each target wants, with the reason. The rules are data; `plan` and `qdq` carry them out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import assert_never

from edgetl.config import Target
from edgetl.quantize.affine import INT7_WEIGHTS, INT8, INT8_SYMMETRIC, INT8_WEIGHTS, UINT8, Grid


@dataclass(frozen=True, kw_only=True)
class TargetRules:
    """The form of quantization.

    Attributes:
        target: whom it is for.
        activations: the grid of activations, per tensor.
        weights: the grid of weights, per output channel.
        int32_bias: biases become int32 with scale(input) * scale(weights); else they stay float32.
        integer_outputs: results of convolutions and of `integer_operators` are quantized, so that whole
            chains run on integers; else Q/DQ stands only before operators with weights and on shortcuts.
        absorb_activations: a Relu or Clip that starts at 0 is dropped: the output grid saturates there.
        integer_operators: run on integers where all their inputs are integers already.
        gates: HardSigmoid and HardSwish, which `qdq` writes as integer additions and products where their
            input is an integer.
        transparent_operators: move integers without a look at them; output and input share parameters.
        fused_operators: run in float but cost little compared with their neighbours; not reported.
        fixed_ranges: operators whose result has one range, whatever the images show.
    """

    target: Target
    activations: Grid
    weights: Grid
    int32_bias: bool
    integer_outputs: bool
    absorb_activations: bool
    integer_operators: frozenset[str]
    gates: frozenset[str]
    transparent_operators: frozenset[str]
    fused_operators: frozenset[str]
    fixed_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)


GPU_TARGETS = frozenset({Target.TENSORRT, Target.TENSORRT_RTX})
CPU_TARGETS = frozenset(Target) - GPU_TARGETS
X86_TARGETS = frozenset({Target.CPU_X86, Target.CPU_X86_VNNI, Target.OPENVINO})
WEIGHTED = frozenset({"Conv", "Gemm", "MatMul"})
ACTIVATIONS = frozenset({"Relu", "Clip"})
GATES = frozenset({"HardSigmoid", "HardSwish"})
MOVES_OF_FLOATS = frozenset({"Split", "Gather", "Expand"})
POINTWISE = frozenset({"Add", "Sub", "Mul", "Div", "Erf", "Gelu", "Sigmoid", "HardSigmoid", "HardSwish"})
MOVES = frozenset(
    {
        "MaxPool",
        "Resize",
        "Flatten",
        "Reshape",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Slice",
        "DepthToSpace",
        "Identity",
    }
)


def rules_for(target: Target) -> TargetRules:
    """The rules of a target.

    `cpu-x86`, ONNX Runtime on any x86 CPU. Activations uint8, weights int8 (U8S8): the dot-product instruction
    (vpdpbusd) multiplies unsigned by signed bytes; signed activations take a detour that is 2 to 5 times slower
    than float32. Asymmetric, since after a ReLU all 256 levels are then used. Weights within -64..64: without
    VNNI (AVX2, AVX-512BW) the kernel adds two products in 16 bits (vpmaddubsw), which saturate without a word
    where both weights are large; within 64 they cannot. On EfficientNet-Lite0 on an AVX2 CPU the full 8 bits cost
    2 points of top-1 through saturation, the seventh bit none; ONNX Runtime's own way out
    (`session.x64quantprecision`) is as slow as float32 there. A bundle is run elsewhere than it was made, so this
    is the default. Bias int32, because only then ONNX Runtime fuses DQ-Conv-Q into QLinearConv. Additions,
    products, concatenations, average pooling, Sigmoid and the hard gates run on integers, so that a residual or
    squeeze-excite network is quantized once, at its input: a float operator in between costs two conversions of
    its tensors and a change of layout.

    `cpu-x86-vnni`: the same with weights within -127..127, for CPUs that are known to have VNNI, where products are
    summed in 32 bits.

    `cpu-arm`, ONNX Runtime on Arm64. Activations int8 asymmetric, weights int8 (S8S8): SDOT and SMMLA multiply
    signed by signed bytes, and the fast kernels for symmetric weights want their zero point to be 0. Weights leave out
    -128, so that two products fit in 16 bits also where SDOT is missing. A ReLU's
    output still uses all 256 levels, with zero point -128. The rest as on x86.

    `tensorrt` and `tensorrt-rtx`. int8 symmetric throughout: the parser refuses zero points other than 0, and
    int32 inputs to DequantizeLinear, so biases stay float. Q/DQ stands before convolutions and matrix products
    alone, and on the shortcut of a residual addition but not on the convolution's side, so that convolution,
    addition and ReLU become one kernel (TensorRT documentation, "Q/DQ placement recommendations"). Pooling
    and pointwise operators stay in float; the builder moves Q/DQ over them where that is exact.

    `openvino`: the grids of `cpu-x86`, since its kernels use the same instructions. Biases stay float, which its
    import wants, and hard gates stay whole, which it fuses itself.

    `litert`: the grids of `cpu-arm`, which are those of its quantization specification: int8, weights without -128
    around 0, biases int32, and a sigmoid's result in steps of 1/256 from 0. Hard gates stay whole: it has operators
    for them.
    """
    match target:
        case Target.CPU_X86:
            return _onnxruntime(target, UINT8, INT7_WEIGHTS)
        case Target.CPU_X86_VNNI:
            return _onnxruntime(target, UINT8, INT8_WEIGHTS)
        case Target.CPU_ARM:
            return _onnxruntime(target, INT8, INT8_WEIGHTS)
        case Target.TENSORRT | Target.TENSORRT_RTX:
            return TargetRules(
                target=target,
                activations=INT8_SYMMETRIC,
                weights=INT8_WEIGHTS,
                int32_bias=False,
                integer_outputs=False,
                absorb_activations=False,
                integer_operators=frozenset(),
                gates=frozenset(),
                transparent_operators=frozenset(),
                fused_operators=ACTIVATIONS
                | POINTWISE
                | MOVES
                | MOVES_OF_FLOATS
                | {"Concat", "AveragePool", "GlobalAveragePool"},
            )
        case Target.OPENVINO:
            return dataclasses.replace(
                _onnxruntime(target, UINT8, INT7_WEIGHTS), int32_bias=False, gates=frozenset()
            )
        case Target.LITERT:
            plain = _onnxruntime(target, INT8, INT8_WEIGHTS)
            return dataclasses.replace(
                plain,
                integer_operators=plain.integer_operators | GATES,
                gates=frozenset(),
                fixed_ranges={"Sigmoid": (0.0, 255 / 256)},
            )
        case _:
            assert_never(target)


def _onnxruntime(target: Target, activations: Grid, weights: Grid) -> TargetRules:
    return TargetRules(
        target=target,
        activations=activations,
        weights=weights,
        int32_bias=True,
        integer_outputs=True,
        absorb_activations=True,
        integer_operators=frozenset({"Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "Sigmoid"}),
        gates=GATES,
        transparent_operators=MOVES,
        fused_operators=ACTIVATIONS | MOVES | MOVES_OF_FLOATS,
    )
