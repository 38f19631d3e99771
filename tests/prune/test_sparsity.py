from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from edgetl.models import backbones
from edgetl.prune.graph import trace
from edgetl.prune.sparsity import GroupLasso, coupled, near_zero, penalty
from edgetl.train.objective import Batch
from tests.prune.nets import SIZE, Chain, batches, seeded
from tests.train.tiny import entropy


def test_the_penalty_is_the_group_lasso_with_depgraphs_factors() -> None:
    model = seeded(Chain)
    groups = coupled(trace(copy.deepcopy(model), SIZE))
    w = {name: p.detach().double().numpy() for name, p in model.named_parameters()}
    parts = {
        16: [
            w["stem.0.weight"].reshape(16, -1),
            w["project.0.weight"].reshape(16, -1),
            w["stem.1.weight"][:, None],
            w["project.1.weight"][:, None],
            w["expand.0.weight"].reshape(32, 16).T,
            w["classifier.weight"].T,
        ],
        32: [
            w["expand.0.weight"].reshape(32, -1),
            w["depthwise.0.weight"].reshape(32, -1),
            w["expand.1.weight"][:, None],
            w["depthwise.1.weight"][:, None],
            w["project.0.weight"].reshape(16, 32).T,
        ],
    }
    expected = 0.0
    for channels in parts.values():
        together = np.concatenate(channels, axis=1)
        norms = np.sqrt((together**2).sum(1))
        gamma = 2 ** (4 * (norms.max() - norms) / (norms.max() - norms.min()))
        assert (gamma.min(), gamma.max()) == (1.0, 16.0)
        expected += np.sqrt(together.shape[1]) * (gamma * norms).sum()
    assert float(penalty(model, groups).detach()) == pytest.approx(expected, rel=1e-5)


def test_the_least_important_channel_is_pulled_hardest() -> None:
    model = seeded(Chain)
    groups = coupled(trace(copy.deepcopy(model), SIZE))
    with torch.no_grad():
        for block in (model.expand, model.depthwise):
            block[0].weight[4] *= 0.2  # type: ignore[index, operator]
            block[1].weight[4] *= 0.2  # type: ignore[index, operator]
        model.project[0].weight[:, 4] *= 0.2  # type: ignore[index, operator]
    model.requires_grad_(True)
    inner = next(g for g in groups if g.channels == 32)
    penalty(model, (inner,)).backward()
    pulls = model.depthwise[0].weight.grad.flatten(1) / model.depthwise[0].weight.flatten(1)  # type: ignore[index]
    assert int(pulls.mean(1).argmax()) == 4
    assert (pulls > 0).all()


def test_training_with_the_penalty_brings_channels_near_zero_and_training_without_does_not() -> None:
    images = torch.cat(batches(16, 1))
    labels = (images.mean((1, 2, 3)) > 0).long()

    batch, plain = Batch(images=images, targets=labels), entropy()

    shares = []
    for strength in (0.0, 1e-3):
        model = seeded(Chain).train()
        groups = coupled(trace(copy.deepcopy(model), SIZE))
        objective = GroupLasso(objective=plain, groups=groups, strength=strength)
        optimiser = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.0)
        before = near_zero(model, groups)
        for _ in range(60):
            optimiser.zero_grad()
            objective.loss(model, batch).backward()
            optimiser.step()
        assert before == 0.0
        shares.append(near_zero(model, groups))
        assert float(plain.loss(model, batch).detach()) < 0.3
    assert shares[0] == 0.0
    assert shares[1] > 0.3


def test_a_channel_that_is_zero_keeps_the_gradient_finite() -> None:
    model = seeded(Chain)
    groups = coupled(trace(copy.deepcopy(model), SIZE))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    model.requires_grad_(True)
    penalty(model, groups).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert near_zero(model, groups) == 0.0


def test_grouped_convolutions_and_squeeze_layers_are_coupled_too() -> None:
    model = seeded(backbones.create, "torchvision/regnet_y_400mf", 5, "none")
    graph = trace(model, SIZE)
    groups = coupled(graph)
    assert [g.channels for g in groups] == [g.channels for g in graph.groups]
    named = dict(model.named_parameters())
    covered = {part.parameter for group in groups for part in group.slices}
    assert {n for n, p in named.items() if p.dim() == 4} <= covered
    assert torch.isfinite(penalty(model, groups))
