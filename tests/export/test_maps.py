"""Class activation maps of exported networks against Grad-CAM on the torch network, in every form that is shipped."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgetl.config import Target
from edgetl.export.bake import bake_preprocess
from edgetl.export.half_precision import to_half
from edgetl.export.half_weights import store_half
from edgetl.export.onnx import to_bytes, to_onnx
from edgetl.inputs.frame import frame_of
from edgetl.inputs.spec import normalise
from edgetl.quantize.compact import compact
from edgetl.quantize.graph import Graph
from edgetl.quantize.plan import make_plan
from edgetl.quantize.targets import rules_for
from edgetl.quantize.weight_only import store_int8
from edgetl.runtime.engines.base import Backend, run_pixels
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from edgetl.runtime.explain import explained
from edgetl.runtime.features import MAP, pooled_head
from edgetl.runtime.wire import with_outputs
from edgetl.tasks.all import task_of
from edgetl.tasks.base import LOGITS, Classification
from tests.export.networks import LABELS, SIZE, SPEC, Tiny, tiny
from tests.quantize.test_integers import _quantized

IMAGES = 200
TASK = Classification(labels=LABELS)
Array = NDArray[np.float32]


@functools.cache
def pixels() -> NDArray[np.uint8]:
    """(IMAGES, SIZE, SIZE, 3): noise under bright spots, so that maps are not alike."""
    generator = np.random.default_rng(0)
    found = generator.integers(0, 120, (IMAGES, SIZE, SIZE, 3))
    for image in found:
        y, x = generator.integers(0, SIZE - 10, 2)
        image[y : y + 10, x : x + 10] += generator.integers(0, 136, 3)
    return found.astype(np.uint8)


@functools.cache
def images() -> Array:
    return normalise(pixels(), SPEC)


@functools.cache
def network() -> Tiny:
    """With a bias that lets it answer every class."""
    model = tiny()
    with torch.no_grad():
        model.head.bias -= model(torch.from_numpy(images())).mean(0)
    return model


@functools.cache
def exported() -> onnx.ModelProto:
    return to_onnx(network(), task=TASK, spec=SPEC, opset=18)


def maps_of(content: bytes, open_model: Callable[[bytes], Backend] | None = None) -> tuple[Array, list[int]]:
    """(IMAGES, h, w) maps of the classes that the exported network answers, and these."""
    head = pooled_head(content, [LOGITS])
    shown = with_outputs(content, head.shown)
    backend = OnnxBackend(shown, threads=1) if open_model is None else open_model(shown)
    outputs = run_pixels(backend, pixels(), SPEC)
    frame = frame_of((SIZE, SIZE), SPEC)
    found, classes = [], []
    for at, prediction in enumerate(task_of(TASK).predict(outputs, [frame] * IMAGES)):
        row = {name: values[at : at + 1] for name, values in outputs.items()}
        (one,) = explained(head, row, prediction, side=SIZE, frame=frame).maps  # type: ignore[arg-type]
        found.append(one.values)
        classes.append(one.index)
    return np.stack(found), classes


def grad_cam(model: nn.Module, layer: nn.Module, classes: list[int]) -> Array:
    """Grad-CAM before its ReLU (Selvaraju et al. 2017, equations 1 and 2), by torch's gradients: the activations,
    weighted by the mean gradient of the class's logit over the places."""
    kept: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    logits = model(torch.from_numpy(images()))
    handle.remove()
    (gradients,) = torch.autograd.grad(logits[torch.arange(IMAGES), classes].sum(), kept)
    return (gradients.mean((2, 3), keepdim=True) * kept[0]).sum(1).detach().numpy()


def correlations(first: Array, second: Array) -> Array:
    """Of each image's two maps."""
    return np.array(
        [np.corrcoef(a.reshape(-1), b.reshape(-1))[0, 1] for a, b in zip(first, second, strict=True)]
    )


def test_a_map_is_grad_cam_up_to_scale() -> None:
    model = network()
    found, classes = maps_of(to_bytes(exported()))
    expected = grad_cam(model, model.expand, classes)
    assert found.shape == expected.shape == (IMAGES, 8, 8)
    assert set(classes) == {0, 1, 2}
    np.testing.assert_allclose(found / found[0].size, expected, rtol=1e-3, atol=1e-5)


def test_a_map_is_what_captum_makes_of_the_torch_network() -> None:
    attribution = pytest.importorskip("captum.attr", reason="captum, of the bench extra, is not installed")
    model = network()
    found, classes = maps_of(to_bytes(exported()))
    layer = attribution.LayerGradCam(model, model.expand)
    expected = layer.attribute(torch.from_numpy(images()), target=classes)[:, 0].detach().numpy()
    least = correlations(found, expected).min()
    print(f"\n{IMAGES} maps against captum's LayerGradCam: least correlation {least:.6f}")
    assert least > 0.99


def weights_in_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    graph = Graph(model)
    return store_int8(graph, make_plan(graph, rules_for(Target.CPU_X86)).weighted)


SHIPPED: dict[str, tuple[Callable[[onnx.ModelProto], onnx.ModelProto], float]] = {
    "half weights": (store_half, 0.999),
    "int8 weights": (lambda model: compact(weights_in_int8(model)), 0.99),
    "int8": (lambda model: compact(_quantized(model, Target.CPU_X86)), 0.9),
    "int8, pixels in": (lambda model: bake_preprocess(compact(_quantized(model, Target.CPU_X86)), SPEC), 0.9),
    "half precision": (lambda model: to_half(model, images()[:4]).model, 0.99),
}


@pytest.mark.parametrize("form", SHIPPED)
def test_every_form_that_is_shipped_has_the_float_networks_maps(form: str) -> None:
    make, least = SHIPPED[form]
    expected, classes = maps_of(to_bytes(exported()))
    found, its_classes = maps_of(to_bytes(make(exported())))
    same = np.array(classes) == np.array(its_classes)
    found_correlations = correlations(found[same], expected[same])
    print(
        f"\n{form}: correlation with the float network's maps: median {np.median(found_correlations):.4f}, least"
        f" {found_correlations.min():.4f}, of {same.sum()} images with the same answer"
    )
    assert same.mean() > 0.5  # an untrained network's answers lie close together
    assert np.median(found_correlations) > least


def test_openvino_has_the_same_maps() -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    from edgetl.runtime.engines.openvino import OpenVinoBackend

    for model in (exported(), compact(_quantized(exported(), Target.CPU_X86))):
        expected, _ = maps_of(to_bytes(model))
        found, _ = maps_of(to_bytes(model), lambda content: OpenVinoBackend(content, threads=1))
        assert np.median(correlations(found, expected)) > 0.98


@pytest.mark.slow
@pytest.mark.trt
@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_tensorrt_rtx_compiles_a_network_with_its_map(precision: str) -> None:
    from edgetl.export.tensorrt import BuildOptions, EnginePrecision, EngineTarget, build_engine

    if precision == "fp16":
        half = to_half(exported(), images()[:4])
        model, layers = half.model, half.float32_layers
    else:
        model = exported() if precision == "fp32" else _quantized(exported(), Target.TENSORRT)
        layers = ()
    content = to_bytes(model)
    options = BuildOptions(
        target=EngineTarget.TENSORRT_RTX,
        precision=EnginePrecision(precision),
        float32_layers=layers,
        compute_capabilities=("89",),
        batch=(1, 1, 4),
        size=SIZE,
    )
    engine = build_engine(with_outputs(content, pooled_head(content, [LOGITS]).shown), options)
    assert engine.record.size_bytes == len(engine.content) > 0


def test_onnx_runtime_gives_up_no_fusion_for_the_map(tmp_path: Path) -> None:
    content = to_bytes(compact(_quantized(exported(), Target.CPU_X86)))
    counted = []
    for model in (content, with_outputs(content, pooled_head(content, [LOGITS]).shown)):
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        options.log_severity_level = 3
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        optimised = onnx.load(tmp_path / "optimised.onnx")
        counted.append(Counter(node.op_type for node in optimised.graph.node))
    plain, shown = counted
    assert shown == plain + Counter({"DequantizeLinear": 1, "Cast": 1})
    assert MAP in {value.name for value in optimised.graph.output}
