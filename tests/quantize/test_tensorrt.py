"""The TensorRT form of five backbones, compiled by the real TensorRT-RTX builder. No engine is run."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
from onnx import numpy_helper

from edgetl.config import Calibrator, Target
from edgetl.export.half_precision import to_half
from edgetl.quantize.affine import from_range
from edgetl.quantize.calibrate import observe
from edgetl.quantize.graph import Graph
from edgetl.quantize.plan import make_plan
from edgetl.quantize.qdq import insert
from edgetl.quantize.ranges import estimate
from edgetl.quantize.targets import rules_for
from tests.quantize import peers

SIZE = 64

pytestmark = [
    pytest.mark.slow,
    pytest.mark.trt,
    pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed"),
]


@pytest.mark.parametrize("network", peers.NETWORKS)
def test_tensorrt_rtx_compiles_the_int8_and_the_fp16_form(network: str) -> None:
    from edgetl.export.tensorrt import BuildOptions, EnginePrecision, EngineTarget, build_engine

    model = peers.untrained(network, SIZE)
    graph, rules = Graph(model), rules_for(Target.TENSORRT)
    plan, grid = make_plan(graph, rules), rules.activations
    found = observe(model, plan.observed, peers.noise(8, SIZE), images=8)
    spans = {n: estimate(h, Calibrator.MINMAX, grid, percentile=99.99) for n, h in found.items()}
    activations = {name: from_range(*span, grid) for name, span in (spans | plan.known).items()}
    quantized = insert(graph, plan, rules, activations)
    constants = {t.name: numpy_helper.to_array(t) for t in quantized.graph.initializer}
    pairs = [n for n in quantized.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len([n for n in pairs if n.op_type == "DequantizeLinear"]) >= 2 * len(plan.weighted)
    for node in pairs:
        zero = constants[node.input[2]]
        assert zero.dtype == np.int8, node.name
        assert not zero.any(), node.name
        if node.input[0] in constants:
            assert constants[node.input[0]].dtype == np.int8, node.name
    half = to_half(model, np.concatenate(list(peers.noise(8, SIZE))))
    for content, precision in ((quantized, EnginePrecision.INT8), (half.model, EnginePrecision.FP16)):
        options = BuildOptions(
            target=EngineTarget.TENSORRT_RTX,
            precision=precision,
            float32_layers=half.float32_layers if precision is EnginePrecision.FP16 else (),
            compute_capabilities=("89",),
            batch=(1, 1, 4),
        )
        engine = build_engine(content.SerializeToString(), options)
        assert engine.record.size_bytes == len(engine.content) > 0
