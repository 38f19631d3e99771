"""Temperatures: the one of least loss, bounded where there is none, used only where it is shown to help."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from edgetl.tasks.classification.answers import scaled, softmax
from edgetl.tasks.multilabel.scores import sigmoid
from edgetl.tasks.temperature import HIGHEST, LOWEST, Sigmoid, Softmax, choose, fit, thinned

Drawn = tuple[NDArray[np.float64], NDArray[np.int64]]


def drawn(images: int, temperature: float, *, classes: int = 6, seed: int = 0) -> Drawn:
    """Logits that are calibrated by a temperature, and truths."""
    generator = np.random.default_rng(seed)
    logits = 3 * generator.normal(size=(images, classes))
    chances = softmax(logits).astype(np.float64).cumsum(axis=1)
    truths = (chances > generator.random((images, 1)) * chances[:, -1:]).argmax(axis=1)
    return logits * temperature, truths


def marked(images: int, temperature: float, *, seed: int = 0) -> Sigmoid:
    generator = np.random.default_rng(seed)
    logits = 3 * generator.normal(size=(images, 4))
    truths = generator.random(logits.shape) < sigmoid(logits)
    return Sigmoid(logits * temperature, truths, logits > 0)


@pytest.mark.parametrize("images", [40, 500])
def test_it_is_the_one_of_least_loss(images: int) -> None:
    logits, truths = drawn(images, 2.5)
    values, right, wrong = torch.tensor(logits), torch.tensor(truths), 1 / (images + 2)

    def loss(inverse: float) -> float:
        smoothing = wrong * 6 / 5
        return float(torch.nn.functional.cross_entropy(values * inverse, right, label_smoothing=smoothing))

    least = minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-9}).x
    assert fit(Softmax(logits, truths)) == pytest.approx(1 / least, rel=1e-4)
    assert Softmax(logits, truths).losses(0.7).mean() == pytest.approx(
        float(torch.nn.functional.cross_entropy(values * 0.7, right))
    )


def test_any_number_of_classes_have_one_for_all() -> None:
    found = marked(400, 1.8)
    temperature = fit(found)
    assert temperature == pytest.approx(1.8, rel=0.1)
    around = [found.slope(1 / (temperature * by))[0] for by in (1.001, 0.999)]
    assert around[0] < 0 < around[1]
    slope = (found.losses(0.8 + 1e-6).mean() - found.losses(0.8 - 1e-6).mean()) / 2e-6
    assert found.slope(0.8)[0] == pytest.approx(slope, abs=0.2), "but for the smoothing"


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_one_that_helps_is_used_and_found_again(temperature: float) -> None:
    for found in (choose(Softmax(*drawn(800, temperature))), choose(marked(800, temperature))):
        if temperature == 1.0:
            assert found.temperature == 1.0
            assert found.note.startswith("scores are as the network gives them: a temperature of 1.")
            assert found.fitted != 1.0
        else:
            assert found.temperature == found.fitted == pytest.approx(temperature, rel=0.12)
            assert found.note == ""
            assert found.p_value is not None
            assert found.p_value <= 0.05


def test_equal_images_give_an_equal_one() -> None:
    assert choose(Softmax(*drawn(100, 2.0))) == choose(Softmax(*drawn(100, 2.0)))


def test_where_none_helps_it_is_seldom_used() -> None:
    used = [choose(Softmax(*drawn(60, 1.0, seed=seed))).temperature != 1.0 for seed in range(25)]
    assert sum(used) <= 4  # 5%; more once in a hundred


def test_without_a_mistake_scores_count_on_one() -> None:
    truths = np.arange(120) % 6
    shy = choose(Softmax(np.eye(6)[truths] * 2.0, truths))
    assert shy.note == (
        "none of 120 images of the validation split is answered wrong, so its temperature counts on one mistake in 122"
    )
    # Of images that are all alike the likeliest score is the smoothed share itself.
    assert softmax(np.eye(6)[:1] * 2.0 / shy.temperature).max() == pytest.approx(121 / 122, abs=1e-6)
    sure = choose(Softmax(np.eye(6)[truths] * 40.0, truths))
    assert sure.temperature == 1.0, "less sure answers were not better"


def test_wildly_sure_mistakes_do_not_make_all_others_unsure() -> None:
    truths = np.arange(200) % 4
    logits = np.eye(4)[truths] * 4.0
    logits[:20] = np.eye(4)[(truths[:20] + 1) % 4] * 60.0
    found = choose(Softmax(logits, truths))
    assert found.temperature == 1.0
    assert found.fitted is not None
    assert found.fitted > 3
    assert found.p_value is not None
    assert found.p_value < 0.05
    assert found.note.startswith(
        f"scores are as the network gives them: a temperature of {found.fitted:.2f} lowers"
    )
    assert " on 200 images of the validation split and raises the Brier score by 0." in found.note


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_squares_are_the_brier_scores(beta: float) -> None:
    logits, truths = drawn(50, 1.0)
    expected = ((softmax(logits * beta) - np.eye(6)[truths]) ** 2).sum(axis=1)
    assert Softmax(logits, truths).squares(beta) == pytest.approx(expected, abs=1e-5)
    there = np.random.default_rng(0).random(logits.shape) < 0.5
    expected = ((sigmoid(logits * beta) - there) ** 2).sum(axis=1)
    assert Sigmoid(logits, there, logits > 0).squares(beta) == pytest.approx(expected)


def test_bounds_hold_where_answers_say_nothing() -> None:
    logits, truths = drawn(100, 1.0)
    assert fit(Softmax(-logits, truths)) == HIGHEST
    backwards = choose(Softmax(-logits, truths))
    assert backwards.note == "its temperature is at its bound, 20: the scores say little"
    assert fit(Softmax(np.eye(2)[[0, 1] * 50] * 1e-3, np.array([0, 1] * 50))) == LOWEST
    assert fit(Softmax(np.zeros((30, 3)), np.zeros(30, dtype=int))) == HIGHEST


@pytest.mark.parametrize("images", [0, 1, 19])
def test_few_images_give_none(images: int) -> None:
    found = choose(Softmax(*drawn(images, 3.0)) if images else Softmax(np.zeros((0, 2)), np.zeros(0, int)))
    assert (found.temperature, found.fitted, found.p_value) == (1.0, None, None)
    counted = f"{images} image{'' if images == 1 else 's'} of the validation split"
    assert found.note.startswith(f"scores are as the network gives them: {counted}")
    assert found.note.endswith("a temperature needs 20")


def test_no_answer_changes() -> None:
    generator = np.random.default_rng(0)
    logits = np.array([[1.0, np.nextafter(np.float32(1), np.float32(2))]], dtype=np.float32)
    for temperature in generator.uniform(0.05, 20, 200):
        assert scaled(logits, float(temperature)).argmax() == 1
    assert scaled(logits, 1.0) is logits


def test_very_large_sets_are_thinned_evenly() -> None:
    assert thinned(500, 10).tolist() == list(range(500))
    some = thinned(100_000, 1000)
    assert len(some) == 5_000
    assert (some[0], some[-1]) == (0, 99_999)
