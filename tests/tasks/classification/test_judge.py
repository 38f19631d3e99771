from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from sklearn.metrics import f1_score

from edgetl import statistics
from edgetl.errors import TensorError
from edgetl.records.gate import GateCheck, Verdict
from edgetl.records.scores import value
from edgetl.tasks import judging
from edgetl.tasks.classification import judge
from edgetl.tasks.classification.scores import evaluate_predictions

LABELS = tuple(f"class-{i}" for i in range(12))
PASS, FAIL, UNSURE = Verdict.PASS, Verdict.FAIL, Verdict.UNSURE


def predictions(
    images: int, *, lost: int = 0, won: int = 0, wrong: int = 40, classes: int = 12
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, before and after: the last `wrong` images are wrong before; flips are spread over the classes."""
    truth = np.arange(images) % classes
    before = truth.copy()
    before[images - wrong :] = (truth[images - wrong :] + 1) % classes
    after = before.copy()
    after[:lost] = (truth[:lost] + 2) % classes
    after[images - won :] = truth[images - won :]
    return truth, before, after


def judged(*arrays: np.ndarray, margin: float | None = None, **options: bool) -> dict[str, GateCheck]:
    return {check.name: check for check in judge.judge(*arrays, LABELS, margin=margin, **options)}


@pytest.mark.parametrize(
    ("images", "lost", "won", "margin", "verdict"),
    [
        (1000, 0, 0, 0.01, PASS),
        (1000, 10, 10, 0.01, PASS),
        (1000, 12, 4, 0.01, UNSURE),
        (1000, 30, 25, 0.01, UNSURE),
        (1000, 30, 10, 0.01, FAIL),
        (1000, 30, 10, 0.05, PASS),
        (300, 5, 0, 0.01, UNSURE),
        (300, 6, 0, 0.01, FAIL),
        (250, 0, 0, 0.01, UNSURE),
        (310, 0, 0, 0.01, PASS),
        (50, 0, 0, 0.0, PASS),
        (50, 1, 1, 0.0, PASS),
        (50, 1, 0, 0.0, FAIL),
    ],
)
def test_top1(images: int, lost: int, won: int, margin: float, verdict: Verdict) -> None:
    assert judged(*predictions(images, lost=lost, won=won), margin=margin)["accuracy"].verdict is verdict


def test_sentences_say_what_flipped_how_sure_it_is_and_what_it_would_take() -> None:
    cases = [
        (
            predictions(1000, lost=10, won=10),
            "Top-1 went from 96.0% to 96.0% on 1,000 images (10 right to wrong, 10 wrong to right): +0.0 points, with "
            "95% certainty not more than 0.8 worse; a drop of 1 point is allowed: passes.",
        ),
        (
            predictions(1000, lost=30, won=10),
            "Top-1 went from 96.0% to 94.0% on 1,000 images (30 right to wrong, 10 wrong to right): -2.0 points, exact "
            "McNemar p = 0.0011; a drop of 1 point is allowed: FAILS.",
        ),
        (
            predictions(300, lost=2, won=1),
            "Top-1 went from 86.7% to 86.3% on 300 images (2 right to wrong, 1 wrong to right): -0.3 points, with 95% "
            "certainty not more than 1.8 worse; a drop of 1 point is allowed: cannot tell. About 1,000 images that "
            "flip alike would settle it; these settle 2.5 points.",
        ),
        (
            predictions(1000, lost=12, won=2),
            "Top-1 went from 96.0% to 95.0% on 1,000 images (12 right to wrong, 2 wrong to right): -1.0 points, with "
            "95% certainty not more than 1.8 worse; a drop of 1 point is allowed: cannot tell. The drop is just what "
            "is allowed, which no number of images would settle.",
        ),
    ]
    for arrays, sentence in cases:
        assert judged(*arrays, margin=0.01)["accuracy"].sentence == sentence


def test_an_unnamed_margin_is_what_so_many_images_can_settle() -> None:
    margins = {n: judging.settled_margin(n) for n in (12, 100, 240, 300, 1000, 1500, 10_000)}
    assert margins == {12: 0.215, 100: 0.05, 240: 0.03, 300: 0.025, 1000: 0.015, 1500: 0.01, 10_000: 0.01}
    for images, margin in margins.items():
        # At it a candidate as good as the baseline still passes.
        flips = math.floor(images / 100)
        same = judged(*predictions(images, lost=flips, won=flips, wrong=flips))["accuracy"]
        assert (same.verdict, same.limit) == (PASS, margin)
    few = judged(*predictions(240, lost=1))["accuracy"]
    assert few.sentence.endswith(
        "a drop of 3 points is allowed, the least that so many images can settle: passes."
    )


def test_the_same_model_with_the_same_predictions_passes_on_few_images() -> None:
    arrays = predictions(20, wrong=2)
    assert judged(*arrays, margin=0.01)["accuracy"].verdict is UNSURE
    same = judged(*arrays, margin=0.01, same_model=True)["accuracy"]
    assert same.verdict is PASS
    assert "the same predictions by the same model file" in same.sentence
    assert (
        judged(*predictions(20, wrong=2, lost=1), margin=0.01, same_model=True)["accuracy"].verdict is UNSURE
    )


@pytest.mark.parametrize(
    ("images", "lost", "won", "margin"),
    [(300, 0, 0, 0.005), (300, 4, 2, 0.02), (500, 9, 9, 0.01), (1000, 30, 25, 0.01)],
)
def test_so_many_images_do_decide(images: int, lost: int, won: int, margin: float) -> None:
    needed = judge.images_needed(images, lost, won, margin)
    assert needed is not None
    for share, decides in ((1.0, True), (0.9, False)):
        scale = share * needed / images
        low = judge.paired_interval(scale * lost, scale * won, scale * images, 1.7506861)[0]
        assert (low > -margin) is decides


def test_so_many_images_do_fail() -> None:
    needed = judge.images_needed(200, 8, 3, 0.01)
    assert needed == 540
    assert judged(*predictions(540, lost=22, won=8), margin=0.01)["accuracy"].verdict is FAIL
    assert judged(*predictions(200, lost=8, won=3), margin=0.01)["accuracy"].verdict is UNSURE


def test_images_needed_are_two_digits_and_none_where_none_would_do() -> None:
    assert judge.images_needed(100, 0, 0, 0.01) == 310
    assert judge.images_needed(100, 1, 0, 0.01) is None
    assert judge.images_needed(100, 1, 0, 0.0) is None
    assert judge.images_needed(200, 5, 2, 0.01) == 1100


def test_a_class_that_collapses_is_caught_though_the_total_holds() -> None:
    truth, before, after = predictions(600, wrong=45)
    members = np.flatnonzero((truth == 3) & (before == truth))
    after[members[:42]] = 7
    after[600 - 40 :] = truth[600 - 40 :]
    found = judged(truth, before, after)
    assert found["accuracy"].verdict is not FAIL
    assert abs(found["accuracy"].change) < 0.005
    recall = found["recall"]
    assert recall.verdict is FAIL
    assert recall.sentence == (
        "Recall went down in 1 of 12 classes: class-3 from 92.0% to 14.0% (42 of its 50 images lost, 3 won); a drop of "
        "10 points in a class is allowed: FAILS (exact tests, Holm's correction)."
    )
    assert (recall.baseline, recall.current, recall.limit) == (0.92, 0.14, 0.10)


def test_recall_that_one_test_alone_would_call_significant_is_not_told() -> None:
    truth, before, after = predictions(360, wrong=0)
    members = np.flatnonzero(truth == 5)
    after[members[:6]] = 0  # p = 1/64: below 0.05 alone, not among twelve.
    recall = judged(truth, before, after)["recall"]
    assert recall.verdict is UNSURE
    assert recall.sentence.endswith(
        "class-5 from 100.0% to 80.0% (6 of its 30 images lost, 0 won); a drop of 10 points in a class is allowed: "
        "cannot tell: in one of so many classes chance may do that. More images of it would settle it."
    )
    after[members[:4]] = truth[members[:4]]
    assert judged(truth, before, after)["recall"].verdict is PASS


def test_classes_too_small_to_be_judged_are_said() -> None:
    recall = judged(*predictions(60, wrong=0))["recall"]
    assert recall.verdict is PASS
    assert recall.sentence.endswith(
        "In 12 classes with fewer than 10 images a collapse cannot be distinguished from chance."
    )


def test_macro_f1_falls_with_a_rare_class() -> None:
    truth = np.array([0] * 900 + [1] * 50 + [2] * 50)
    before, after = truth.copy(), truth.copy()
    after[900:925] = 0
    found = {c.name: c for c in judge.judge(truth, before, after, LABELS[:3], margin=0.03)}
    assert found["accuracy"].verdict is UNSURE
    macro = found["macro-F1"]
    assert macro.verdict is FAIL
    assert macro.current == pytest.approx(f1_score(truth, after, average="macro"))
    assert "paired bootstrap); a drop of 3 points is allowed: FAILS." in macro.sentence
    after[902:925] = 1
    after[950] = 0
    few = {c.name: c for c in judge.judge(truth, before, after, LABELS[:3], margin=0.005)}["macro-F1"]
    assert few.verdict in (UNSURE, FAIL)


def test_draws_are_differences_of_macro_f1_over_resampled_images() -> None:
    generator = np.random.default_rng(0)
    truth, before = generator.integers(0, 4, 300), generator.integers(0, 4, 300)
    after = np.where(generator.random(300) < 0.3, truth, before)
    draws = judge.macro_f1_draws(truth, before, after, 4, resamples=3000)
    direct = []
    for _ in range(400):
        rows = generator.integers(0, 300, 300)
        first, second = (
            value(evaluate_predictions(truth[rows], p[rows], LABELS[:4]), "macro_f1") for p in (before, after)
        )
        direct.append(second - first)
    assert draws.mean() == pytest.approx(np.mean(direct), abs=0.006)
    assert draws.std() == pytest.approx(np.std(direct), rel=0.12)


def test_holm_rejects_step_by_step() -> None:
    # Holm (1979): the smallest at level/3, the next at level/2, and so on, until one is not rejected.
    assert judging.holm([0.01, 0.04, 0.03], 0.05) == [True, False, False]
    assert judging.holm([0.01, 0.02, 0.03], 0.05) == [True, True, True]
    assert judging.holm([0.02, 0.001, 0.02], 0.05) == [True, True, True]
    assert judging.holm([0.02, 0.02, 0.02], 0.05) == [False, False, False]
    assert judging.holm([], 0.05) == []


def _evaluation(right: int, images: int):
    truth = np.arange(images) % 2
    return evaluate_predictions(truth, np.where(np.arange(images) < right, truth, 1 - truth), ("ant", "bee"))


@pytest.mark.parametrize(
    ("before", "after", "images", "margin", "verdict"),
    [
        (9500, 9490, 10_000, 0.01, PASS),
        (950, 945, 1000, 0.01, UNSURE),
        (950, 950, 1000, None, PASS),
        (950, 900, 1000, 0.01, FAIL),
        (85, 60, 90, None, FAIL),
        (950, 949, 1000, 0.0, FAIL),
    ],
)
def test_scores_alone_are_compared_as_of_independent_images(
    before: int, after: int, images: int, margin: float | None, verdict: Verdict
) -> None:
    check = judge.judge_unpaired(_evaluation(before, images), _evaluation(after, images), margin=margin)
    assert check.verdict is verdict
    assert "which of them flipped is not in the bundles" in check.sentence
    if verdict is UNSURE:
        assert check.sentence.endswith("Give the images, so that they are compared one by one.")


def test_scores_of_one_model_pass() -> None:
    scores = _evaluation(85, 90)
    assert judge.judge_unpaired(scores, scores, margin=0.01).verdict is UNSURE
    assert judge.judge_unpaired(scores, scores, margin=0.01, same_model=True).verdict is PASS


def test_no_images_are_refused() -> None:
    with pytest.raises(TensorError, match="no images came"):
        judge.judge(*predictions(0, wrong=0), LABELS)


# --- the levels of both errors -----------------------------------------------------------------------


def _flip_chances(images: int, lost: float, won: float) -> dict[tuple[int, int], float]:
    """P of every (lost, won) count of a trinomial, up to one in a million in all."""
    stats = pytest.importorskip("scipy.stats")
    most_lost = int(stats.binom.isf(1e-7, images, lost)) + 1
    chances = {}
    for here in range(most_lost + 1):
        rest = images - here
        share = won / (1 - lost)
        most_won = int(stats.binom.isf(1e-7, rest, share)) + 1
        outer = stats.binom.pmf(here, images, lost)
        inner = stats.binom.pmf(np.arange(most_won + 1), rest, share)
        chances |= {(here, there): outer * p for there, p in enumerate(inner)}
    assert sum(chances.values()) > 1 - 1e-6
    return chances


def _verdict_chances(images: int, lost: float, won: float, margin: float) -> dict[Verdict, float]:
    found = dict.fromkeys(Verdict, 0.0)
    for (here, there), p in _flip_chances(images, lost, won).items():
        low = judge.paired_interval(here, there, images, 1.7506861)[0]
        beyond = (here - there) / images > margin + 1e-9
        if low > -margin:
            found[PASS] += p
        elif beyond and statistics.binomial_tail(here, here + there) <= judging.FALSE_ALARM / 3:
            found[FAIL] += p
        else:
            found[UNSURE] += p
    return found


@pytest.mark.parametrize(("images", "flips"), list(itertools.product((100, 300, 800), (0.002, 0.01))))
def test_both_errors_of_top1_by_summing_over_all_outcomes(images: int, flips: float) -> None:
    """Exact: no simulation. The levels are those that the module states."""
    margin = judging.settled_margin(images)
    equal = _verdict_chances(images, flips, flips, margin)
    assert equal[FAIL] <= judging.FALSE_ALARM / 3
    worse = _verdict_chances(images, flips + margin, flips, margin)
    assert worse[PASS] <= judging.MISS
    assert equal[PASS] >= 0.78  # Four times in five, but for the grain of small sets.


def test_the_rule_that_is_summed_is_the_rule_that_judges() -> None:
    for lost, won in ((0, 0), (3, 1), (9, 1), (20, 2), (30, 25)):
        check = judged(*predictions(1000, lost=lost, won=won), margin=0.01)["accuracy"]
        low = judge.paired_interval(lost, won, 1000, 1.7506861)[0]
        assert check.interval is not None
        assert check.interval[0] == pytest.approx(low, abs=1e-6)


def test_false_alarms_of_all_three_checks_together() -> None:
    """A candidate that is as good: 2% of the images flip each way. `tests/slow` has many more repetitions."""
    generator = np.random.default_rng(7)
    alarms = 0
    for _ in range(60):
        truth = np.arange(360) % 12
        before, after = (
            np.where(generator.random(360) < 0.95, truth, generator.integers(0, 12, 360)) for _ in range(2)
        )
        keep = generator.random(360) < 0.6  # What is alike in two trainings.
        after = np.where(keep, before, after)
        alarms += any(check.verdict is FAIL for check in judge.judge(truth, before, after, LABELS))
    assert alarms <= 6  # Binomial of 60 at 5%: more than 6 happens once in a hundred.
