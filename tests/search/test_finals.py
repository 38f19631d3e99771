"""Which candidates are run to their end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("optuna", reason="optuna is not installed: pip install optuna")

import optuna

from edgetl import config
from edgetl.config import Target
from edgetl.inputs.image import Interpolation
from edgetl.progress import SILENT
from edgetl.records.scores import Score
from edgetl.records.search import Choice, FinalRun, SearchBudget, TrialState
from edgetl.report.run import shipped_variant
from edgetl.search import finals
from edgetl.search.finals import Finals, allowed_drop, answers, candidates
from edgetl.search.settings import Prepared
from edgetl.search.space import Space
from edgetl.search.stage import _reason, with_frontier
from edgetl.search.study import TooSlow
from edgetl.search.widths import AIM, Timing
from tests.report.conftest import evaluation, latency, make_report
from tests.search.records import TRIALS, final, trial

KNOWN = Prepared(
    key="",
    metric="top1",
    teacher=Score(value=0.98, low=0.95, high=0.995),
    space=Space(
        networks=("teacher",), sizes=(64,), depths=(0.0,), interpolations=(Interpolation.BICUBIC,), least=0.02
    ),
    reference_ms=10.0,
    whole=Timing(macs=1e9, ms=5.0),
    smallest=Timing(macs=1e6, ms=0.1),
    least="it",
    epochs=2,
)
SURE = Score(value=0.98)
LEAST = 0.15
"""The smallest share that a candidate's network can have."""


class Fake(Finals):
    """Ordinary runs that take a factor of what the trials took."""

    def __init__(self, factors: list[float], budget: SearchBudget, times: dict[int | None, float]) -> None:
        super().__init__(
            recipe=config.parse({}),
            budget=budget,
            known=KNOWN,
            teachers=None,  # type: ignore[arg-type]
            clock=None,  # type: ignore[arg-type]
            slow=TooSlow(optuna.create_study()),
            least=lambda _: LEAST,
            epochs=2,
            out=Path(),
            progress=SILENT,
        )
        self.factors, self.times, self.shares = factors, times, list[float]()

    def _final(self, number: int | None, choice: Choice) -> FinalRun:
        ms = self.times.get(number, 0.9) * self.factors[len(self.done)]
        self.shares.append(choice.share)
        problems = () if ms <= self.budget.latency_ms else (f"{ms:.3g} ms",)
        return final(number, ms, choice=choice, problems=problems)


class Cut(Fake):
    """Ordinary runs whose cut networks take so long by their share of the multiply-accumulates."""

    def __init__(self, ms: Callable[[float], float], study: optuna.Study) -> None:
        super().__init__([], SearchBudget(latency_ms=1.0), {})
        self.took, self.slow, self.learned = ms, TooSlow(study), list[float]()

    def _final(self, number: int | None, choice: Choice) -> FinalRun:
        return Finals._final(self, number, choice)

    def _run(self, choice: Choice, *, judged: bool) -> Any:
        self.shares.append(choice.share)
        if judged and (ms := self.took(choice.share)) > self.budget.latency_ms:
            self.slow.add(choice, ms)
            raise finals._OverBudget
        self.learned.append(choice.share)

    def _judged(self, number: int | None, choice: Choice, outcome: Any, start: float) -> FinalRun:
        return final(number, self.took(choice.share), choice=choice)


def runs(factors: list[float], trials: Any = TRIALS) -> Fake:
    times = {one.number: one.ms or 0.0 for one in trials}
    fake = Fake(factors, SearchBudget(latency_ms=1.0), times)
    fake.run(trials)
    return fake


def test_the_best_trained_one_comes_first() -> None:
    assert [one.number for one in candidates(TRIALS, SURE)] == [0, 1]
    stopped = [replace(one, state=TrialState.STOPPED) for one in TRIALS[:3]]
    assert [one.number for one in candidates(stopped, SURE)] == [0, 1, 2]
    stopped = [replace(one, state=TrialState.STOPPED) for one in TRIALS[:1]]
    assert [one.number for one in candidates([*stopped, *TRIALS[1:]], SURE)] == [0, 1], (
        "it was better at once"
    )
    assert candidates([trial(1, 0.7, 0.9), trial(0, 0.8, 0.9)], SURE)[0].number == 1
    assert TRIALS[1].choice.size == 48


def test_of_scores_that_the_split_cannot_tell_apart_the_least_loss_comes_first() -> None:
    tried = [trial(0, 0.9, 0.96, loss=0.3), trial(1, 0.9, 0.95, loss=0.2), trial(2, 0.9, 0.90, loss=0.1)]
    orders = {
        width: [one.number for one in candidates(tried, Score(value=0.98, low=0.98 - width, high=0.98))]
        for width in (0.0, 0.08, 0.4)
    }
    assert orders == {0.0: [0, 1, 2], 0.08: [1, 0, 2], 0.4: [2, 1, 0]}


def test_the_answer_says_why_it_is_the_one() -> None:
    teacher = Score(value=0.98, low=0.86, high=0.99)

    def reason(number: int | None) -> str:
        return _reason(final(number, 0.9), TRIALS, 1.0, replace(KNOWN, teacher=teacher))

    assert "the best of its trials (" in _reason(final(0, 0.9), TRIALS, 1.0, replace(KNOWN, teacher=SURE))
    assert "the least loss of the 2 trials whose scores are equal within one standard error (" in reason(0)
    assert "the best of its trials but for those whose run takes too long (" in reason(1)
    assert "narrower than a trial whose run took too long (" in reason(None)


def test_one_run_is_enough_where_it_holds() -> None:
    assert [one.trial for one in runs([1.05]).done] == [0]


def test_where_it_is_too_slow_the_next_is_one_that_should_not_be() -> None:
    fake = runs([1.3, 1.3])
    assert [one.trial for one in fake.done] == [0, 1]
    assert fake.done[-1].holds


def test_what_is_slightly_too_slow_is_run_narrower_before_another_one() -> None:
    fake = runs([1.05 / TRIALS[0].ms, 1.0])
    assert [one.trial for one in fake.done] == [0, None]
    assert fake.shares[1] == pytest.approx(0.2 * (AIM / 1.05) ** (1 / KNOWN.power), rel=1e-2)


def test_what_only_just_holds_is_run_a_little_narrower_at_once() -> None:
    fake = runs([1.0], [trial(0, 0.96, 0.97), trial(1, 0.5, 0.6)])
    assert [one.trial for one in fake.done] == [0]
    assert fake.shares == pytest.approx([0.2 * (AIM / 0.96) ** (1 / KNOWN.power)], rel=1e-2)
    answer = _reason(fake.done[0], tuple(TRIALS), 1.0, KNOWN)
    assert ", a little narrower (" in answer
    assert "narrower" not in _reason(final(0, 0.9), TRIALS, 1.0, KNOWN)


def test_where_there_is_no_other_it_is_run_narrower() -> None:
    fake = runs([1.3, 1.0], TRIALS[:1])
    assert [one.trial for one in fake.done] == [0, None]
    assert fake.shares[1] < fake.shares[0] == 0.2


def test_none_is_run_narrower_than_it_can_be() -> None:
    fake = runs([3.0, 2.0, 2.0], TRIALS[:1])
    assert fake.shares == [0.2, LEAST]


def test_what_is_cut_and_too_slow_is_cut_anew_before_it_learns() -> None:
    study = optuna.create_study()
    cut = Cut(lambda share: 1.02 * share / 0.2, study)
    (last,) = cut.run(TRIALS[:1])
    assert (last.trial, last.holds) == (0, True)
    assert cut.shares == pytest.approx([0.2, 0.2 * (AIM / 1.02) ** (1 / KNOWN.power)], rel=1e-2)
    assert cut.learned == cut.shares[1:]
    assert ", a little narrower (" in _reason(last, tuple(TRIALS), 1.0, KNOWN)
    again = Cut(lambda share: 1.02 * share / 0.2, study)
    assert again.run(TRIALS[:1]) == (last,)
    assert again.shares == cut.learned, "what was too slow is not cut again"


def test_a_cut_that_cannot_be_narrower_learns() -> None:
    cut = Cut(lambda _: 3.0, optuna.create_study())
    cut._final(0, TRIALS[0].choice)
    assert cut.learned == [LEAST]
    assert cut.shares == [0.2, LEAST, LEAST]


def test_a_candidate_is_narrowed_as_others_of_its_kind_were_timed() -> None:
    steep = [trial(0, 0.5, 0.9), trial(1, 1.0, None, choice=replace(TRIALS[0].choice, share=0.4))]
    fake = runs([1.1 / 0.5, 1.0], steep)
    assert fake.shares == pytest.approx([0.2, 0.2 * AIM / 1.1], rel=1e-2)


def test_it_does_not_go_on_for_ever() -> None:
    assert len(runs([2.0, 4.0, 4.0, 4.0]).done) == 3
    times = {one.number: one.ms or 0.0 for one in TRIALS}
    fake = Fake([2.0, 4.0, 4.0, 4.0], SearchBudget(latency_ms=1.0), times)
    assert len(fake.run(TRIALS, lambda: True)) == 2


def test_nothing_is_run_where_nothing_learned() -> None:
    assert runs([], TRIALS[3:]).done == []


def test_the_floor_becomes_the_allowed_drop() -> None:
    for floor, drop in ((None, None), (0.95, 0.03), (0.99, 0.0)):
        assert allowed_drop(SearchBudget(latency_ms=1.0, floor=floor), KNOWN.teacher) == drop


def test_the_frontier_is_of_those_that_learned_to_their_end() -> None:
    slower = trial(7, 0.95, 0.96)
    marked = with_frontier([*(replace(one, frontier=False) for one in TRIALS), slower])
    assert [one.number for one in marked if one.frontier] == [0, 1]


def test_a_variant_for_litert_answers_where_it_keeps_the_floor_and_is_faster() -> None:
    measured = make_report().measure
    own = shipped_variant(measured)
    slow = own.latency.p50_ms

    def answer(ms: float, top1: float) -> str:
        other = replace(
            own,
            name="int8-litert",
            target=str(Target.LITERT),
            val=evaluation(("a", "b"), top1),
            latency=latency(ms),
        )
        return answers(replace(measured, variants=(*measured.variants, other)), "top1", 0.8).name

    assert answer(slow / 2, 0.99) == "int8-litert"
    assert answer(slow / 2, 0.3) == answer(slow * 2, 0.99) == own.name
