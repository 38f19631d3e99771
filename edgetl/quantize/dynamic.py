"""Dynamic INT8: weights stored as integers, activations quantized as they come. For networks of matrix products.

Every matrix product then needs its input's range at run time, which pays where products are large and most of the
work (vision transformers), and where static ranges serve activations badly. ONNX Runtime has no fast kernel for
convolutions of that kind (its ConvInteger is slower than float32), so convolutions stay in float.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import onnx

from edgetl.errors import ModelError
from edgetl.quantize.graph import Graph
from edgetl.quiet import quietly

ENOUGH = 0.8
"""From this share of the multiply-accumulates in matrix products on, dynamic INT8 suits."""


def linear_share(graph: Graph) -> float:
    """The share of multiply-accumulates that stand in matrix products with constant weights, in 0..1."""
    shapes = _shapes(graph.model)
    linear, other = 0, 0
    for node in graph.nodes:
        weights = graph.constant(node.input[1]) if len(node.input) > 1 else None
        if node.op_type == "Conv" and weights is not None:
            other += math.prod(shapes.get(node.output[0], ())) * weights[0].size
        elif node.op_type in ("MatMul", "Gemm"):
            made = math.prod(shapes.get(node.output[0], ()))
            if weights is not None and weights.ndim == 2:
                linear += made * (weights.size // (shapes.get(node.output[0], (1,))[-1] or 1))
            else:
                other += made * (shapes.get(node.input[0], (0,))[-1])
    return linear / (linear + other) if linear + other else 0.0


def to_dynamic(graph: Graph) -> onnx.ModelProto:
    """Quantize by `onnxruntime.quantization.quantize_dynamic`, per channel, weights in 7 bits as for any x86 CPU.

    Raises:
        ModelError: it cannot be quantized.
    """
    with quietly():
        from onnxruntime.quantization import QuantType, quantize_dynamic

    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "dynamic.onnx"
            quantize_dynamic(
                graph.model,
                path,
                op_types_to_quantize=["MatMul", "Gemm"],
                per_channel=True,
                reduce_range=True,
                weight_type=QuantType.QInt8,
            )
            model = onnx.load(path)
    except Exception as error:
        raise ModelError(f"The model cannot be quantized dynamically: {error}") from error
    onnx.helper.set_model_props(model, {p.key: p.value for p in graph.model.metadata_props})
    return model


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shapes with every free dimension taken as 1."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in (*fixed.graph.input, *fixed.graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if not dimension.dim_value:
                dimension.dim_value = 1
    inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    found = {}
    for value in (*inferred.value_info, *inferred.input, *inferred.output):
        dimensions = value.type.tensor_type.shape.dim
        found[value.name] = tuple(int(d.dim_value or 1) for d in dimensions)
    return found
