"""The trial on a machine in slow motion."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from edgetl.errors import ConfigError
from edgetl.gate.conditions import level_change
from edgetl.gate.latency import LEAST_SECONDS, race, rest
from edgetl.records.gate import LatencyTrial, Verdict
from tests.gate.fake_clock import FakeMachine

LIMIT = 0.025


def trial(machine: FakeMachine, slower: float = 0.0, ms: float = 3.0, seconds: float = 60.0) -> LatencyTrial:
    return race(
        machine.call(ms),
        machine.call(ms * (1 + slower)),
        limit=LIMIT,
        seconds=seconds,
        clocks=machine.clocks(),
    )


@pytest.mark.parametrize(
    ("slower", "verdict"), [(0.0, "pass"), (-0.3, "pass"), (0.05, "fail"), (0.5, "fail")]
)
def test_what_is_clear_is_told_as_soon_as_it_is(slower: float, verdict: str) -> None:
    found = trial(FakeMachine(), slower)
    assert found.verdict == verdict
    assert LEAST_SECONDS <= found.seconds < 5
    assert found.seconds_needed is None
    assert found.notes == ()
    assert found.interval is not None
    assert found.interval[0] < slower < found.interval[1]
    assert (found.interval[0] > LIMIT) is (verdict == "fail")
    assert found.p99_interval is not None
    assert found.p99_interval[0] < slower < found.p99_interval[1]


def test_samples_are_kept_round_by_round() -> None:
    found = trial(FakeMachine(noise=0.0), 0.05)
    assert found.rounds > 0
    assert len(found.baseline_ms) == len(found.current_ms)
    # Blocks of some 30 ms: ten calls of 3 ms, two blocks a round.
    assert len(found.baseline_ms) == 20 * found.rounds
    assert set(found.baseline_ms) == {3.0}
    assert set(found.current_ms) == {3.15}
    assert found.warmup >= 8


def test_without_a_verdict_it_ends_in_time_and_says_what_it_would_take() -> None:
    found = trial(FakeMachine(noise=0.3), 0.02, seconds=8.0)
    assert found.verdict is Verdict.UNSURE
    assert 7 < found.seconds <= 8
    assert found.seconds_needed is None or found.seconds_needed > 8
    short = trial(FakeMachine(noise=0.08), 0.0, seconds=4.0)
    assert short.verdict is Verdict.UNSURE
    assert short.seconds_needed is not None
    assert trial(FakeMachine(noise=0.08), 0.0, seconds=3 * short.seconds_needed).verdict is Verdict.PASS


def test_a_slow_model_ends_in_time_with_too_few_rounds() -> None:
    found = trial(FakeMachine(), ms=900.0, seconds=20.0)
    assert found.verdict is Verdict.UNSURE
    assert found.rounds == 2
    assert found.interval is None
    assert found.seconds_needed is not None
    assert found.seconds_needed > 100


def test_a_machine_that_slows_down_in_the_middle_is_told_and_harms_no_verdict() -> None:
    machine = FakeMachine(speed=lambda seconds: 1.5 if seconds > 5 else 1.0, noise=0.15)
    found = trial(machine, 0.06, seconds=40)
    assert found.verdict is Verdict.FAIL
    [note] = found.notes
    assert re.match(
        r"After \d s both ran (4|5)\d% slower: it may throttle, or share its processor\. The ratio", note
    )


def test_a_clock_that_goes_backwards_tells_nothing() -> None:
    machine = FakeMachine()
    fast, slow = machine.call(3.0), machine.call(4.0)

    def broken() -> None:
        slow()
        if machine.calls == 400:
            machine.now_ns -= 10**9

    found = race(fast, broken, limit=LIMIT, clocks=machine.clocks())
    assert found.verdict is Verdict.UNSURE
    assert found.p99_change is found.seconds_needed is None
    [note] = [n for n in found.notes if "cannot be trusted" in n]
    assert note.startswith("The clock read -99")


def test_a_wall_clock_that_jumps_is_told() -> None:
    machine = FakeMachine()
    call = machine.call(3.0)

    def set_clock() -> None:
        call()
        if machine.calls == 400:
            machine.wall_offset_ns += 3600 * 10**9

    found = race(call, set_clock, limit=LIMIT, clocks=machine.clocks())
    assert found.verdict is Verdict.PASS
    [note] = found.notes
    assert note.startswith("The wall clock moved by +3600.0 s against the monotonic one after ")


def test_a_model_that_still_gets_faster_is_told() -> None:
    machine = FakeMachine(speed=lambda seconds: 100 / (1 + seconds), noise=0.0)
    assert trial(machine, seconds=20).notes[0] == "The calls still got faster when the warm-up ended."


def test_it_waits_until_the_other_engine_rests() -> None:
    machine = FakeMachine(spin_s=0.05)
    machine.call(3.0)()
    start = machine.now_ns
    assert rest(machine.clocks())
    assert 0.05 <= (machine.now_ns - start) / 1e9 <= 0.065


def test_threads_that_never_rest_are_told() -> None:
    found = trial(FakeMachine(spin_s=10.0), 0.5, seconds=60)
    assert found.verdict is Verdict.FAIL
    [note] = found.notes
    assert re.fullmatch(r"The engine's threads did not come to rest before \d\d of the blocks\.", note)


def test_impossible_limits_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        race(lambda: None, lambda: None, limit=-1, seconds=0)
    assert caught.value.problems == (
        "seconds is 0, expected more than 0.",
        "limit is -1, expected a share from 0 up.",
    )


def test_where_a_level_changes() -> None:
    assert level_change([1.0, 2.0] * 20) == 0
    assert level_change([1.0, 1.1] * 10 + [2.0, 2.1] * 10) == 20
    assert level_change([1.0] * 30) == 0
    assert level_change([]) == 0
    # The statistic by its definition: signs of all pairs across the split.
    values = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0] + [20.0 + i for i in range(20)]
    sums = [sum((a > b) - (a < b) for a in values[:t] for b in values[t:]) for t in range(1, len(values))]
    assert level_change(values) == 1 + max(range(len(sums)), key=lambda t: abs(sums[t]))


def test_heat_that_the_kernel_counts_is_told(tmp_path) -> None:
    from edgetl.gate.conditions import Round, Watch

    count = tmp_path / "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    count.parent.mkdir(parents=True)
    count.write_text("7\n")
    watch = Watch(FakeMachine().clocks(), tmp_path)
    assert watch.see(Round(baseline_ms=3.0, current_ms=3.0, least_ms=3.0))
    assert watch.notes() == ()
    count.write_text("12\n")
    assert watch.notes() == ("The processor throttled 5 times for heat.",)


def test_a_trial_travels_as_json() -> None:
    from edgetl.records.codec import from_json, to_json

    found = replace(trial(FakeMachine()), notes=("odd",))
    assert from_json(LatencyTrial, to_json(found)) == found
