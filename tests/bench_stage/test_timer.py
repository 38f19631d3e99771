from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from edgetl.bench.timer import BLOCK, SETTLE, block_of, quiet_gc, time_calls, time_interleaved
from edgetl.errors import ConfigError
from edgetl.progress import ProgressTask


class FakeClock:
    """A clock in nanoseconds that only calls and sleeps move."""

    def __init__(self) -> None:
        self.now = 1_000

    def __call__(self) -> int:
        return self.now

    def work(self, milliseconds: float) -> None:
        self.now += round(milliseconds * 1e6)

    def sleep(self, seconds: float) -> None:
        self.now += max(20_000, round(seconds * 1e9))


class CountingProgress:
    """Counts steps."""

    def __init__(self) -> None:
        self.total = self.steps = self.updates = 0

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[ProgressTask]:
        self.total = total
        yield self  # type: ignore[misc]

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.steps += steps
        self.updates += 1

    def message(self, text: str) -> None: ...

    def warning(self, text: str) -> None: ...


def test_samples_are_milliseconds_of_counted_calls_alone() -> None:
    clock = FakeClock()
    durations = iter([50.0, 50.0, 1.0, 2.0, 3.0])
    samples = time_calls(lambda: clock.work(next(durations)), warmup=2, runs=3, clock=clock)
    assert samples == pytest.approx([1.0, 2.0, 3.0])


def test_every_round_calls_each_once_in_a_shuffled_order() -> None:
    clock, seen = FakeClock(), []
    calls = {name: (lambda name=name: (seen.append(name), clock.work(1.0))) for name in "abc"}
    samples = time_interleaved(calls, warmup=4, runs=60, seed=7, clock=clock)
    rounds = [tuple(seen[i : i + 3]) for i in range(0, len(seen), 3)]
    assert len(rounds) == 64
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len(set(rounds)) == 6
    assert {name: len(values) for name, values in samples.items()} == {"a": 60, "b": 60, "c": 60}
    first = list(seen)
    seen.clear()
    time_interleaved(calls, warmup=4, runs=60, seed=7, clock=clock)
    assert seen == first


def test_interleaving_shares_a_machine_that_slows_down() -> None:
    clock = FakeClock()
    speed = iter(range(1, 10_000))
    calls = {name: (lambda: clock.work(next(speed) / 100)) for name in ("base", "same")}
    samples = time_interleaved(calls, warmup=0, runs=200, clock=clock)
    assert sum(samples["same"]) / sum(samples["base"]) == pytest.approx(1.0, abs=0.01)


def test_garbage_collection_is_off_while_timing_and_back_afterwards() -> None:
    states = []
    assert gc.isenabled()
    time_calls(lambda: states.append(gc.isenabled()), warmup=1, runs=3)
    assert states == [False] * 4
    assert gc.isenabled()

    def fail() -> None:
        raise RuntimeError("broken model")

    with pytest.raises(RuntimeError, match="broken model"):
        time_calls(fail, warmup=0, runs=1)
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with quiet_gc():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_progress_is_told_seldom() -> None:
    progress = CountingProgress()
    time_calls(lambda: None, warmup=10, runs=990, progress=progress)
    assert (progress.total, progress.steps) == (1000, 1000)
    assert progress.updates <= 20


def test_the_real_clock_measures_a_sleep() -> None:
    samples = time_calls(lambda: time.sleep(0.005), warmup=0, runs=3)
    assert all(4.9 < sample < 5000 for sample in samples)


def test_the_pause_is_not_counted() -> None:
    samples = time_interleaved({"a": lambda: None}, warmup=0, runs=2, pause_s=0.02)["a"]
    assert min(samples) < 15


@pytest.mark.parametrize(("calls", "runs", "warmup"), [({}, 1, 0), ({"a": int}, 0, 0), ({"a": int}, 1, -1)])
def test_nothing_to_time_is_refused(calls: dict, runs: int, warmup: int) -> None:
    message = f"got {len(calls)} calls, {runs} runs, {warmup} warm-ups"
    with pytest.raises(ConfigError, match=message):
        time_interleaved(calls, warmup=warmup, runs=runs)


def test_blocks_are_timed_after_settling_and_stay_paired() -> None:
    made: list[str] = []
    calls = {name: (lambda name=name: made.append(name)) for name in "ab"}
    samples = time_interleaved(calls, warmup=2, runs=7, settle=1, block=3)
    assert {name: len(values) for name, values in samples.items()} == {"a": 9, "b": 9}
    blocks = ["".join(made[at : at + 4]) for at in range(0, len(made), 4)]
    assert len(blocks) == 2 * 4
    assert set(blocks) == {"aaaa", "bbbb"}
    assert all(
        {first, second} == {"aaaa", "bbbb"} for first, second in zip(blocks[::2], blocks[1::2], strict=True)
    )


def test_a_block_of_short_calls_is_longer_and_that_of_long_calls_is_not() -> None:
    assert block_of({"long": lambda: time.sleep(0.02)}) == (SETTLE, BLOCK)
    assert block_of({"long": lambda: time.sleep(0.02), "none": lambda: None}) == (10, 30)
