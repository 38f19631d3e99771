"""How well unknown images are told on real sets, float and INT8: classes that were never trained on, and other sets.

Half an hour on two cores. `make test-slow` prints what came out.
"""

from __future__ import annotations

import pytest

import edgetl
from edgetl.records.scores import UnknownEvaluation
from edgetl.runtime.evaluate import evaluate_folder
from tests.slow.left_out import Runs
from tests.slow.test_real_sets import RealSet

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]
FAR = ("magnetic_tile", "office_caltech10")
LEAST_FAR = 0.9
"""The least AUROC of the best score on another set."""
NAMES = ("flowers12", "cifar10")
_ROUNDING = 0.03
"""How much lower INT8's may be by the score that it uses."""


def print_line(what: str, variant: str, found: UnknownEvaluation) -> dict[str, float]:
    """Print each score's figures; return its AUROC."""
    for one in found.scores:
        low, high = one.auroc.interval or (0.0, 1.0)
        print(
            f"{what}, {variant}: {one.score}{' (used)' if one.used else ''} AUROC {one.auroc.value:.3f} ({low:.3f} to"
            f" {high:.3f}), {one.passing.value:.1%} pass where 95% of the known do; {found.images} unknown,"
            f" {found.known} known"
        )
    return {one.score: one.auroc.value for one in found.scores}


@pytest.mark.parametrize("name", NAMES)
def test_unknown_images_are_told(real_set: RealSet, left_out: Runs, name: str) -> None:
    run = left_out(name)
    outcome, known = run.outcome, run.known
    assert outcome.report is not None
    print()
    for one in outcome.report.measure.variants:
        if one.unknown is not None:
            trials = ", ".join(f"{t.score} {t.near:.3f} and {t.far:.3f}" for t in one.unknown.trials)
            alarms = one.unknown.false_alarms
            print(
                f"{name}, {one.name}: {one.unknown.note}; trials, left out and far: {trials}; false alarms on test"
                f" {alarms.value if alarms else float('nan'):.1%} where 5% are asked for"
            )
    sets = {"classes left out": run.unknown} | {other: real_set(other) for other in FAR}
    areas = dict[tuple[str, str], dict[str, float]]()
    variants = [v for v in outcome.report.measure.variants if v.name == "fp32" or v.precision == "int8"]
    for variant in variants:
        with edgetl.load(run.bundle, variant=variant.name) as session:
            for what, folder in sets.items():
                found = evaluate_folder(session, known, unknown=folder).unknown
                assert found is not None
                assert (found.made_from, found.in_set) == (0, 0)
                areas[what, variant.name] = print_line(f"{name} against {what}", variant.name, found)
    short = {key: max(found.values()) for key, found in areas.items() if key[0] in FAR}
    assert min(short.values()) >= LEAST_FAR, short
    for variant in variants[1:]:
        assert variant.unknown is not None
        for what in sets:
            score = variant.unknown.score
            assert areas[what, variant.name][score] >= areas[what, "fp32"][score] - _ROUNDING
