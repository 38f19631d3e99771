"""What ONNX Runtime and TensorRT-RTX make of the quantized graph."""

from __future__ import annotations

import platform
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from edgetl.bundle.golden import TOLERANCE
from edgetl.bundle.manifest import Precision
from edgetl.config import Calibrator, Target
from edgetl.quantize.affine import from_range
from edgetl.quantize.calibrate import observe
from edgetl.quantize.graph import Graph
from edgetl.quantize.plan import make_plan
from edgetl.quantize.qdq import insert
from edgetl.quantize.ranges import estimate
from edgetl.quantize.targets import rules_for
from tests.quantize import networks
from tests.quantize.networks import logits


def _quantized(
    model: onnx.ModelProto, target: Target, calibrator: Calibrator = Calibrator.MSE
) -> onnx.ModelProto:
    graph, rules = Graph(model), rules_for(target)
    plan = make_plan(graph, rules)
    histograms = observe(model, plan.observed, [networks.images(8, seed=s) for s in range(4)], images=32)
    grid = rules.activations
    ranges = {name: estimate(h, calibrator, grid, percentile=99.99) for name, h in histograms.items()}
    activations = {name: from_range(*span, grid) for name, span in (ranges | plan.known).items()}
    return insert(graph, plan, rules, activations)


def _run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"images": images})[0]


def _optimised(model: onnx.ModelProto, folder: Path) -> Counter[str]:
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 3
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the fused operators of an x86 CPU")
def test_onnx_runtime_stays_on_integers_from_input_to_logits(tmp_path: Path) -> None:
    assert _optimised(_quantized(networks.exported(), Target.CPU_X86), tmp_path) == {
        "QuantizeLinear": 1,
        "QLinearConv": 6,
        "QLinearAdd": 3,  # the shortcut, and the additions in the hard sigmoid and the hard swish
        "QLinearMul": 2,
        "QLinearGlobalAveragePool": 2,
        "MaxPool": 1,
        "Flatten": 1,
        "QGemm": 1,
    }


def test_two_products_fit_in_sixteen_bits_on_any_x86() -> None:
    rules = rules_for(Target.CPU_X86)
    assert 2 * rules.activations.highest * rules.weights.highest < 2**15
    assert 2 * rules_for(Target.CPU_X86_VNNI).activations.highest * 127 >= 2**15


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the integer kernels of an x86 CPU")
@pytest.mark.parametrize("kernel", [1, 3])
def test_the_largest_sums_do_not_saturate(kernel: int) -> None:
    """Equal large weights and inputs: without VNNI, 8-bit weights would lose half of the sum without a word."""
    large = np.full((8, 16, kernel, kernel), 0.5, np.float32)
    model = networks.graph(
        [
            helper.make_node("Conv", ["images", "w"], ["a"], "first", pads=[kernel // 2] * 4),
            helper.make_node("Conv", ["a", "v"], ["logits"], "last"),
        ],
        {"w": large, "v": np.full((4, 8, 1, 1), 0.25, np.float32)},
        channels=16,
    )
    graph, rules = Graph(model), rules_for(Target.CPU_X86)
    plan = make_plan(graph, rules)
    top = 8.0 * kernel**2
    activations = {
        name: from_range(0.0, high, rules.activations) for name, high in (("images", 1.0), ("a", top))
    }
    images = np.ones((1, 16, 8, 8), np.float32)
    got = _run(insert(graph, plan, rules, activations), images)
    np.testing.assert_allclose(got, _run(model, images), rtol=0.01)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the integer kernels of an x86 CPU")
def test_threads_and_batches_do_not_change_a_bit_and_other_kernels_little() -> None:
    """What the golden tolerance of INT8 rests on."""
    model, images = _quantized(networks.exported(), Target.CPU_X86), networks.images(32, seed=3)

    def run(*, threads: int = 1, batch: int = 1, level: str = "ALL") -> np.ndarray:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        parts = [images[start : start + batch] for start in range(0, len(images), batch)]
        return np.concatenate([session.run(None, {"images": part})[0] for part in parts])

    recorded = run()
    np.testing.assert_array_equal(run(threads=2), recorded)
    np.testing.assert_array_equal(run(batch=8), recorded)
    allowed = TOLERANCE[Precision.INT8] * np.abs(recorded).max()
    for other in (run(level="EXTENDED"), run(level="BASIC"), logits(model, [images], target="tensorrt")):
        assert np.abs(other - recorded).max() <= allowed


@pytest.mark.parametrize("operator", ["HardSwish", "HardSigmoid", "Sigmoid"])
@pytest.mark.parametrize("target", [Target.CPU_X86, Target.CPU_ARM])
def test_gates_on_integers_are_right_to_a_step(operator: str, target: Target) -> None:
    """The convolutions pass their input on, so that the gate's own error is seen."""
    identity = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    options = {"alpha": 0.3, "beta": 0.4} if operator == "HardSigmoid" else {}
    model = networks.graph(
        [
            helper.make_node("Conv", ["images", "w"], ["a"], "first"),
            helper.make_node(operator, ["a"], ["b"], "gate", **options),
            helper.make_node("Conv", ["b", "w"], ["logits"], "last"),
        ],
        {"w": identity},
        output=("batch", 3, 8, 8),
    )
    graph, rules = Graph(model), rules_for(target)
    plan = make_plan(graph, rules)
    assert len(plan.integer) == 1
    ranges = {"images": (-4.0, 4.0), "a": (-4.0, 4.0), "b": (-0.4, 4.0)} | plan.known
    activations = {name: from_range(*span, rules.activations) for name, span in ranges.items()}
    images = np.linspace(-3.9, 3.9, 3 * 64, dtype=np.float32).reshape(1, 3, 8, 8)
    expected, got = _run(model, images), _run(insert(graph, plan, rules, activations), images)
    # Steps: 8/255 of the input, 1/255 of the gate (times up to 4), 4.4/255 of the output; half of each, twice.
    assert np.abs(got - expected).max() < 0.06


@pytest.mark.parametrize("target", list(Target))
@pytest.mark.parametrize("calibrator", [Calibrator.PERCENTILE, Calibrator.MSE, Calibrator.MINMAX])
def test_logits_stay_close_to_float(target: Target, calibrator: Calibrator) -> None:
    model = networks.exported()
    images = networks.images(40, seed=9)
    expected, got = _run(model, images), _run(_quantized(model, target, calibrator), images)
    noise = ((got - expected) ** 2).mean() / expected.var()
    assert noise < 0.02
    assert got.dtype == np.float32


@pytest.mark.trt
@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")
def test_tensorrt_rtx_compiles_its_form() -> None:
    from edgetl.export.tensorrt import BuildOptions, EnginePrecision, EngineTarget, build_engine

    quantized = _quantized(networks.exported(), Target.TENSORRT_RTX)
    pairs = [n for n in quantized.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in quantized.graph.initializer}
    assert pairs
    assert all(not tensors[n.input[2]].any() for n in pairs)
    assert all(tensors[n.input[0]].dtype == np.int8 for n in pairs if n.input[0] in tensors)
    options = BuildOptions(
        target=EngineTarget.TENSORRT_RTX,
        precision=EnginePrecision.INT8,
        compute_capabilities=("89",),
        batch=(1, 1, 4),
    )
    engine = build_engine(quantized.SerializeToString(), options)
    assert engine.record.size_bytes == len(engine.content) > 0
