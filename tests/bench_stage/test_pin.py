from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from edgetl.bench.pin import parse_cores, pinned
from edgetl.bench.scenarios import BenchOptions
from edgetl.errors import ConfigError
from edgetl.runtime.engines.onnxruntime import OnnxBackend, import_engine
from tests.bench_stage.bundles import SIZE, write_model

CORES = sorted(os.sched_getaffinity(0))


def _affinity(thread: int) -> set[int]:
    return os.sched_getaffinity(thread)


def _tasks() -> set[int]:
    return {int(entry.name) for entry in Path("/proc/self/task").iterdir()}


@pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")
def test_each_of_the_engine_s_threads_gets_a_core_of_its_own(tmp_path: Path) -> None:
    write_model(tmp_path / "model.onnx")
    import_engine()  # Starts an idle thread once.
    first, second, before = CORES[1], CORES[0], _tasks()
    with pinned((first, second)) as pin, OnnxBackend(tmp_path / "model.onnx", threads=2) as backend:
        assert _affinity(0) == {first, second}
        assert pin.spread() == (first, second)
        assert _affinity(0) == {first}
        # The system's own word for it, and still so after calls.
        backend.run(np.zeros((1, 3, SIZE, SIZE), np.float32))
        [engine] = _tasks() - before
        assert _affinity(engine) == {second}
    assert _affinity(0) == set(CORES)


def test_an_engine_on_one_thread_has_no_other(tmp_path: Path) -> None:
    write_model(tmp_path / "model.onnx")
    with pinned(CORES[:1]) as pin, OnnxBackend(tmp_path / "model.onnx", threads=1):
        assert pin.spread() == (CORES[0],)


def test_without_cores_nothing_is_moved() -> None:
    with pinned(()) as pin:
        assert pin.spread() == ()
        assert _affinity(0) == set(CORES)


def test_affinity_comes_back_after_an_error() -> None:
    with pytest.raises(RuntimeError, match="broken"), pinned(CORES[:1]):
        raise RuntimeError("broken")
    assert _affinity(0) == set(CORES)


def test_a_core_that_is_not_there_is_named() -> None:
    message = r"--pin: core 4096 is not among those that this process may use \(0"
    with pytest.raises(ConfigError, match=message), pinned((CORES[0], 4096)):
        pass


@pytest.mark.parametrize(("listed", "cores"), [("0", (0,)), ("2,0", (2, 0)), ("0,2-4", (0, 2, 3, 4))])
def test_cores_are_listed_as_taskset_lists_them(listed: str, cores: tuple[int, ...]) -> None:
    assert parse_cores(listed) == cores


@pytest.mark.parametrize("listed", ["", "a", "0,", "0,0", "3-1", "-1", "0-", "1.5"])
def test_other_lists_are_refused(listed: str) -> None:
    with pytest.raises(ConfigError, match=f"--pin: got {listed!r}, expected cores such as 0,1 or 2-3"):
        parse_cores(listed)


def test_the_engine_gets_as_many_threads_as_cores_are_pinned() -> None:
    assert BenchOptions(pin=(0, 3)).engine_threads == 2
    assert BenchOptions(pin=(0, 3), threads=1).engine_threads == 1
