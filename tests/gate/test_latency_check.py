"""The latency line's sentences and verdicts."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from edgetl.bench.statistics import summarise
from edgetl.gate.latency_check import UNKNOWN_SPREAD, check_stored, check_trial
from edgetl.records.gate import LatencyTrial, Verdict
from edgetl.records.measured import Latency


def latency(ms: float) -> Latency:
    return summarise([ms] * 20, scenario="single-stream", batch=1, threads=2, warmup=20)


def trial(**changes: object) -> LatencyTrial:
    values: dict = {
        "verdict": Verdict.FAIL,
        "limit": 0.025,
        "change": 0.052,
        "interval": (0.031, 0.074),
        "confidence": 0.99,
        "p99_change": 0.1,
        "p99_interval": (-0.2, 0.4),
        "rounds": 31,
        "seconds": 6.2,
        "seconds_needed": None,
        "warmup": 50,
        "baseline_ms": (3.0,),
        "current_ms": (3.16,),
        "notes": (),
    }
    return LatencyTrial(**{**values, **changes})


def test_a_trial_s_sentence_says_how_sure_it_is() -> None:
    check = check_trial(latency(3.0), latency(3.16), trial())
    assert check.sentence == (
        "Median latency went from 3 ms to 3.16 ms: +5.2% (99% interval +3.1% to +7.4%; 31 rounds in turn, 6 s), "
        "p99 +10.0% (95% interval -20.0% to +40.0%); an increase of 2.5% is allowed: FAILS."
    )
    assert (check.change, check.interval, check.verdict, check.judged) == (
        0.052,
        (0.031, 0.074),
        Verdict.FAIL,
        True,
    )


def test_an_unsure_trial_says_what_it_would_take_and_what_was_odd() -> None:
    unsure = trial(verdict=Verdict.UNSURE, seconds_needed=143.2, notes=("The clock was set.",))
    assert check_trial(latency(3.0), latency(3.16), unsure).sentence.endswith(
        "an increase of 2.5% is allowed: CANNOT TELL. Some 150 s of rounds would: --seconds 150. The clock was set."
    )
    never = trial(verdict=Verdict.UNSURE, interval=None)
    sentence = check_trial(latency(3.0), latency(3.16), never).sentence
    assert "(too few rounds for an interval; 31 rounds in turn, 6 s), p99 +10.0%" in sentence
    broken = trial(verdict=Verdict.UNSURE, p99_change=None, p99_interval=None)
    assert "6 s); an increase of 2.5% is allowed: CANNOT TELL. Mend the clock first." in (
        check_trial(latency(3.0), latency(3.16), broken).sentence
    )
    assert sentence.endswith(
        "CANNOT TELL. No time within an hour would; measure on a quieter machine, or allow another increase."
    )


def test_a_stored_figure_is_held_to_the_spread_between_runs() -> None:
    check = check_stored(latency(3.0), latency(3.6), 0.025, spread=0.02, judged=True)
    assert check.verdict is Verdict.FAIL
    assert check.sentence == (
        "Median latency went from 3 ms to 3.6 ms: +20.0% (99% interval +5.3% to +36.7%: the machine differs from "
        "itself by 2.0% between runs, as its history says); an increase of 2.5% is allowed: FAILS."
    )
    assert check.interval is not None
    # An estimated spread of two runs' difference, from five runs.
    low, high = stats.t.interval(0.99, df=4, loc=math.log(1.2), scale=0.02 * math.sqrt(2))
    assert check.interval == pytest.approx((math.expm1(low), math.expm1(high)), rel=1e-4)


def test_a_stored_figure_of_an_unknown_machine_rarely_tells() -> None:
    assert pytest.approx(0.26) == UNKNOWN_SPREAD * math.sqrt(2)
    check = check_stored(latency(3.0), latency(3.3), 0.025, spread=None, judged=True)
    assert check.verdict is Verdict.UNSURE
    low, high = stats.norm.interval(0.99, loc=math.log(1.1), scale=0.26)
    assert check.interval == pytest.approx((math.expm1(low), math.expm1(high)), rel=1e-9)
    assert (
        "between runs, as others do; name a history of five runs or more (--history) to know)"
        in check.sentence
    )
    assert check.sentence.endswith("CANNOT TELL. Time both bundles in one run: --against OTHER_BUNDLE.")
    assert check_stored(latency(3.0), latency(9.0), 0.025, spread=None, judged=True).verdict is Verdict.FAIL
    assert check_stored(latency(3.0), latency(1.0), 0.025, spread=None, judged=True).verdict is Verdict.PASS


def test_another_machine_s_figure_is_shown_and_not_judged() -> None:
    check = check_stored(latency(3.0), latency(30.0), 0.025, spread=None, judged=False)
    assert (check.judged, check.verdict) == (False, Verdict.PASS)
    assert check.sentence.endswith("not judged, since the machines differ.")
