"""Both errors of the gate between detectors, over many simulated ones."""

from __future__ import annotations

import os

import numpy as np
import pytest
from scipy.stats import binom

from edgetl.records.gate import Verdict
from edgetl.tasks.detection.judge import judge, settled_margin
from edgetl.tasks.detection.scores import averages, match
from edgetl.tasks.judging import FALSE_ALARM, MISS
from tests.tasks.detection.test_judge import LABELS, detector, objects

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]
GATES = int(os.environ.get("EDGETL_BOX_GATES", "100"))
SOUND = 0.9
"""Share of the objects that the baseline finds."""


def mean_precision(found: float) -> float:
    """What a detector that finds such a share scores, over very many images."""
    truths = objects(1500, 999)
    answers = detector(truths, 998, found=found)
    return averages([match(truths, answers, label) for label in range(len(LABELS))])[0].ap


def share_for(drop: float) -> float:
    """The share that a detector finds whose mAP lies so far below the baseline's."""
    shares = np.linspace(0.6, SOUND, 7)
    values = np.array([mean_precision(share) for share in shares])
    return float(np.interp(values[-1] - drop, values, shares))


@pytest.mark.parametrize("images", [72, 300])
def test_both_errors_stay_at_their_levels(images: int) -> None:
    margin = settled_margin(images)
    stated: dict[str, dict[str, float]] = {}
    for name, drop in (
        ("no worse", 0.0),
        ("worse by the margin", margin),
        ("worse by twice the margin", 2 * margin),
    ):
        share, counts = share_for(drop) if drop else SOUND, dict.fromkeys((*Verdict, "any"), 0)
        for gate in range(GATES):
            truths = objects(images, gate)
            before = detector(truths, 10_000 + gate, found=SOUND)
            checks = judge(truths, before, detector(truths, 20_000 + gate, found=share), LABELS)
            counts[checks[0].verdict] += 1
            counts["any"] += any(check.verdict is Verdict.FAIL for check in checks)
        stated[name] = {key: count / GATES for key, count in counts.items()}
        print(
            f"{images} images, {100 * margin:.1f} points allowed, {name}: mAP passes {stated[name]['pass']:.1%}, fails "
            f"{stated[name]['fail']:.1%}, cannot tell {stated[name]['unsure']:.1%}; any check fails "
            f"{stated[name]['any']:.1%}",
            flush=True,
        )
    # What chance allows beyond the level in so many gates, once in a thousand.
    assert stated["no worse"]["any"] <= binom.isf(0.001, GATES, FALSE_ALARM) / GATES
    assert stated["worse by the margin"]["pass"] <= binom.isf(0.001, GATES, MISS) / GATES
    assert stated["worse by twice the margin"]["any"] >= 0.5
