from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from edgetl.history import read, spread
from tests.history.records import MACHINE, write

AT = (MACHINE.fingerprint, "flowers", "int8", "cpu")


def _medians(level: float, count: int, deviation: float = 0.02, seed: int = 0) -> list[float]:
    return list(level * np.exp(np.random.default_rng(seed).normal(0, deviation, count)))


def test_the_spread_is_the_deviation_of_logarithms(tmp_path: Path) -> None:
    medians = _medians(5.0, 12, 0.03)
    write(tmp_path / "h", medians)
    assert spread(tmp_path / "h", *AT) == pytest.approx(np.log(medians).std(ddof=1))


def test_fewer_than_five_runs_and_other_subjects_give_no_spread(tmp_path: Path) -> None:
    path = tmp_path / "h"
    write(path, [5.0, 5.1, 5.0, 5.2])
    assert spread(path, *AT) is None
    write(path, [5.1], start=9)
    assert spread(path, *AT) == pytest.approx(np.log([5.0, 5.1, 5.0, 5.2, 5.1]).std(ddof=1))
    assert spread(path, "another machine", *AT[1:]) is None
    assert spread(path, MACHINE.fingerprint, "fruit", "int8", "cpu") is None
    assert spread(path, MACHINE.fingerprint, "flowers", "fp32", "cpu") is None
    assert spread(path, *AT[:3], "openvino") is None
    assert spread(path, *AT, threads=7) is None


def test_other_scenarios_and_thread_counts_are_not_mixed_in(tmp_path: Path) -> None:
    path = tmp_path / "h"
    write(path, [5.0] * 6)
    write(path, [50.0, 80.0] * 4, scenario="offline")
    write(path, [9.0, 1.0, 9.0, 1.0, 5.0], threads=1)
    assert spread(path, *AT) == 0.0
    assert spread(path, *AT, threads=1) > 0.5


def test_a_regression_in_the_code_does_not_widen_the_spread_but_the_machine_s_moods_do(
    tmp_path: Path,
) -> None:
    medians = _medians(5.0, 20) + _medians(6.5, 20, seed=1)
    write(tmp_path / "code", medians, shas="a" * 20 + "b" * 20)
    write(tmp_path / "machine", medians)
    parts = [np.log(medians[:20]), np.log(medians[20:])]
    pooled = math.sqrt(sum(((p - p.mean()) ** 2).sum() for p in parts) / 38)
    assert spread(tmp_path / "code", *AT) == pytest.approx(pooled)
    assert spread(tmp_path / "machine", *AT) == pytest.approx(np.log(medians).std(ddof=1))
    assert pooled < 0.03 < 0.12 < spread(tmp_path / "machine", *AT)


def test_a_change_of_level_is_dated_and_blamed(tmp_path: Path) -> None:
    medians = _medians(5.0, 15, 0.005) + _medians(6.0, 10, 0.005, seed=1)
    write(tmp_path / "h", medians, shas="a" * 15 + "b" * 10)
    [trend] = read(tmp_path / "h").trends
    [change] = trend.changes
    assert change.index == 15
    assert change.after_ms / change.before_ms == pytest.approx(1.2, rel=0.01)
    assert change.sentence.startswith(
        f"{change.after_ms / change.before_ms - 1:.1%} slower from 2026-11-16T12:00:00Z on: 5"
    )
    assert change.sentence.endswith("ms, between commits aaaaaaaaa and bbbbbbbbb.")
    write(tmp_path / "same", medians)
    [same] = read(tmp_path / "same").trends[0].changes
    assert same.sentence.endswith("the bundle is the same, so the machine did it.")


def test_noise_alone_seldom_moves_the_level(tmp_path: Path) -> None:
    for seed in range(20):
        write(tmp_path / str(seed), _medians(5.0, 12, 0.05, seed))
    moved = sum(bool(read(tmp_path / str(seed)).trends[0].changes) for seed in range(20))
    assert moved <= 2
