"""Episodes: how steps are drawn, the losses, the weights between problems, and few-shot scores."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgetl.config import Episodes, TrainConfig
from edgetl.errors import Interrupted
from edgetl.records.train import EpochRecord
from edgetl.train import episodes
from edgetl.train.episodes import AmongPresent, Episodic, Outer, Prototypical, episode_order, prototype_loss
from edgetl.train.loop import fit
from edgetl.train.objective import Batch
from edgetl.train.trackers import Listener
from tests.train.tiny import TASK, entropy, fitting, network, pixel_set

METHODS = [method for method in Episodes if method is not Episodes.NONE]


@pytest.mark.parametrize("method", METHODS)
def test_each_method_has_steps_and_a_loss(method: Episodes) -> None:
    own = episodes.episodic(method)
    assert own.ways >= 2
    assert 0 < own.toward <= 1
    assert episodes.objective(method, entropy(), "9") is not None


def test_no_method_has_none() -> None:
    with pytest.raises(ValueError, match="No method"):
        episodes.episodic(Episodes.NONE)
    with pytest.raises(ValueError, match="No method"):
        episodes.objective(Episodes.NONE, entropy(), "9")


def test_the_steps_of_a_problem_have_the_same_few_classes() -> None:
    strata = np.repeat(np.arange(8), 10)
    sizes = [12, 12, 12, 12, 5]
    order = episode_order(strata, sizes, Episodic(ways=3, steps=2, toward=0.5), np.random.default_rng(0))
    assert len(order) == sum(sizes)
    steps = [set(strata[rows]) for rows in np.split(order, np.cumsum(sizes)[:-1])]
    assert all(len(step) == 3 for step in steps)
    assert steps[0] == steps[1]
    assert steps[2] == steps[3]
    assert len({frozenset(step) for step in steps}) > 1
    # No image comes twice in a step while others of its class have not come.
    assert len(set(order[:24])) == 24


def test_few_images_of_a_class_come_again() -> None:
    strata = np.array([0, 0, 1, 1, 1])
    order = episode_order(strata, [8], Episodic(ways=5, steps=1, toward=1.0), np.random.default_rng(0))
    assert np.bincount(strata[order]).tolist() == [4, 4]


def test_the_loss_leaves_an_image_out_of_its_own_mean() -> None:
    # Were an image part of its own mean, two of a class would be nearer to it than the others' are.
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    loss = prototype_loss(features, torch.tensor([0, 0, 1, 1]))
    assert loss is not None
    own, other = 0.0, 10 * 2**-0.5  # cosines to the other of its class, and to the other class's mean
    assert loss.item() == pytest.approx(np.log(np.exp(own) + np.exp(other)) - own, rel=1e-5)


def test_the_loss_is_small_where_classes_stand_apart() -> None:
    features = torch.tensor([[1.0, 0.1], [1.0, -0.1], [0.0, 1.0], [0.1, 1.0], [-1.0, -1.0]])
    targets = torch.tensor([4, 4, 7, 7, 9])
    loss, mixed = prototype_loss(features, targets), prototype_loss(features, torch.tensor([4, 7, 7, 4, 9]))
    assert loss is not None
    assert mixed is not None
    assert loss.item() < 0.01 < mixed.item()
    assert prototype_loss(features, torch.arange(5)) is None
    assert prototype_loss(features, torch.tensor([0, 0, 1, 2, 3])) is None


def test_unlabelled_images_take_no_part() -> None:
    model, images, targets = network().eval(), torch.randn(8, 3, 16, 16), torch.arange(8) % 3
    loss = Prototypical(labels=entropy(), layer="9")
    labelled = torch.arange(8) < 6
    alone = loss.loss(model, Batch(images=images[:6], targets=targets[:6]))
    with_others = loss.loss(model, Batch(images=images, targets=targets, labelled=labelled))
    torch.testing.assert_close(alone, with_others)


def test_only_classes_of_the_step_compete() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 4))
    with torch.no_grad():
        model[1].bias.copy_(torch.tensor([0.0, 0.0, 50.0, 50.0]))
        model[1].weight.zero_()
    batch = Batch(images=torch.zeros(4, 3, 1, 1), targets=torch.tensor([0, 1, 1, 0]))
    assert AmongPresent().loss(model, batch).item() == pytest.approx(np.log(2))


def test_weights_go_part_of_the_way_after_each_problem() -> None:
    weight = nn.Parameter(torch.zeros(2))
    outer = Outer([weight], Episodic(ways=2, steps=2, toward=0.5))
    seen = []
    for number in range(5):
        with torch.no_grad():
            weight += 1
        outer.stepped(number, last=number == 4)
        seen.append(weight[0].item())
    assert seen == [1.0, 1.0, 2.0, 2.0, 2.5]


@pytest.mark.parametrize("method", METHODS)
def test_a_phase_that_was_stopped_goes_on_exactly(method: Episodes, tmp_path: Path) -> None:
    own = dataclasses.replace(fitting(epochs=2, select=None), episodic=episodes.episodic(method))

    def trained(state: Path, listen: Listener | None = None) -> dict[str, torch.Tensor]:
        model = network()
        fit(
            model,
            own,
            task=TASK,
            train=pixel_set(24),
            val=pixel_set(9, side=16),
            objective=episodes.objective(method, entropy(), "9"),
            state=state,
            listen=listen,
        )
        return model.state_dict()

    def stop(record: EpochRecord) -> None:
        raise KeyboardInterrupt

    through = trained(tmp_path / "through")
    with pytest.raises(Interrupted):
        trained(tmp_path / "stopped", stop)
    torch.testing.assert_close(trained(tmp_path / "stopped"), through, rtol=0, atol=0)


def test_few_shot_tells_what_stands_apart() -> None:
    generator = np.random.default_rng(0)
    classes = np.repeat(np.arange(4), 12)
    apart = np.eye(8, dtype=np.float32)[classes] * 3 + generator.normal(0, 0.1, (48, 8)).astype(np.float32)
    noise = generator.normal(0, 1, (48, 8)).astype(np.float32)

    def share(features: np.ndarray) -> float:
        told = episodes.few_shot(
            features,
            classes,
            features.mean(axis=0),
            shots=1,
            episodes=50,
            generator=np.random.default_rng(1),
        )
        return float(np.mean(list(told.values())))

    assert share(apart) > 0.99
    assert 0.15 < share(noise) < 0.4


def test_a_head_alone_has_no_features_to_teach() -> None:
    with pytest.raises(ValueError, match='with strategy = "head" no feature learns'):
        TrainConfig.model_validate({"episodes": "reptile", "strategy": "head"})
