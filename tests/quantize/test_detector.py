"""A detector's graph: integers up to the maps, boxes decoded in float."""

from __future__ import annotations

import functools
from importlib.util import find_spec

import numpy as np
import onnx
import pytest
import torch

from edgetl.config import Target
from edgetl.export.graphs import COMPUTE, DECODE
from edgetl.export.half_precision import to_half
from edgetl.export.onnx import to_onnx
from edgetl.export.tensorrt import (
    BuildOptions,
    EnginePrecision,
    EngineTarget,
    compile_engine,
    load_module,
)
from edgetl.inputs.image import PreprocessSpec, Resize
from edgetl.models.detector import create_detector, decode
from edgetl.models.norms import recalibrate
from edgetl.quantize.affine import from_range
from edgetl.quantize.calibrate import observe
from edgetl.quantize.graph import Graph
from edgetl.quantize.plan import make_plan
from edgetl.quantize.qdq import insert
from edgetl.quantize.replay import Network, Stream, unsupported
from edgetl.quantize.score import divergence, outputs
from edgetl.quantize.targets import GPU_TARGETS, rules_for
from edgetl.tasks.base import Detection
from tests.quantize.networks import images

TASK = Detection(labels=("a", "b"))
SIZE = 64


@functools.cache
def exported() -> onnx.ModelProto:
    model = create_detector("test_efficientnet", 2, seed=1).eval()
    with torch.no_grad():
        for out in (*model.box_out, *model.class_out):
            out.weight.mul_(5)  # type: ignore[operator, union-attr]
    recalibrate(model, [torch.from_numpy(images(8, size=SIZE))])
    return to_onnx(model, task=TASK, spec=PreprocessSpec(size=SIZE, resize=Resize.PAD), opset=18)


def quantized(target: Target) -> onnx.ModelProto:
    graph, rules = Graph(exported()), rules_for(target)
    plan = make_plan(graph, rules)
    seen = observe(exported(), plan.observed, [images(8, size=SIZE)], images=8)
    activations = {name: from_range(seen[name].low, seen[name].high, rules.activations) for name in seen}
    activations |= {name: from_range(*span, rules.activations) for name, span in plan.known.items()}
    return insert(graph, plan, rules, activations)


@pytest.mark.parametrize("target", Target)
def test_nothing_behind_the_last_convolutions_is_quantized(target: Target) -> None:
    model = quantized(target)
    makers = {name: node for node in model.graph.node for name in node.output}

    def behind(node: onnx.NodeProto) -> bool:
        """Whether boxes' decoding, or the putting together of maps, comes before a node."""
        if node.name.startswith(DECODE):
            return True
        return node.op_type not in COMPUTE and any(
            behind(makers[name]) for name in node.input if name in makers
        )

    quantizing = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert len(quantizing) > 40
    assert not any(behind(node) for node in quantizing)
    concatenated = {name for node in model.graph.node if node.op_type == "Concat" for name in node.output}
    assert not any(node.input[0] in concatenated for node in quantizing)
    resizes = [node for node in model.graph.node if node.op_type == "Resize"]
    if target not in GPU_TARGETS:
        assert [makers[node.input[0]].op_type for node in resizes] == ["DequantizeLinear"] * 2
    expected, found = (outputs(m, [images(4, size=SIZE)]) for m in (exported(), model))
    assert divergence(TASK, expected, found) < 0.1


def test_a_map_that_is_scaled_wrongly_is_a_divergence() -> None:
    expected = outputs(exported(), [images(2, size=SIZE)])
    moved = {**expected, "boxes": expected["boxes"] * 1.2}
    assert divergence(TASK, expected, expected) == 0.0
    assert divergence(TASK, expected, moved) > 0.02


def test_torch_runs_the_graph_up_to_the_maps() -> None:
    graph, batch = Graph(exported()), images(2, size=SIZE)
    assert unsupported(graph) == ()
    maps = Stream(graph, torch.from_numpy(batch)).run()
    assert maps.shape == (2, 84, 6)
    for name, found in zip(("boxes", "scores"), decode(maps, SIZE), strict=True):
        assert np.allclose(found.numpy(), outputs(exported(), [batch])[name], rtol=1e-3, atol=1e-3)
    rules = rules_for(Target.CPU_X86)
    plan = make_plan(graph, rules)
    seen = observe(exported(), plan.observed, [batch], images=2)
    activations = {name: from_range(seen[name].low, seen[name].high, rules.activations) for name in seen}
    network = Network(graph, plan, rules, activations)
    network(torch.from_numpy(batch)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_boxes_are_decoded_in_whole_precision_where_the_rest_is_half() -> None:
    batch = images(2, size=SIZE)
    half = to_half(exported(), batch)
    assert {node.name for node in half.model.graph.node if node.name.startswith(DECODE)} <= {
        *half.float32_layers
    }
    inferred = onnx.shape_inference.infer_shapes(half.model).graph.value_info
    kinds = {value.name: value.type.tensor_type.elem_type for value in inferred}
    [reach] = [node.output[0] for node in half.model.graph.node if node.name == f"{DECODE}Mul_reach"]
    assert kinds[reach] == onnx.TensorProto.FLOAT
    assert onnx.TensorProto.FLOAT16 in kinds.values()


@pytest.mark.trt
@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed")
@pytest.mark.parametrize("precision", [EnginePrecision.FP32, EnginePrecision.FP16, EnginePrecision.INT8])
def test_tensorrt_rtx_compiles_a_detector(precision: EnginePrecision) -> None:
    """Compiled, not run: that needs a GPU."""
    model, left = exported(), tuple[str, ...]()
    if precision is EnginePrecision.FP16:
        half = to_half(model, images(2, size=SIZE))
        model, left = half.model, half.float32_layers
    elif precision is EnginePrecision.INT8:
        model = quantized(Target.TENSORRT_RTX)
    options = BuildOptions(
        target=EngineTarget.TENSORRT_RTX,
        compute_capabilities=("89",),
        precision=precision,
        float32_layers=left,
    )
    built = compile_engine(load_module(EngineTarget.TENSORRT_RTX), model.SerializeToString(), options)
    assert len(built.content) > 10_000
