from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

import edgetl
from edgetl.config import Target
from edgetl.errors import ModelError
from edgetl.export.onnx import LABELS_KEY, PREPROCESS_KEY, to_bytes, to_onnx
from edgetl.export.opsets import opset_for
from edgetl.inputs.image import PreprocessSpec
from edgetl.models.backbones import create
from edgetl.records.codec import from_json
from edgetl.tasks.all import task_of
from edgetl.tasks.base import Classification
from tests.export.networks import LABELS, SIZE, SPEC, tiny


@pytest.fixture(scope="module")
def exported() -> onnx.ModelProto:
    return to_onnx(tiny(), task=Classification(labels=LABELS), spec=SPEC, opset=18)


def _run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(to_bytes(model), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"images": images})[0]


def test_names_shapes_and_opset(exported: onnx.ModelProto) -> None:
    (source,), (result,) = exported.graph.input, exported.graph.output
    assert source.name == "images"
    assert [d.dim_param or d.dim_value for d in source.type.tensor_type.shape.dim] == ["batch", 3, SIZE, SIZE]
    assert result.name == "logits"
    assert [d.dim_param or d.dim_value for d in result.type.tensor_type.shape.dim] == ["batch", 3]
    assert [(o.domain, o.version) for o in exported.opset_import] == [("", 18)]


def test_metadata_comes_back(exported: onnx.ModelProto) -> None:
    metadata = {p.key: p.value for p in exported.metadata_props}
    assert json.loads(metadata[LABELS_KEY]) == list(LABELS)
    assert from_json(PreprocessSpec, json.loads(metadata[PREPROCESS_KEY])) == SPEC
    assert (exported.producer_name, exported.producer_version) == ("edgetl", edgetl.__version__)


def test_batch_norms_are_folded_and_means_are_poolings(exported: onnx.ModelProto) -> None:
    operators = [node.op_type for node in exported.graph.node]
    assert "BatchNormalization" not in operators
    assert "ReduceMean" not in operators
    assert operators.count("GlobalAveragePool") == 2
    assert {"Clip", "HardSwish", "HardSigmoid", "MaxPool", "Gemm"} <= set(operators)


@pytest.mark.parametrize("batch", [1, 5])
def test_any_batch_agrees_with_torch(exported: onnx.ModelProto, batch: int) -> None:
    images = np.random.default_rng(batch).normal(size=(batch, 3, SIZE, SIZE)).astype(np.float32)
    with torch.inference_mode():
        expected = tiny()(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(_run(exported, images), expected, atol=1e-4)


def test_the_same_network_gives_the_same_bytes(exported: onnx.ModelProto) -> None:
    again = to_onnx(tiny(), task=Classification(labels=LABELS), spec=SPEC, opset=18)
    assert to_bytes(again) == to_bytes(exported)


def test_nothing_of_the_machine_is_left(exported: onnx.ModelProto) -> None:
    content = to_bytes(exported)
    places = [Path(onnx.__file__).parent.parent, Path(__file__).parent, Path.home()]
    for place in places:
        assert str(place).encode() not in content
    assert b".py" not in content
    assert not any(item.doc_string for item in (exported, exported.graph, *exported.graph.node))
    assert not any(node.metadata_props for node in exported.graph.node)


def test_the_network_is_not_changed() -> None:
    model = tiny().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    to_onnx(model, task=Classification(labels=LABELS), spec=SPEC, opset=18)
    assert model.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


class _Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.conv(images).relu().mean((-2, -1))


def test_newer_opsets_go_through_torch_export() -> None:
    model = _Pooled().eval()
    exported = to_onnx(model, task=Classification(labels=LABELS), spec=SPEC, opset=21)
    images = np.random.default_rng(0).normal(size=(3, 3, SIZE, SIZE)).astype(np.float32)
    with torch.inference_mode():
        expected = model(torch.from_numpy(images)).numpy()
    assert exported.opset_import[0].version == 21
    assert [node.op_type for node in exported.graph.node] == ["Conv", "Relu", "GlobalAveragePool", "Flatten"]
    assert b".py" not in to_bytes(exported)
    np.testing.assert_allclose(_run(exported, images), expected, atol=1e-3)


def test_labels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ModelError, match=r"Tiny gives \(2, 3\) for two images, expected logits \(2, 4\)"):
        to_onnx(tiny(), task=Classification(labels=("a", "b", "c", "d")), spec=SPEC, opset=18)


def test_a_network_for_another_input_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3))
    with pytest.raises(ModelError, match=r"Sequential does not take images of shape \(2, 3, 32, 32\)"):
        to_onnx(model, task=Classification(labels=LABELS), spec=SPEC, opset=18)


class _Odd(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.linalg.matrix_exp(images[:, 0, :3, :3]).mean(1)


def test_what_onnx_does_not_have_is_named_and_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelError, match=r"_Odd cannot be exported to ONNX: .*(?s:.*)another backbone"):
        to_onnx(_Odd(), task=Classification(labels=LABELS), spec=SPEC, opset=18)
    assert capfd.readouterr().out == ""


class _Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(nn.Conv2d(3, 3, 1), _Odd())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.blocks(images)


def test_the_layer_that_calls_what_onnx_does_not_have_is_named() -> None:
    with pytest.raises(ModelError) as caught:
        to_onnx(_Deep(), task=Classification(labels=LABELS), spec=SPEC, opset=18)
    stated = str(caught.value)
    assert stated.startswith(
        "_Deep cannot be exported to ONNX: the operator aten::linalg_matrix_exp in layer"
    )
    assert "layer blocks.1 (_Odd) has no ONNX form" in stated


def test_the_opset_is_the_target_s() -> None:
    assert opset_for((Target.TENSORRT, Target.TENSORRT_RTX)) == 20
    assert opset_for((Target.CPU_X86, Target.TENSORRT)) == 18
    assert opset_for((Target.CPU_ARM,)) == 18
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    operators = {
        opset: [
            n.op_type
            for n in to_onnx(model, task=Classification(labels=LABELS), spec=SPEC, opset=opset).graph.node
        ]
        for opset in (18, 20)
    }
    assert operators[20] == ["Conv", "Gelu", "GlobalAveragePool", "Flatten"]
    assert operators[18].count("Erf") == 1


@pytest.mark.parametrize("dynamic_size", [False, True])
def test_same_padding_where_a_stride_does_not_divide_the_side(dynamic_size: bool) -> None:
    model = create("efficientnet_lite0", len(LABELS), "none").eval()
    side = 36  # then 18, 9, and 5: the third halving rounds up
    exported = to_onnx(
        model,
        task=Classification(labels=LABELS),
        spec=PreprocessSpec(size=side),
        opset=18,
        dynamic_size=dynamic_size,
    )
    images = np.random.default_rng(0).normal(size=(2, 3, side, side)).astype(np.float32)
    with torch.inference_mode():
        expected = model(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(_run(exported, images), expected, atol=1e-3)


def test_an_open_image_size() -> None:
    exported = to_onnx(tiny(), task=Classification(labels=LABELS), spec=SPEC, opset=18, dynamic_size=True)
    dims = exported.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["batch", 3, "height", "width"]
    images = np.random.default_rng(1).normal(size=(2, 3, 48, 80)).astype(np.float32)
    with torch.inference_mode():
        expected = tiny()(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(_run(exported, images), expected, atol=1e-4)


def test_a_network_whose_code_needs_its_size_says_so() -> None:
    model = nn.Sequential(nn.Conv2d(3, 1, 8, 8), nn.Flatten(), nn.Linear(16, 3)).eval()
    with pytest.raises(ModelError, match=r"open image size: at 64 px instead of 32, .*dynamic_size = false"):
        to_onnx(model, task=Classification(labels=LABELS), spec=SPEC, opset=18, dynamic_size=True)


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "resnetv2_18", "torchvision/googlenet"])
def test_no_foldable_batch_norm_and_nothing_unread_is_left(name: str) -> None:
    model = create(name, 3, "none").eval()
    graph = to_onnx(model, task=Classification(labels=LABELS), spec=PreprocessSpec(size=64), opset=18).graph
    readers = Counter(i for node in graph.node for i in node.input)
    makers = {o: node for node in graph.node for o in node.output}
    foldable = [
        n.name
        for n in graph.node
        if n.op_type == "BatchNormalization"
        and (maker := makers.get(n.input[0])) is not None
        and maker.op_type in ("Conv", "Gemm")
        and readers[n.input[0]] == 1
    ]
    assert foldable == []
    assert [t.name for t in graph.initializer if not readers[t.name]] == []
    results = {value.name for value in graph.output}
    unread = [n.name for n in graph.node if not any(readers[o] or o in results for o in n.output)]
    assert unread == []


class _Uneven(nn.Module):
    """What the tracing exporter does not know and the newer one does: pooling that does not divide its input."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(images, 7).flatten(1)[:, :3]


def test_the_newer_exporter_helps_out_and_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    exported = to_onnx(_Uneven(), task=Classification(labels=LABELS), spec=SPEC, opset=18)
    assert capfd.readouterr() == ("", "")
    images = np.random.default_rng(0).normal(size=(3, 3, SIZE, SIZE)).astype(np.float32)
    expected = _Uneven()(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(_run(exported, images), expected, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenetv2_050", "mobilenetv3_small_050", "regnety_002", "efficientnet_lite0"]
)
def test_backbones_agree_with_torch(name: str) -> None:
    from edgetl.export import parity

    model = create(name, 3, "none").eval()
    spec = PreprocessSpec(size=64)
    content = to_bytes(to_onnx(model, task=Classification(labels=LABELS), spec=spec, opset=18))
    batches = [np.random.default_rng(n).normal(size=(n, 3, 64, 64)).astype(np.float32) for n in (1, 4)]
    found = parity.check(
        model, content, batches, task=task_of(Classification(labels=LABELS)), max_difference=1e-3
    )
    assert (found.images, found.same) == (5, 1.0)
