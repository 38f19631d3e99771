from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgetl.config import (
    Augment,
    DistillLoss,
    HeadConfig,
    MultiHeadConfig,
    TrainConfig,
    TrainPrecision,
    Weighting,
)
from edgetl.data.index import Sample
from edgetl.errors import ConfigError
from edgetl.inputs.image import PreprocessSpec
from edgetl.records.scores import value
from edgetl.tasks.base import Classification, MultiHead, MultiLabel
from edgetl.train.evaluate import score
from edgetl.train.loop import Fitting, fit
from edgetl.train.objective import Hard
from edgetl.train.sets import PixelSet
from edgetl.train.tasks import soft
from edgetl.train.tasks.all import training_task
from edgetl.train.tasks.multihead import HeadsLoss, MultiHeadTraining

SPEC = MultiHead(
    heads={
        "colour": Classification(labels=("red", "green", "blue")),
        "place": Classification(labels=("left", "right")),
    }
)
TASK = training_task(SPEC)
assert isinstance(TASK, MultiHeadTraining)
NAN = float("nan")
TARGETS = np.array(
    [[1, 0, 0, 1, 0], [0, 0, 1, NAN, NAN], [NAN, NAN, NAN, 0, 1], [1, 0, 0, 0, 1]], dtype=np.float32
)
OUTPUTS = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
TRAIN = TrainConfig(backbone="efficientnet_lite0")


def pictures(n: int, *, missing: bool) -> PixelSet:
    """A bright half, left or right, in one of three colours; every third image lacks one of its two labels."""
    rng = np.random.default_rng(n)
    colours, places = rng.integers(0, 3, n), rng.integers(0, 2, n)
    pixels = rng.integers(0, 60, (n, 16, 16, 3))
    for at in range(n):
        half = slice(8, 16) if places[at] else slice(0, 8)
        pixels[at, :, half, colours[at]] += 160
    targets = np.concatenate([np.eye(3)[colours], np.eye(2)[places]], axis=1).astype(np.float32)
    if missing:
        targets[0::3, :3] = NAN
        targets[1::3, 3:] = NAN
    return PixelSet(pixels.astype(np.uint8), targets, PreprocessSpec(size=16))


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(48, 5))


def test_a_network_learns_every_head_from_labels_that_are_partly_missing() -> None:
    train, val = pictures(96, missing=True), pictures(48, missing=False)
    objective = Hard(hard_loss=TASK.hard_loss(TRAIN, train.targets))
    how = Fitting(
        phase="full",
        epochs=4,
        batch_size=16,
        lr=1e-2,
        weight_decay=0.0,
        augment=Augment.NONE,
        precision=TrainPrecision.FP32,
        seed=1,
        select=TASK.selection(train.targets),
        class_balance=True,
        accumulate=2,
    )
    model = network()
    history = fit(model, how, task=TASK, train=train, val=val, objective=objective, state=None)
    found = score(TASK, model, val)
    assert list(found.scores)[:3] == ["mean", "colour/top1", "place/top1"]
    assert value(found, "colour/top1") > 0.9
    assert value(found, "place/top1") > 0.9
    assert value(found, "mean") == pytest.approx(
        (value(found, "colour/top1") + value(found, "place/top1")) / 2
    )
    assert history[-1].val_loss < history[0].val_loss
    loss = objective.modules
    assert isinstance(loss, HeadsLoss)
    assert loss.log_variances is not None
    assert loss.log_variances.all(), "the heads' weights learn with the network"


def test_a_head_learns_from_the_images_that_are_labelled_for_it_alone() -> None:
    outputs = OUTPUTS.clone().requires_grad_()
    loss = TASK.hard_loss()(outputs, torch.from_numpy(TARGETS))
    colour = F.cross_entropy(outputs[[0, 1, 3], :3], torch.tensor([0, 2, 0]), reduction="sum")
    place = F.cross_entropy(outputs[[0, 2, 3], 3:], torch.tensor([0, 1, 1]), reduction="sum")
    torch.testing.assert_close(loss, (colour + place) / 4)
    loss.backward()  # type: ignore[no-untyped-call]
    assert outputs.grad is not None
    assert not outputs.grad[2, :3].any()
    assert not outputs.grad[1, 3:].any()
    assert outputs.grad[0].all()


def test_the_loss_of_a_batch_is_the_mean_of_its_parts() -> None:
    loss, targets = TASK.hard_loss(TRAIN, TARGETS), torch.from_numpy(TARGETS)
    assert isinstance(loss, HeadsLoss)
    assert loss.log_variances is not None
    loss.log_variances.data = torch.tensor([0.7, -0.3])
    parts = [loss(OUTPUTS[i : i + 2], targets[i : i + 2]) for i in (0, 2)]
    torch.testing.assert_close(loss(OUTPUTS, targets), torch.stack(parts).mean())


def test_learnt_weights_are_the_papers() -> None:
    loss, targets = TASK.hard_loss(TRAIN, TARGETS), torch.from_numpy(TARGETS)
    assert isinstance(loss, HeadsLoss)
    assert loss.log_variances is not None
    s = torch.tensor([0.7, -0.3])
    loss.log_variances.data = s.clone()
    smooth = TRAIN.label_smoothing
    colour = F.cross_entropy(OUTPUTS[[0, 1, 3], :3], torch.tensor([0, 2, 0]), label_smoothing=smooth)
    place = F.cross_entropy(OUTPUTS[[0, 2, 3], 3:], torch.tensor([0, 1, 1]), label_smoothing=smooth)
    expected = torch.exp(-s[0]) * colour + s[0] / 2 + torch.exp(-s[1]) * place + s[1] / 2
    torch.testing.assert_close(loss(OUTPUTS, targets).detach(), expected)
    asked = MultiHeadConfig(
        heads={name: HeadConfig(column=name) for name in SPEC.heads}, weighting=Weighting.EQUAL
    )
    equal = training_task(SPEC, asked).hard_loss(TRAIN, TARGETS)
    torch.testing.assert_close(equal(OUTPUTS, targets), colour + place)
    assert not list(equal.parameters())  # type: ignore[attr-defined]


def test_a_batch_without_labels_of_a_head_still_has_a_gradient() -> None:
    outputs = OUTPUTS.clone().requires_grad_()
    loss = TASK.hard_loss(TRAIN, TARGETS)(outputs[:1], torch.full((1, 5), NAN))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0.0
    assert outputs.grad is not None
    assert not outputs.grad.any()


def test_a_blend_is_labelled_for_what_both_images_are() -> None:
    shares = TASK.shares(torch.from_numpy(TARGETS))
    mixed = torch.lerp(shares[[0]], shares[[1]], 0.25)
    assert mixed[0, :3].tolist() == [0.75, 0.0, 0.25]
    loss = TASK.hard_loss()(OUTPUTS[:1], mixed)
    torch.testing.assert_close(loss, F.cross_entropy(OUTPUTS[:1, :3], mixed[:, :3]))


def test_targets_are_side_by_side_and_nan_where_there_is_no_label() -> None:
    labels = [(0, 0), (2, None), (None, 1), (0, 1)]
    samples = [Sample(Path(f"{at}.png"), label, "train", str(at)) for at, label in enumerate(labels)]
    np.testing.assert_array_equal(TASK.targets(samples, PreprocessSpec(size=32)), TARGETS)


def test_images_are_grouped_by_the_first_head_that_they_are_labelled_for() -> None:
    assert TASK.strata(TARGETS).tolist() == [0, 2, 4, 0]
    assert TASK.strata(np.full((1, 5), NAN, np.float32)).tolist() == [-1]


@pytest.mark.parametrize("kind", [DistillLoss.HINTON, DistillLoss.DIST])
def test_a_student_follows_each_head(kind: DistillLoss) -> None:
    teacher, targets = OUTPUTS.flip(0), torch.from_numpy(TARGETS)
    found = TASK.soft_loss(kind, OUTPUTS, teacher, targets, 3.0)
    parts = [
        soft.soft_loss(kind, OUTPUTS[:, own], teacher[:, own], targets, 3.0)
        for own in (slice(0, 3), slice(3, 5))
    ]
    torch.testing.assert_close(found, parts[0] + parts[1])
    assert TASK.soft_loss(kind, OUTPUTS, OUTPUTS, targets, 3.0).item() == pytest.approx(0.0, abs=1e-5)


def test_a_loss_that_asks_for_one_class_an_image_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"dkd.*several heads.*hinton"):
        TASK.soft_loss(DistillLoss.DKD, OUTPUTS, OUTPUTS, torch.from_numpy(TARGETS), 3.0)


def test_blended_teachers_are_blended_head_by_head() -> None:
    blend = TASK.blend([OUTPUTS, OUTPUTS.flip(0)], 2.0)
    for own in (slice(0, 3), slice(3, 5)):
        mean = (F.softmax(OUTPUTS[:, own] / 2, 1) + F.softmax(OUTPUTS.flip(0)[:, own] / 2, 1)) / 2
        torch.testing.assert_close(F.softmax(blend[:, own] / 2, 1), mean)


def test_the_drawn_loss_has_the_curvature_of_every_head() -> None:
    def draw(outputs: torch.Tensor) -> torch.Tensor:
        return TASK.drawn_loss(outputs, OUTPUTS, 1.0, torch.Generator().manual_seed(3))

    outputs = OUTPUTS.clone().requires_grad_()
    draw(outputs).backward()  # type: ignore[no-untyped-call]
    assert outputs.grad is not None
    for own in (slice(0, 3), slice(3, 5)):
        assert outputs.grad[:, own].sum(1).abs().max() < 1e-6, "a softmax's gradients sum to 0 in each head"
        assert outputs.grad[:, own].abs().min() > 0


def test_a_head_without_labels_in_a_split_is_left_out_of_the_mean() -> None:
    targets = TARGETS.copy()
    targets[:, 3:] = NAN
    found = TASK.evaluate(targets, OUTPUTS.numpy(), resamples=0)
    assert value(found, "mean") == value(found, "colour/top1")
    assert np.isfinite(TASK.val_loss(targets, OUTPUTS.numpy()))


def test_a_head_of_any_number_of_classes_has_its_own_losses_and_scores() -> None:
    spec = MultiHead(heads={"kind": SPEC.heads["place"], "marks": MultiLabel(labels=("dot", "line", "rim"))})
    task, own = training_task(spec), slice(2, 5)
    targets = np.array([[1, 0, 1, 1, 0], [0, 1, NAN, NAN, NAN], [NAN, NAN, 0, 0, 1]], dtype=np.float32)
    outputs = OUTPUTS[:3]
    kind = F.cross_entropy(outputs[:2, :2], torch.tensor([0, 1]), reduction="sum")
    known = torch.from_numpy(targets[[0, 2], own])
    marks = F.binary_cross_entropy_with_logits(outputs[[0, 2], own], known, reduction="sum")
    torch.testing.assert_close(task.hard_loss()(outputs, torch.from_numpy(targets)), (kind + marks) / 3)
    found = task.evaluate(targets, outputs.numpy(), resamples=0)
    assert value(found, "mean") == pytest.approx((value(found, "kind/top1") + value(found, "marks/map")) / 2)
    assert task.strata(targets).tolist() == [0, 1, 4]
    blend = task.blend([outputs, outputs.flip(0)], 2.0)[:, own]
    mean = (torch.sigmoid(outputs[:, own] / 2) + torch.sigmoid(outputs.flip(0)[:, own] / 2)) / 2
    torch.testing.assert_close(torch.sigmoid(blend / 2), mean)
