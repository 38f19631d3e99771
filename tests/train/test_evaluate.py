from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgetl.config import PreprocessConfig
from edgetl.errors import TensorError
from edgetl.inputs.image import PreprocessSpec, Resize, normalise
from edgetl.records.scores import value
from edgetl.tasks.base import Classification
from edgetl.train.evaluate import predict_outputs, score
from edgetl.train.sets import PixelSet, with_margin
from edgetl.train.tasks.classification import ClassificationTraining

from .tiny import SPEC, TASK, network, pixel_set


def test_logits_are_those_of_the_network_in_evaluation_mode() -> None:
    model, data = network().train(), pixel_set(7, 16)
    model[1].eval()  # type: ignore[index,operator]
    modes = [m.training for m in model.modules()]
    logits = predict_outputs(model, data, batch_size=3)
    assert [m.training for m in model.modules()] == modes
    with torch.no_grad():
        expected = model.eval()(torch.from_numpy(normalise(data.pixels, SPEC)))
    assert logits.dtype == np.float32
    assert np.allclose(logits, expected.numpy(), atol=1e-5)
    assert np.array_equal(logits, predict_outputs(model, (data.pixels, SPEC), batch_size=3))


def test_an_empty_set_gives_no_logits() -> None:
    assert predict_outputs(network(), pixel_set(0, 16)).shape == (0, 0)


def test_a_score_counts_what_was_right() -> None:
    class Always(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[0.0, 1.0, 0.0]]).expand(len(x), 3)

    result = score(TASK, Always(), pixel_set(9, 16))
    assert value(result, "top1") == pytest.approx(1 / 3)
    assert [c["recall"] for c in result.detail["classes"]] == [0.0, 1.0, 0.0]


def test_cross_entropy_agrees_with_torch() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, 50, (20, 4)).astype(np.float32), rng.integers(0, 4, 20)
    expected = nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels))
    task = ClassificationTraining(spec=Classification(labels=tuple("abcd")))
    assert task.val_loss(labels, logits) == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("shape", "dtype", "labels", "message"),
    [
        (
            (2, 16, 16, 3),
            np.float32,
            2,
            r"pixels: got \(2, 16, 16, 3\) float32, expected \(N, S, S, 3\) uint8",
        ),
        ((2, 3, 16, 16), np.uint8, 2, r"pixels: got \(2, 3, 16, 16\) uint8"),
        ((2, 12, 12, 3), np.uint8, 2, "pixels: got a side of 12, expected at least the input's 16"),
        ((2, 16, 16, 3), np.uint8, 3, r"targets: got \(3,\), expected a row for each of 2 images"),
    ],
)
def test_wrong_pixels_are_refused(shape: tuple[int, ...], dtype: type, labels: int, message: str) -> None:
    with pytest.raises(TensorError, match=message):
        PixelSet(np.zeros(shape, dtype), np.zeros(labels, np.int64), SPEC)


def test_the_margin_shows_more_of_the_image_at_the_same_scale() -> None:
    spec = PreprocessSpec(size=160, crop_fraction=0.8)
    margin = with_margin(spec)
    assert (margin.size, margin.crop_fraction) == (180, pytest.approx(0.9))
    assert margin.size / margin.crop_fraction == pytest.approx(spec.size / spec.crop_fraction)
    pixels = np.zeros((1, 180, 180, 3), np.uint8)
    assert PixelSet(pixels, np.zeros(1, np.int64), spec).view_fraction == pytest.approx(160 / 180)
    squashed = PreprocessSpec(size=160, resize=Resize.SQUASH)
    assert PixelSet(pixels, np.zeros(1, np.int64), squashed).view_fraction == 1.0
    assert PreprocessConfig().size == 160
