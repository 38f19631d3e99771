from __future__ import annotations

import threading

import pytest

from edgetl.data.parallel import in_threads, threads
from edgetl.progress import SILENT
from tests.data.images import Recorder


def test_results_come_in_order_and_in_chunks() -> None:
    recorder = Recorder()
    chunks = list(in_threads(lambda n: n * n, range(10), description="x", progress=recorder, chunk=4))
    assert chunks == [[0, 1, 4, 9], [16, 25, 36, 49], [64, 81]]
    assert recorder.steps == 10
    assert list(in_threads(lambda n: n, [], description="x", progress=SILENT)) == []


def test_first_error_drops_what_has_not_begun() -> None:
    done: list[int] = []
    lock = threading.Lock()

    def work(number: int) -> None:
        if number == 0:
            raise ValueError("number 0")
        with lock:
            done.append(number)

    with pytest.raises(ValueError, match="number 0"):
        list(in_threads(work, range(1000), description="x", progress=SILENT, chunk=1))
    assert len(done) <= 2 * threads() + 1


def test_leaving_early_stops_the_work() -> None:
    done: list[int] = []
    for _ in in_threads(done.append, range(1000), description="x", progress=SILENT, chunk=1):
        break
    assert len(done) <= 4 * threads() + 1
