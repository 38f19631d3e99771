"""Sets of labels: they hold the truth as often as asked, are never empty, and take few bytes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetl.errors import ConfigError
from edgetl.tasks.classification.answers import softmax
from edgetl.tasks.conformal import (
    MOST,
    Conformity,
    check_coverage,
    conformities_any,
    conformities_one,
    conformity,
    sets_any,
    sets_one,
)
from edgetl.tasks.multilabel.scores import sigmoid
from tests.tasks.test_temperature import drawn


def test_a_truth_s_conformity_is_what_is_left_from_it_on() -> None:
    shares = np.array([[0.5, 0.1, 0.3, 0.1]] * 4)
    assert conformities_one(shares, np.arange(4)) == pytest.approx([1.0, 0.2, 0.5, 0.1])
    assert sets_one(shares[:1], 1.0).tolist() == [[True, False, False, False]]
    assert sets_one(shares[:1], 0.3).tolist() == [[True, False, True, False]]
    assert sets_one(shares[:1], 0.0).all()


def test_of_any_number_of_classes_it_is_the_least_of_those_there() -> None:
    chances = np.array([[0.9, 0.2, 0.6]] * 3)
    truths = np.array([[True, False, True], [False, True, False], [False, False, False]])
    assert conformities_any(chances, truths).tolist() == [0.6, 0.2, 1.0]
    assert sets_any(chances[:1], 0.6).tolist() == [[True, False, True]]


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_coverage_over_many_splits(coverage: float) -> None:
    """Half of the images say how, the other half is held to it; the mean over splits is within the guarantee."""
    shares, marks, splits = [], [], 150
    for seed in range(splits):
        logits, truths = drawn(400, 1.5, seed=seed)
        found = softmax(logits)
        least = conformity(conformities_one(found[:200], truths[:200])).least(coverage, "x")
        sets = sets_one(found[200:], least)
        assert sets.any(axis=1).all(), "never empty"
        shares.append(sets[np.arange(200), truths[200:]].mean())
        generator = np.random.default_rng(seed)
        chances = sigmoid(logits)
        there = generator.random(chances.shape) < chances
        least = conformity(conformities_any(chances[:200], there[:200])).least(coverage, "x")
        marks.append((sets_any(chances[200:], least) | ~there[200:]).all(axis=1).mean())
    # One split's share varies by its validation and its test half alike.
    wide = 3 * math.sqrt(2 * coverage * (1 - coverage) / 200 / splits)
    for found_shares in (shares, marks):
        assert coverage - wide <= np.mean(found_shares) <= coverage + 1 / 201 + wide


def test_a_classifier_that_is_right_more_often_answers_alone() -> None:
    logits = np.eye(4)[np.arange(100) % 4] * 3.0
    truths = np.where(np.arange(100) < 3, (np.arange(100) + 1) % 4, np.arange(100) % 4)
    ranked = conformity(conformities_one(softmax(logits), truths))
    assert sets_one(softmax(logits), ranked.least(0.9, "x")).sum(axis=1).tolist() == [1] * 100
    assert sets_one(softmax(logits), ranked.least(0.99, "x")).sum(axis=1).min() > 1


@given(st.integers(1, 3 * MOST), st.floats(0.001, 0.9995))
def test_what_is_kept_never_covers_less(images: int, coverage: float) -> None:
    values = np.random.default_rng(images).random(images)
    ranked = conformity(values)
    assert len(ranked.ranked) == min(images, MOST)
    assert (np.diff(ranked.ranked) <= 0).all()
    rank = math.ceil((images + 1) * coverage - 1e-9)
    if rank > images:
        with pytest.raises(ConfigError):
            ranked.least(coverage, "x")
        return
    least = ranked.least(coverage, "x")
    held = int((values >= least).sum())
    assert rank <= held <= rank + math.ceil(images / MOST)


def test_hardly_any_coverage_takes_the_best() -> None:
    assert conformity(np.array([0.2, 0.9, 0.4])).least(1e-12, "x") == pytest.approx(0.9)


def test_ranks_are_not_lost_to_rounding() -> None:
    values = np.arange(99, 0, -1) / 100.0
    for per_cent in range(1, 100):
        least = conformity(values).least(per_cent / 100, "x")
        assert (values >= least).sum() == per_cent


def test_too_much_for_so_few_images_is_refused() -> None:
    ranked = conformity(np.linspace(0, 1, 19))
    assert ranked.least(0.95, "b.edgetl") == 0.0
    with pytest.raises(
        ConfigError,
        match=r"^coverage: 0\.99 needs 99 labelled validation images, and b\.edgetl was made with 19, which allow at"
        r" most 0\.95; ask for less, or train with a larger validation split\.$",
    ):
        ranked.least(0.99, "b.edgetl")
    with pytest.raises(ConfigError, match=r"made with 0, which allow none; ask"):
        Conformity(images=0, ranked=np.zeros(0, np.float32)).least(0.5, "x")


@pytest.mark.parametrize("coverage", [0.0, 1.0, 95.0, -0.1, math.nan])
def test_a_coverage_is_a_share(coverage: float) -> None:
    with pytest.raises(
        ConfigError, match=rf"^coverage: got {coverage:g}, expected a share above 0 and below 1"
    ):
        check_coverage(coverage)


def test_the_guarantee_s_spread_is_the_binomial_s() -> None:
    """Of one validation split coverage varies as a beta distribution does; its mean is the rank by n + 1."""
    shares = []
    for seed in range(400):
        values = np.random.default_rng(seed).random(2100)
        least = conformity(values[:99]).least(0.9, "x")
        shares.append((values[99:] >= least).mean())
    assert np.mean(shares) == pytest.approx(0.9, abs=0.006)
    assert np.std(shares) == pytest.approx(math.sqrt(0.9 * 0.1 / 101), rel=0.15)
