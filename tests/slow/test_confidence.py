"""How sure models are on real image sets: calibration before and with the temperature, float and INT8, and how often
sets of labels hold the truth. Minutes each on two cores."""

from __future__ import annotations

from pathlib import Path

import pytest
from scipy.stats import betabinom

import edgetl
from edgetl import pipeline
from edgetl.config import Recipe
from edgetl.records.confidence import OutputConfidence
from edgetl.records.variants import MeasureRecord
from edgetl.runtime.evaluate import evaluate_folder
from tests.slow.left_out import SETS, Runs
from tests.slow.test_real_sets import RealSet, recipe_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]
IMAGES = {"flowers12": None, "cifar10": 5000}
"""Training images that are used, of all."""
WORSE = 0.01
"""By how much the calibration error of the test split may rise: it is a sample."""


def print_coverage(name: str, measure: MeasureRecord) -> None:
    """Print every variant's figures, and check that scores with the temperature hold and sets cover."""
    for variant in measure.variants:
        for one in variant.confidence:
            assert one.before is not None
            assert one.after is not None
            images = sum(b.answers for b in one.after.bins)
            print(
                f"\n{name}, {variant.name} ({variant.precision}): temperature {one.temperature:.2f} by {one.images}"
                f" validation images; on {images} of {one.split} calibration error {one.before.error:.2%} ->"
                f" {one.after.error:.2%}, log-loss {one.before.loss:.4f} -> {one.after.loss:.4f}, Brier score"
                f" {one.before.brier:.4f} -> {one.after.brier:.4f}{f'; {one.note}' if one.note else ''}",
                end="",
            )
            if one.temperature != 1.0:
                assert one.after.loss < one.before.loss + WORSE
                assert one.after.error < one.before.error + WORSE
            for covered in one.coverage:
                low, high = covered.held.interval or (0.0, 1.0)
                print(
                    f"; sets of {covered.asked:.0%} held {covered.held.value:.1%} (95% interval {low:.1%} to"
                    f" {high:.1%}), {covered.mean_size:.2f} labels",
                    end="",
                )
                assert covered.held.value >= least_held(one, covered.asked, covered.images) - WORSE
    print()


def least_held(one: OutputConfidence, asked: float, images: int) -> float:
    """What sets hold of so many images at least, but once in a thousand, where these are as the validation images.

    Given the validation split coverage varies by a beta distribution (Vovk 2012), and the test split by a binomial.
    """
    rank = next(k for k in range(1, one.images + 1) if k >= (one.images + 1) * asked - 1e-9)
    return float(betabinom.ppf(0.001, images, rank, one.images + 1 - rank)) / images


def checked(source: Path, recipe: Recipe, folder: Path) -> None:
    """Run a recipe, print and check its figures, and find them again through the bundle."""
    outcome = pipeline.run(recipe, folder)
    assert outcome.report is not None
    assert outcome.bundle is not None
    measure = outcome.report.measure
    print_coverage(source.name, measure)
    assert {v.precision for v in measure.variants} >= {"fp32", "int8"}
    with edgetl.load(outcome.bundle) as session:
        [own] = next(v for v in measure.variants if v.name == session.variant.name).confidence
        for stated in own.coverage:
            [covered] = evaluate_folder(session, source, coverage=stated.asked).coverage
            assert covered.images == stated.images
            assert covered.held.value == pytest.approx(stated.held.value, abs=0.005)


@pytest.mark.parametrize("name", IMAGES)
def test_scores_hold_and_sets_cover(real_set: RealSet, name: str, tmp_path: Path) -> None:
    source = real_set(name)
    checked(source, recipe_for(source, max_train_images=IMAGES[name]), tmp_path / name)


@pytest.mark.parametrize("name", SETS)
def test_sets_cover_where_classes_are_left_out(left_out: Runs, name: str) -> None:
    report = left_out(name).outcome.report
    assert report is not None
    print_coverage(f"{name} without five classes", report.measure)
