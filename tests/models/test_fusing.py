from __future__ import annotations

import copy

import onnx
import pytest
import torch
from torch import nn

from edgetl.config import Importance
from edgetl.export.onnx import to_onnx
from edgetl.inputs.image import PreprocessSpec
from edgetl.models.backbones import create
from edgetl.models.fusing import fused, merged
from edgetl.progress import SilentProgress
from edgetl.prune.apply import cut
from edgetl.quantize.score import open_session
from edgetl.tasks.base import Classification
from tests.prune.nets import budget, limits, make_scorer

SIZE = 64


def _settled(name: str) -> nn.Module:
    """A network whose batch norms have seen something, so that merging them shows."""
    network = create(name, 3, "none", seed=0).eval()
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.copy_(0.1 * torch.randn(module.running_mean.shape, generator=generator))
            assert module.running_var is not None
            module.running_var.copy_(0.5 + torch.rand(module.running_var.shape, generator=generator))
    return network


def _layers(network: nn.Module) -> int:
    return sum(isinstance(module, nn.Conv2d | nn.BatchNorm2d) for module in network.modules())


def _convolutions(network: nn.Module) -> int:
    return sum(isinstance(module, nn.Conv2d) for module in network.modules())


@pytest.mark.parametrize(
    "name", ["repvgg_a0", "mobileone_s0", "fastvit_t8", "repghostnet_050", "repvit_m0_9"]
)
def test_networks_made_to_be_fused_have_one_branch_and_the_same_logits(name: str) -> None:
    network = _settled(name)
    before = copy.deepcopy(network.state_dict())
    whole = fused(network, SIZE)
    images = torch.randn(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted, found = network(images), whole(images)
    assert _layers(whole) < _layers(network)
    assert float((found - wanted).abs().max()) <= 1e-4 * max(1.0, float(wanted.abs().max()))
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_a_network_that_was_cut_is_fused_too() -> None:
    """Its blocks still name the channels that they had."""
    network = _settled("mobileone_s0")
    smaller = cut(
        network, SIZE, make_scorer(Importance.MAGNITUDE, network), budget(network, macs=0.6), limits()
    ).model.eval()
    whole = fused(smaller, SIZE)
    images = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted, found = smaller(images), whole(images)
    assert _layers(whole) < _layers(smaller)
    assert float((found - wanted).abs().max()) <= 1e-4 * max(1.0, float(wanted.abs().max()))


@pytest.mark.parametrize("name", ["efficientnet_lite0", "mobilenetv3_small_050"])
def test_others_come_back_as_they_are(name: str) -> None:
    network = create(name, 3, "none", seed=0).eval()
    assert fused(network, SIZE) is network


def test_a_network_that_would_answer_otherwise_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm.models

    def wrong(network: nn.Module, inplace: bool) -> nn.Module:
        return nn.Sequential(network, nn.Softmax(dim=1))

    network = _settled("mobileone_s0")
    monkeypatch.setattr(timm.models, "reparameterize_model", wrong)
    assert fused(network, SIZE) is network
    assert "its outputs would differ by" in merged(network, SIZE)[1]

    def broken(_: nn.Module, inplace: bool) -> nn.Module:
        raise AttributeError("no such branch")

    monkeypatch.setattr(timm.models, "reparameterize_model", broken)
    assert fused(network, SIZE) is network
    assert "(AttributeError: no such branch)" in merged(network, SIZE)[1]


def test_what_is_exported_is_fused() -> None:
    network = _settled("mobileone_s0")
    spec = PreprocessSpec(size=SIZE)
    model = to_onnx(network, task=Classification(labels=("a", "b", "c")), spec=spec, opset=17)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("Conv") == _convolutions(fused(network, SIZE))
    assert "Add" not in kinds
    assert "BatchNormalization" not in kinds
    images = torch.randn(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    session = open_session(onnx.load_from_string(model.SerializeToString()), threads=1)
    [logits] = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        wanted = network(images)
    assert float((torch.from_numpy(logits) - wanted).abs().max()) <= 1e-4 * max(
        1.0, float(wanted.abs().max())
    )


def test_at_export_branches_are_merged_once_and_what_stands_in_the_way_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import timm.models

    calls, told = list[nn.Module](), list[str]()

    class Listening(SilentProgress):
        def warning(self, text: str) -> None:
            told.append(text)

    def broken(network: nn.Module, inplace: bool) -> nn.Module:
        calls.append(network)
        raise AttributeError("no such branch")

    monkeypatch.setattr(timm.models, "reparameterize_model", broken)
    network, spec = _settled("mobileone_s0"), PreprocessSpec(size=SIZE)
    task = Classification(labels=("a", "b", "c"))
    to_onnx(network, task=task, spec=spec, opset=17, progress=Listening())
    assert len(calls) == 1
    [sentence] = told
    assert sentence.startswith("The network's branches could not be merged")
