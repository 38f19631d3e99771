from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from edgetl.config import LOSSES_OF_BOXES, Augment, DistillLoss, Mix, TrainConfig
from edgetl.data.boxes.entries import Marked, Object
from edgetl.data.index import Sample
from edgetl.errors import ConfigError, Interrupted, ModelError, TrainingError
from edgetl.inputs.image import PreprocessSpec, Resize, load_pixels
from edgetl.models import checkpoint
from edgetl.models.architecture import describe
from edgetl.models.detector import STRIDES, places
from edgetl.records.scores import value
from edgetl.records.train import EpochRecord
from edgetl.tasks.base import Detection
from edgetl.train.evaluate import predict_outputs
from edgetl.train.loop import NO_START, Fitting, fit
from edgetl.train.objective import Hard
from edgetl.train.optimise import copy_state
from edgetl.train.seeds import torch_generator
from edgetl.train.sets import PixelSet
from edgetl.train.tasks.detection import DetectionTraining
from tests.data.boxes.sets import SHAPES, draw

TASK = DetectionTraining(spec=Detection(labels=SHAPES))
SPEC = PreprocessSpec(size=64, resize=Resize.PAD)


def sample(objects: list[tuple[str, list[int]]], size: tuple[int, int]) -> Sample:
    found = tuple(Object((x, y, x + w, y + h), label) for label, (x, y, w, h) in objects)
    return Sample(Path("x.png"), 0, "train", "", marked=Marked(size, found))


def shapes(count: int, seed: int = 0, side: int = 64) -> PixelSet:
    drawn = [draw(seed + at, side) for at in range(count)]
    pixels = np.stack([np.asarray(picture) for picture, _ in drawn])
    samples = [sample(objects, (side, side)) for _, objects in drawn]
    return PixelSet(pixels, TASK.targets(samples, dataclasses.replace(SPEC, size=side)), SPEC)


def perfect(targets: np.ndarray, size: int = 64) -> np.ndarray:
    """Raw maps that answer each object by the place nearest to its middle."""
    centres, strides = (t.numpy() for t in places(size))
    raw = np.full((len(targets), len(centres), 4 + len(SHAPES)), -9.0, np.float32)
    for maps, rows in zip(raw, targets, strict=True):
        for x1, y1, x2, y2, label, *_ in rows[1:]:
            if label < 0:
                continue
            middle = np.array([x1 + x2, y1 + y2]) / 2
            at = int(((centres - middle) ** 2).sum(axis=1).argmin())
            (x, y), stride = centres[at], strides[at, 0]
            maps[at, :4] = np.log(np.array([x - x1, y - y1, x2 - x, y2 - y]) / stride)
            maps[at, 4 + int(label)] = 9.0
    return raw


@pytest.mark.parametrize("resize", [Resize.PAD, Resize.SQUASH])
def test_right_answers_score_all_in_the_pictures_pixels(resize: Resize) -> None:
    """The pictures are of other sizes and shapes than the input: scales, offsets and areas must all be right."""
    spec = dataclasses.replace(SPEC, resize=resize)
    objects = [("square", [20, 30, 40, 40]), ("bar", [90, 10, 60, 20])]
    targets = TASK.targets([sample(objects, (180, 90)), sample([], (64, 64))], spec)
    scores = TASK.evaluate(targets, perfect(targets), resamples=0)
    assert value(scores, "map") == pytest.approx(1.0)
    moved = targets.copy()
    moved[0, 1, :4] += 8
    assert value(TASK.evaluate(targets, perfect(moved), resamples=0), "map50") < 0.6


def test_targets_lie_where_the_preprocessing_puts_the_object(tmp_path: Path) -> None:
    picture, objects = draw(3, 96)
    picture.resize((192, 96)).save(tmp_path / "wide.png")
    wide = [(label, [2 * x, y, 2 * w, h]) for label, (x, y, w, h) in objects]
    for resize in (Resize.PAD, Resize.SQUASH, Resize.CROP):
        spec = dataclasses.replace(SPEC, resize=resize)
        pixels = load_pixels((tmp_path / "wide.png").read_bytes(), spec).astype(int)
        for x1, y1, x2, y2, label, *_ in TASK.targets([sample(wide, (192, 96))], spec)[0, 1:]:
            x, y = round((x1 + x2) / 2), round((y1 + y2) / 2)
            if 0 <= x < 64 and 0 <= y < 64:
                assert pixels[y, x].argmax() == (0 if SHAPES[int(label)] == "square" else 2)


@pytest.mark.parametrize("policy", [Augment.NONE, Augment.CROP, Augment.BASIC, Augment.PHOTOMETRIC])
def test_boxes_move_with_the_pixels(policy: Augment) -> None:
    """One red square on grey: after the view the red pixels are found where the box says."""
    pixels = torch.full((32, 72, 72, 3), 110, dtype=torch.uint8)
    pixels[:, 20:44, 12:40] = torch.tensor([250, 0, 0], dtype=torch.uint8)
    samples = [sample([("square", [12, 20, 28, 24])], (72, 72))] * 32
    targets = torch.from_numpy(TASK.targets(samples, dataclasses.replace(SPEC, size=72)))
    images, moved = TASK.view(pixels, targets, policy, 64, generator=torch_generator(0), view_fraction=1.0)
    seen = 0
    for image, rows in zip(images, moved, strict=True):
        if rows[1, 4] < 0:
            continue
        seen += 1
        y, x = torch.nonzero(image[0] - image[1] > 80, as_tuple=True)
        red = torch.tensor([x.min(), y.min(), x.max() + 1, y.max() + 1]).float()
        # Of a turned box the hull of its whole is taken, of which the picture's edge may cut a corner.
        assert (rows[1, :4] - red).abs().max() <= (6.0 if policy is Augment.PHOTOMETRIC else 1.5)
    assert seen >= 24
    assert torch.equal(moved[:, 0], targets[:, 0])


def test_an_object_of_which_little_is_seen_is_not_asked_for() -> None:
    targets = torch.from_numpy(TASK.targets([sample([("square", [0, 0, 10, 10])], (64, 64))], SPEC))
    pixels = torch.zeros((1, 64, 64, 3), dtype=torch.uint8)
    _, kept = TASK.view(pixels, targets, Augment.NONE, 32, generator=torch_generator(0), view_fraction=1.0)
    _, gone = TASK.view(pixels, targets, Augment.NONE, 32, generator=torch_generator(0), view_fraction=0.7)
    assert (kept[0, 1, 4], gone[0, 1, 4]) == (0, -1)
    assert kept[0, 1, :4].tolist() == [0, 0, 5, 5]


def test_strata_are_the_rarest_class() -> None:
    a, b = ("square", [0, 0, 9, 9]), ("bar", [9, 9, 9, 3])
    targets = TASK.targets([sample(x, (64, 64)) for x in ([a], [a, b], [a, a], [])], SPEC)
    assert TASK.strata(targets).tolist() == [0, 1, 0, 2]


@pytest.mark.parametrize("kind", sorted(LOSSES_OF_BOXES))
def test_soft_loss_is_none_where_both_agree_and_moves_towards_the_teacher(kind: DistillLoss) -> None:
    data = shapes(4)
    teacher = torch.from_numpy(perfect(data.targets))
    student = (teacher + torch.randn(teacher.shape, generator=torch_generator(1))).requires_grad_()
    targets = torch.from_numpy(data.targets)

    def loss(outputs: torch.Tensor) -> torch.Tensor:
        return TASK.soft_loss(kind, outputs, teacher, targets, 1.0)

    assert loss(teacher).item() == pytest.approx(0.0, abs=1e-4)
    first = loss(student)
    first.backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    assert loss(student - 0.1 * student.grad).item() < first.item()
    assert torch.allclose(TASK.blend([teacher, teacher], 1.0), teacher, atol=1e-3)


def test_what_a_detector_cannot_learn_from_is_refused() -> None:
    data = shapes(2)
    for config in (TrainConfig(mix=Mix.MIXUP), TrainConfig(imbalance="class_weights")):  # type: ignore[arg-type]
        with pytest.raises(TrainingError, match=r"train\."):
            TASK.hard_loss(config, data.targets)
    with pytest.raises(ModelError, match=r"multiple of 32, got 80: set preprocess.size = 64|96"):
        TASK.network("test_efficientnet", "none", seed=0, size=80)


def fitting(epochs: int) -> Fitting:
    return Fitting(
        phase="full",
        epochs=epochs,
        batch_size=8,
        lr=3e-3,
        weight_decay=0.0,
        augment=Augment.BASIC,
        seed=1,
        select="map",
        ema=0.5,
    )


def test_a_stopped_fit_goes_on_to_the_same_weights_and_learns(tmp_path: Path) -> None:
    train, val = shapes(24), shapes(8, seed=100)
    objective = Hard(hard_loss=TASK.hard_loss())

    def run(state: Path, stop: bool = False) -> tuple[torch.nn.Module, tuple[EpochRecord, ...]]:
        model = TASK.network("test_efficientnet", "none", seed=3, size=64)

        def listen(_: EpochRecord) -> None:
            if stop:
                raise KeyboardInterrupt

        history = fit(
            model,
            fitting(3),
            task=TASK,
            train=train,
            val=val,
            objective=objective,
            state=state,
            listen=listen,
            start=NO_START,
        )
        return model, history

    whole, history = run(tmp_path / "a")
    with pytest.raises(Interrupted):
        run(tmp_path / "b", stop=True)
    again, resumed = run(tmp_path / "b")
    assert [r.loss for r in resumed] == [r.loss for r in history]
    assert history[-1].loss < 0.9 * history[0].loss
    for name, tensor in copy_state(whole).items():
        assert torch.equal(tensor, copy_state(again)[name]), name
    path = tmp_path / "detector.safetensors"
    checkpoint.save(whole, describe(whole, "test_efficientnet", 2, 64), path)
    loaded, _ = checkpoint.load(path)
    assert np.array_equal(predict_outputs(loaded, val), predict_outputs(whole, val))
    assert predict_outputs(whole, val).shape == (8, sum((64 // s) ** 2 for s in STRIDES), 6)


def test_a_teacher_of_another_size_says_the_same() -> None:
    """A student at half the teacher's size follows maps that are resampled to its own places."""
    square = [("square", [8, 8, 32, 32])]
    large = torch.from_numpy(perfect(TASK.targets([sample(square, (64, 64))], SPEC)))
    # what a network of constant maps says does not depend on where it is asked
    large[...] = torch.tensor([2.0, 2.0, 2.0, 2.0, 1.0, -1.0])
    small = torch.zeros(1, len(places(32)[0]), 6)
    small[...] = torch.tensor([2.0 - np.log(2.0)] * 4 + [1.0, -1.0])
    nothing = torch.zeros(1, 1, 8)
    assert TASK.soft_loss(DistillLoss.BCKD, small, large, nothing, 1.0).item() == pytest.approx(0.0, abs=1e-5)
    assert TASK.soft_loss(DistillLoss.BCKD, small + 0.5, large, nothing, 1.0).item() > 0.1
    assert torch.allclose(TASK.blend([small, large], 1.0), small, atol=1e-3)
    for loss in set(DistillLoss) - LOSSES_OF_BOXES:
        with pytest.raises(ConfigError, match=rf"distill.loss = {loss} is of labels; take bckd or"):
            TASK.soft_loss(loss, small, large, nothing, 1.0)


def test_a_crowd_is_no_background() -> None:
    """Places inside a crowd's box are taught nothing, whatever they answer; those outside are."""
    crowd = Object((0, 0, 32, 64), "square", crowd=True)
    own = Sample(Path("x.png"), 0, "train", "", marked=Marked((64, 64), (crowd,)))
    targets = torch.from_numpy(TASK.targets([own], SPEC))
    loss, centres = TASK.hard_loss(), places(64)[0]
    quiet = torch.full((1, len(centres), 6), -9.0)
    inside = quiet.clone()
    inside[:, centres[:, 0] < 32, 4:] = 5.0
    outside = quiet.clone()
    outside[:, centres[:, 0] > 32, 4:] = 5.0
    assert loss(inside, targets).item() == pytest.approx(loss(quiet, targets).item())
    assert loss(outside, targets).item() > 100.0
    named = Object((0, 0, 32, 32), "square")
    both = dataclasses.replace(own, marked=Marked((64, 64), (crowd, named)))
    silent = loss(quiet, torch.from_numpy(TASK.targets([both], SPEC))).item()
    assert silent > loss(quiet, targets).item() + 1.0, "an object in a crowd is asked for"


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_mosaics_boxes_lie_on_its_pictures(share: float) -> None:
    """One red square per picture, each elsewhere: in a mosaic there are four, half as large."""
    corners = [(8 * (at % 5), 6 * (at // 5)) for at in range(16)]
    pixels = torch.full((16, 64, 64, 3), 110, dtype=torch.uint8)
    samples = []
    for image, (x, y) in zip(pixels, corners, strict=True):
        image[y : y + 24, x : x + 24] = torch.tensor([250, 0, 0], dtype=torch.uint8)
        samples.append(sample([("square", [x, y, 24, 24])], (64, 64)))
    task = dataclasses.replace(TASK, mosaic=share)
    targets = torch.from_numpy(TASK.targets(samples, SPEC))
    images, moved = task.view(
        pixels, targets, Augment.BASIC, 64, generator=torch_generator(4), view_fraction=1.0
    )
    counts = (moved[:, 1:, 4] >= 0).sum(dim=1)
    mosaics = counts > 1
    assert bool(mosaics.all()) is (share == 1.0)
    assert torch.equal(moved[:, 0], targets[:, 0])
    for image, rows in zip(images[mosaics], moved[mosaics], strict=True):
        red = image[0] - image[1] > 80
        covered = torch.zeros_like(red)
        for x1, y1, x2, y2, label, *_ in rows[1:]:
            if label >= 0:
                covered[int(y1.floor()) : int(y2.ceil()), int(x1.floor()) : int(x2.ceil())] = True
                assert red[round(float(y1 + y2) / 2) - 1, round(float(x1 + x2) / 2) - 1]
        assert (red & ~covered).sum() <= 0.06 * red.sum()
    still, same = task.view(
        pixels, targets, Augment.NONE, 64, generator=torch_generator(4), view_fraction=1.0
    )
    assert torch.equal(same, targets)
    assert torch.equal(still, pixels.permute(0, 3, 1, 2).float())
