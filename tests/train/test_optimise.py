from __future__ import annotations

import pytest
import torch
from torch import nn

from edgetl.config import Optimizer, TrainConfig, parse
from edgetl.errors import ConfigError
from edgetl.models import backbones
from edgetl.train.optimise import MovingAverage, copy_state, optimiser_of, schedule

from .tiny import network


def test_warm_up_then_cosine() -> None:
    shares = [schedule(step, 20, 0.1) for step in range(20)]
    assert shares[:3] == [0.5, 1.0, 1.0]
    assert shares[11] == pytest.approx(0.5)
    assert shares[-1] == pytest.approx(0.0076, abs=1e-4)
    assert sorted(shares[1:], reverse=True) == shares[1:]


def test_a_single_step_has_the_full_rate() -> None:
    assert schedule(0, 1, 0.1) == 1.0


def test_norms_and_biases_are_not_decayed() -> None:
    model = network()
    decayed, kept = optimiser_of(
        Optimizer.ADAMW, list(model.parameters()), lr=0.1, weight_decay=0.02
    ).param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.02, 0.0)
    assert {p.ndim for p in decayed["params"]} == {2, 4}
    assert {p.ndim for p in kept["params"]} == {1}


def test_the_average_is_the_weighted_sum() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    average = MovingAverage(model, 0.5)
    nn.init.constant_(model.weight, 3.0)
    average.update(model, 0)  # the decay starts at 1/10
    assert average.model.weight.item() == pytest.approx(0.1 * 1.0 + 0.9 * 3.0)
    average.update(model, 1000)
    assert average.model.weight.item() == pytest.approx(0.5 * 2.8 + 0.5 * 3.0)
    assert not average.model.weight.requires_grad


def test_the_average_follows_counters_and_statistics() -> None:
    model = network().train()
    average = MovingAverage(model, 0.9)
    model(torch.rand(4, 3, 16, 16))
    average.update(model, 0)
    state = average.model.state_dict()
    assert state["1.num_batches_tracked"] == 1
    assert torch.allclose(state["1.running_mean"], 0.9 * model.state_dict()["1.running_mean"])


def test_a_copied_state_keeps_the_versions_of_its_layers() -> None:
    network = backbones.create("torchvision/mnasnet0_5", 5, "none")
    state = copy_state(network)
    network.load_state_dict(state)
    first = next(iter(state))
    with torch.no_grad():
        network.state_dict()[first].add_(1.0)
    assert not torch.equal(network.state_dict()[first], state[first])


@pytest.mark.parametrize("kind", list(Optimizer))
def test_every_optimiser_decays_apart_from_the_gradient_and_goes_on_where_it_stopped(kind: Optimizer) -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(3, 2) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    first, second = (optimiser_of(kind, list(n.parameters()), lr=0.1, weight_decay=0.5) for n in layers)
    before = layers[0].weight.detach().clone()
    for layer, one in zip(layers, (first, second), strict=True):
        for parameter in layer.parameters():
            parameter.grad = torch.zeros_like(parameter)
        one.step()
    # without a gradient all that is left is the decay, which spares the bias
    assert torch.allclose(layers[0].weight, before * (1 - 0.1 * 0.5))
    layers[0](torch.ones(4, 3)).square().sum().backward()
    layers[1](torch.ones(4, 3)).square().sum().backward()
    again = optimiser_of(kind, list(layers[1].parameters()), lr=0.1, weight_decay=0.5)
    again.load_state_dict(second.state_dict())
    for _ in range(2):
        first.step()
        again.step()
    assert torch.equal(layers[0].weight, layers[1].weight)
    assert not torch.allclose(layers[0].bias, torch.zeros(2))


@pytest.mark.parametrize("kind", list(Optimizer))
def test_rates_follow_the_optimiser_unless_they_are_named(kind: Optimizer) -> None:
    config = TrainConfig.model_validate({"optimizer": kind.value})
    assert (config.head_lr, config.lr) == kind.rates
    assert TrainConfig.model_validate({"optimizer": kind.value, "lr": 0.5}).lr == 0.5


@pytest.mark.parametrize("value", [["sgd"], "lion", 3])
def test_an_optimiser_that_there_is_not_is_one_clear_error(value: object) -> None:
    with pytest.raises(ConfigError, match=r"train\.optimizer"):
        parse({"train": {"optimizer": value}})
