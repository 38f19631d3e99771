"""Both errors of the accuracy gate over many simulated candidates, and every class of a real model damaged in turn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from edgetl.gate.capture import measure_accuracies
from edgetl.records.gate import Verdict
from edgetl.runtime.session import load
from edgetl.tasks.classification.judge import judge
from edgetl.tasks.judging import FALSE_ALARM, MISS, settled_margin
from tests.gate.digits import LABELS, write_digits_bundle, write_images

pytestmark = pytest.mark.slow
GATES = 1000
CLASSES = tuple(f"class-{i}" for i in range(12))


def simulate(
    generator: np.random.Generator, images: int, *, lost: float, won: float, unlike: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A set drawn anew, and two models on it: of the images, shares `lost` and `won` flip, 6% are wrong in both.

    `unlike` draws classes of very different size.
    """
    shares = np.array([0.4, *[0.6 / 11] * 11]) if unlike else np.full(12, 1 / 12)
    truth = generator.choice(12, images, p=shares)
    state = generator.choice(4, images, p=[1 - lost - won - 0.06, lost, won, 0.06])
    other = (truth + generator.integers(1, 12, images)) % 12
    before = np.where((state == 2) | (state == 3), other, truth)
    after = np.where((state == 1) | (state == 3), other, truth)
    return truth, before, after


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("images", "unlike"), [(240, False), (1000, False), (1000, True)])
def test_both_errors_stay_at_their_levels(images: int, unlike: bool) -> None:
    generator, flips, margin = np.random.default_rng(images), 0.015, settled_margin(images)
    stated: dict[str, dict[str, float]] = {}
    for name, lost in (
        ("no worse", flips),
        ("worse by the margin", flips + margin),
        ("worse by twice the margin", flips + 2 * margin),
    ):
        counts = dict.fromkeys((*Verdict, "any"), 0)
        for _ in range(GATES):
            checks = judge(*simulate(generator, images, lost=lost, won=flips, unlike=unlike), CLASSES)
            counts[checks[0].verdict] += 1
            counts["any"] += any(check.verdict is Verdict.FAIL for check in checks)
        stated[name] = {key: count / GATES for key, count in counts.items()}
        print(
            f"{images} images, {'one large class' if unlike else 'even classes'}, {100 * margin:.1f} points allowed, "
            f"{name}: top-1 passes {stated[name]['pass']:.1%}, fails {stated[name]['fail']:.1%}, cannot tell "
            f"{stated[name]['unsure']:.1%}; any check fails {stated[name]['any']:.1%}",
            flush=True,
        )
    # What chance allows beyond the level in so many gates, once in a thousand.
    assert stated["no worse"]["any"] <= binom.isf(0.001, GATES, FALSE_ALARM) / GATES
    assert stated["worse by the margin"]["pass"] <= binom.isf(0.001, GATES, MISS) / GATES
    assert stated["worse by twice the margin"]["any"] >= 0.7


def test_a_collapsed_class_is_caught_though_the_total_holds() -> None:
    generator, caught, by_total, gates = np.random.default_rng(1), 0, 0, 500
    for _ in range(gates):
        truth, before, after = simulate(generator, 600, lost=0.0, won=0.06, unlike=False)
        members = np.flatnonzero((truth == 3) & (before == 3))
        after[generator.choice(members, round(0.8 * len(members)), replace=False)] = 7
        accuracy, _, recall = judge(truth, before, after, CLASSES)
        caught += recall.verdict is Verdict.FAIL
        by_total += accuracy.verdict is Verdict.FAIL
    print(
        f"One class of 12 loses 80% of its recall: caught {caught / gates:.1%}, by top-1 alone {by_total / gates:.1%}"
    )
    assert caught / gates >= 0.99
    assert by_total / gates <= 0.2


def test_every_damaged_digit_is_caught(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")

    def predicted(path: Path):
        with load(path, threads=1) as session:
            return measure_accuracies([session], images)[0]

    sound = predicted(write_digits_bundle(tmp_path / "sound.edgetl", images=60))
    for digit in range(10):
        damaged = predicted(write_digits_bundle(tmp_path / f"{digit}.edgetl", images=700, lose=digit))
        accuracy, macro, recall = judge(sound.truth, sound.predictions, damaged.predictions, LABELS)
        print(f"{accuracy.sentence}\n{macro.sentence}\n{recall.sentence}")
        assert recall.verdict is Verdict.FAIL
        assert f" {digit} from " in recall.sentence
