from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import pytest

from edgetl.bench import threads
from edgetl.bench.threads import SELDOM, numbers_of, time_threads


def _sleeper(ms: float, counted: Counter[str], name: str) -> Callable[[], None]:
    def call() -> None:
        counted[name] += 1
        time.sleep(ms / 1000)

    return call


def _timed(**calls: dict[int, float]) -> tuple[dict[str, threads.ThreadTimes], Counter[str]]:
    counted: Counter[str] = Counter()
    bound = {
        name: {number: _sleeper(ms, counted, f"{name}/{number}") for number, ms in by.items()}
        for name, by in calls.items()
    }
    return time_threads(bound, warmup=10, runs=120, pause_s=0.0, settle=1, block=5), counted


def test_one_and_the_most_are_tried() -> None:
    assert [numbers_of(most) for most in (1, 2, 8)] == [(1,), (1, 2), (1, 8)]


def test_each_is_timed_with_its_better_number_and_the_other_one_seldom() -> None:
    found, counted = _timed(small={1: 0.2, 2: 0.6}, large={1: 0.9, 2: 0.3}, gpu={2: 0.2})
    assert {name: (t.threads, t.other_threads) for name, t in found.items()} == {
        "small": (1, 2),
        "large": (2, 1),
        "gpu": (2, None),
    }
    assert {len(t.samples_ms) for t in found.values()} == {120}
    assert 0 < len(found["small"].other_ms) <= 120 // SELDOM + 5
    assert found["gpu"].other_ms == ()
    # What clearly loses costs a fraction: the trial's rounds, and each eighth of the others.
    assert counted["small/2"] < 0.45 * counted["small/1"]


def test_where_both_are_as_fast_the_smaller_number_is_taken() -> None:
    found, counted = _timed(even={1: 0.5, 2: 0.5})
    assert found["even"].threads == 1
    assert counted["even/2"] < 0.6 * counted["even/1"]


@pytest.mark.parametrize(
    ("few", "many", "expected"),
    [
        ([1.0] * 20, [2.0] * 20, (1, True)),
        ([2.0] * 20, [1.0] * 20, (2, True)),
        ([1.0] * 20, [0.99] * 20, (1, False)),
        ([1.0, 2.0] * 10, [1.9, 0.8] * 10, (1, False)),
        ([0.0] * 20, [0.0] * 20, (1, True)),
    ],
)
def test_a_second_thread_must_pay(few: list[float], many: list[float], expected: tuple[int, bool]) -> None:
    number, sure = threads._better((1, 2), few, many)
    assert sure is expected[1]
    if sure or few[0] == few[1]:
        assert number == expected[0]
