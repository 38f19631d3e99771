"""Several heads with adapters: what they start as, what ties them, and that they are cut, kept and exported."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import nn

from edgetl import config
from edgetl.config import Importance
from edgetl.errors import ConfigError, ModelError, WeightsError
from edgetl.export.onnx import to_bytes, to_onnx
from edgetl.inputs.image import PreprocessSpec
from edgetl.models import checkpoint
from edgetl.models.adapters import WIDTH, AdaptedHeads, adapt_, adapted_heads, uncut_layers
from edgetl.models.architecture import build, describe
from edgetl.models.backbones import create
from edgetl.prune.apply import cut
from edgetl.prune.graph import trace
from edgetl.tasks.base import Classification, MultiHead, MultiLabel
from edgetl.train.blocks import blocks
from edgetl.train.objective import Batch, Hard
from edgetl.train.tasks.all import training_task
from edgetl.train.tasks.multihead import MultiHeadTraining
from tests.models.test_checkpoint import rewrite
from tests.prune.nets import budget, limits, make_scorer

NAME, SIZE = "test_efficientnet", 32
SPEC = MultiHead(
    heads={"kind": Classification(labels=("a", "b")), "marks": MultiLabel(labels=("x", "y", "z"))}
)
HEADS = {name: {"column": name} for name in SPEC.heads}


def task_of(**changes: object) -> MultiHeadTraining:
    values = {"kind": "multihead", "heads": HEADS, "sharing": "soft", **changes}
    task = training_task(SPEC, config.parse({"task": values}).task)
    assert isinstance(task, MultiHeadTraining)
    return task


def network(**changes: object) -> nn.Module:
    return task_of(**changes).network(NAME, "none", seed=0, size=SIZE).eval()


def heads_of(model: nn.Module) -> AdaptedHeads:
    found = adapted_heads(model)
    assert found is not None
    return found[1]


def stirred(model: nn.Module) -> nn.Module:
    """Other weights in every head, as after training."""
    with torch.no_grad():
        for at, parameter in enumerate(heads_of(model).parameters()):
            generator = torch.Generator().manual_seed(at)
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def penalty_of(task: MultiHeadTraining, model: nn.Module) -> float:
    found = task.penalty(model)
    assert found is not None
    return found.item()


def test_soft_sharing_starts_as_hard_sharing_and_names_its_heads() -> None:
    soft, hard = network(), network(sharing="hard")
    images = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        assert torch.allclose(soft(images), hard(images), atol=1e-6)
    assert adapted_heads(hard) is None
    assert heads_of(soft).widths == (2, 3)
    assert task_of().output_layers(soft) == ("classifier",) == task_of().new_layers(soft)
    assert {n for n, _ in soft.named_parameters() if n.startswith("classifier.")} <= set(
        blocks(soft, task_of())[-1]
    )


def test_the_penalty_ties_the_adapters_and_leaves_the_heads_free() -> None:
    model, task = network(), task_of(tie=0.5)
    heads = heads_of(model)
    assert penalty_of(task, model) == 0.0
    with torch.no_grad():
        heads.adapters[0].up.bias[0] += 2.0
        heads.heads[0].bias += 7.0
    # each of the two is 1 from their mean, in one weight
    assert penalty_of(task, model) == pytest.approx(0.5 * 1.0)
    assert task_of(tie=0.0).penalty(model) is None
    assert task_of(sharing="hard").penalty(network(sharing="hard")) is None
    stirred(model)
    batch = Batch(images=torch.rand(2, 3, SIZE, SIZE), targets=torch.full((2, 5), torch.nan))
    Hard(hard_loss=task.hard_loss(), penalty=task.penalty).loss(model, batch).backward()
    pulled = {
        name: p.grad is not None and bool(p.grad.abs().sum() > 0) for name, p in heads.named_parameters()
    }
    assert pulled == {name: name.startswith("adapters") for name in pulled}, "no image is labelled"


def test_adapters_are_cut_with_the_trunk_and_stay_of_one_shape(tmp_path: Path) -> None:
    model = stirred(network())
    graph = trace(model, SIZE)
    assert not {layer for group in graph.groups for layer in group.outputs} & set(uncut_layers(model))
    scorer = make_scorer(Importance.MAGNITUDE, model)
    before = heads_of(model).heads[0].in_features
    smaller = cut(model, SIZE, scorer, budget(model, 0.5), limits()).model
    heads = heads_of(smaller)
    assert heads.heads[0].in_features < before
    assert [adapter.down.out_features for adapter in heads.adapters] == [WIDTH, WIDTH]
    assert heads.spread() > 0
    architecture = describe(smaller, NAME, 5)
    assert (architecture.head, architecture.widths) == ("adapters", (2, 3))
    assert describe(build(architecture), NAME, 5) == architecture
    checkpoint.save(smaller, architecture, tmp_path / "pruned.safetensors")
    loaded, kept = checkpoint.load(tmp_path / "pruned.safetensors")
    assert kept == architecture
    images = torch.rand(2, 3, SIZE, SIZE)
    file = to_bytes(to_onnx(loaded, task=SPEC, spec=PreprocessSpec(size=SIZE), opset=18))
    found = onnxruntime.InferenceSession(file).run(["kind", "marks"], {"images": images.numpy()})
    with torch.no_grad():
        expected = smaller.eval()(images)
    assert [part.shape[1] for part in found] == [2, 3]
    assert torch.allclose(torch.cat([torch.from_numpy(part) for part in found], 1), expected, atol=1e-4)


def test_a_doctored_description_of_heads_is_refused(tmp_path: Path) -> None:
    model = network()
    checkpoint.save(model, describe(model, NAME, 5), tmp_path / "a.safetensors")
    text = checkpoint.read_metadata(tmp_path / "a.safetensors")["edgetl.architecture"]
    assert '"widths": [2, 3]' in text
    for wrong in ("[2, 9]", "[5, 0]", '"two"'):
        rewrite(tmp_path / "a.safetensors", metadata={"edgetl.architecture": text.replace("[2, 3]", wrong)})
        with pytest.raises(WeightsError, match=r"architecture in .* cannot be read"):
            checkpoint.load(tmp_path / "a.safetensors")


def test_what_cannot_have_adapters_is_refused() -> None:
    with pytest.raises(ModelError, match=r'does not end in one linear layer.*task.sharing = "hard"'):
        adapt_(create("torchvision/squeezenet1_1", 5, "none"), (2, 3))
    with pytest.raises(ConfigError, match=r'sharing = "soft" is for two heads or more, and there is one'):
        task_of(heads={"kind": {"column": "kind"}})
    with pytest.raises(ConfigError, match=r'tie is for sharing = "soft"'):
        task_of(sharing="hard", tie=0.5)
