"""Batches: who is answered together, of what size, and what one request's fault does to the others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgetl
from edgetl.bundle.pack import VariantSource, pack
from edgetl.deploy.server import lane as lanes
from edgetl.deploy.server.answers import Answer, Refusal
from edgetl.deploy.server.lane import Lane, Rows
from edgetl.deploy.server.metrics import Counter, Histogram, Metrics
from edgetl.deploy.server.options import Batching
from edgetl.runtime import Session
from tests.bundles import contents
from tests.onnx_models import SIZE, classifier


class Job:
    """Its answer is the first logit of each of its rows."""

    def __init__(self, *rows: Any, wait: threading.Event | None = None, fail: str = "") -> None:
        self.images, self.wait, self.fail = rows, wait, fail

    def rows(self, session: Session) -> Rows:
        if self.wait is not None:
            assert self.wait.wait(30)
        if self.fail == "rows":
            raise Refusal(400, "no")
        return Rows(images=self.images)

    def answer(self, session: Session, outputs: Mapping[str, np.ndarray], rows: Rows) -> Answer:
        if self.fail == "answer":
            raise RuntimeError("a bug")
        found = outputs["logits"][:, 0] if outputs else np.zeros(0)
        return Answer(body=found.astype("<f4").tobytes())


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


@contextmanager
def lane(path: Path, batching: Batching | None = None, threads: int = 1) -> Iterator[tuple[Lane, Metrics]]:
    metrics = Metrics()
    found = Lane(edgetl.load(path, threads=threads), "m", batching or Batching(), metrics)
    try:
        yield found, metrics
    finally:
        found.close()


def batches(metrics: Metrics) -> tuple[int, float]:
    """Calls of the engine, and images in all of them."""
    lines = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in metrics.batches.lines()}
    return int(lines['edgetl_batch_images_count{model="m"}']), lines['edgetl_batch_images_sum{model="m"}']


def ask(lane: Lane, jobs: Callable[[], list[Any]]) -> list[Any]:
    async def all_of() -> list[Any]:
        return await asyncio.gather(*map(lane.submit, jobs()), return_exceptions=True)

    return asyncio.run(all_of())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lane")
    pack(contents(folder), folder / "b.edgetl")
    return folder / "b.edgetl"


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose engine takes four images, no more and no fewer."""
    folder = tmp_path_factory.mktemp("fixed")
    parts = contents(folder)
    source = VariantSource(name="fp32", precision="fp32", target="any", model=classifier(batch=4))
    golden = replace(parts.golden, outputs={"fp32": parts.golden.outputs["fp32"]})
    pack(replace(parts, variants=[source], golden=golden), folder / "b.edgetl")
    return folder / "b.edgetl"


def wanted(path: Path, rows: list[np.ndarray]) -> np.ndarray:
    with edgetl.load(path, threads=1) as session:
        return session.run(np.stack(rows))["logits"][:, 0]


@pytest.mark.parametrize("threads", [1, 2])
def test_every_request_gets_its_own_rows(threads: int, bundle: Path) -> None:
    rows = [pixels(seed) for seed in range(12)]
    right = wanted(bundle, rows)
    with lane(bundle, threads=threads) as (found, _):
        # One, several, none and floats beside bytes, in every mixture that comes.
        answers = ask(
            found,
            lambda: [Job(rows[0]), Job(), Job(*rows[1:8]), *(Job(row) for row in rows[8:]), Job(*rows[:3])],
        )
    values = [np.frombuffer(answer.body, "<f4") for answer in answers]
    assert [len(value) for value in values] == [1, 0, 7, 1, 1, 1, 1, 3]
    assert np.concatenate([values[0], *values[2:7]]) == pytest.approx(right, abs=1e-5)
    assert values[-1] == pytest.approx(right[:3], abs=1e-5)


def test_what_waits_together_is_answered_together(bundle: Path) -> None:
    gate = threading.Event()
    with lane(bundle, Batching(max_batch=8)) as (found, metrics):
        first = [Job(pixels(0), wait=gate)]

        def jobs() -> list[Any]:
            threading.Timer(0.2, gate.set).start()
            return first + [Job(pixels(seed)) for seed in range(1, 9)]

        ask(found, jobs)
        calls, images = batches(metrics)
    assert images == 9
    assert calls <= 3  # The first may be alone, with all or with some of the others.


def test_one_s_fault_is_not_the_others(bundle: Path) -> None:
    gate = threading.Event()
    jobs = [
        Job(pixels(0), wait=gate),
        Job(pixels(1), fail="rows"),
        Job(pixels(2)),
        Job(pixels(3), fail="answer"),
        Job(pixels(4)),
    ]
    with lane(bundle, Batching(max_batch=8)) as (found, _):

        def all_of() -> list[Any]:
            threading.Timer(0.1, gate.set).start()
            return jobs

        answers = ask(found, all_of)
        assert [type(one) for one in answers] == [Answer, Refusal, Answer, RuntimeError, Answer]
        # The engine's own fault is every one's, and the lane goes on.
        wrong = ask(found, lambda: [Job(np.zeros((3, 5), np.uint8))])
        assert isinstance(wrong[0], RuntimeError)
        assert isinstance(ask(found, lambda: [Job(pixels(5))])[0], Answer)


def test_an_engine_of_a_fixed_batch_gets_that_many(fixed: Path) -> None:
    rows = [pixels(seed) for seed in range(6)]
    with lane(fixed, Batching(max_batch=2)) as (found, _):
        assert found.max_batch == 4
        answers = ask(found, lambda: [Job(row) for row in rows])
    values = np.concatenate([np.frombuffer(answer.body, "<f4") for answer in answers])
    with edgetl.load(fixed, threads=1) as session:
        right = session.run(np.stack(rows[:4]))["logits"][:, 0]
        assert session.predict(rows[0]).label  # One image alone, too.
    assert values[:4] == pytest.approx(right, abs=1e-5)


def test_a_gpu_s_batch_waits_for_what_is_being_read_and_not_longer(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OnGpu:
        on_cpu = False

    monkeypatch.setattr(lanes, "engine_of", lambda target: OnGpu)
    with lane(bundle, Batching(max_batch=4, max_wait_ms=400.0)) as (found, metrics):

        async def work() -> list[Any]:
            loop = asyncio.get_running_loop()
            began = loop.time()
            alone = await found.submit(Job(pixels(0)))  # Nobody is coming: no wait.
            spent = loop.time() - began
            with found.expected():
                first = found.submit(Job(pixels(1)))
                await asyncio.sleep(0.05)
                second = found.submit(Job(pixels(2)))
            both = await asyncio.gather(first, second)
            with found.expected():  # Somebody who never comes is waited for up to the bound.
                began = loop.time()
                late = await found.submit(Job(pixels(3)))
                waited = loop.time() - began
            assert spent < 0.3
            assert 0.3 < waited < 5.0
            return [alone, *both, late]

        answers = asyncio.run(work())
        assert all(isinstance(one, Answer) for one in answers)
        assert batches(metrics) == (3, 4)


def test_a_request_that_waited_too_long_is_told_to_come_back(bundle: Path) -> None:
    gate = threading.Event()
    with lane(bundle, Batching(max_batch=1, seconds=0.05)) as (found, _):

        def jobs() -> list[Any]:
            threading.Timer(0.3, gate.set).start()
            return [Job(pixels(0), wait=gate), Job(pixels(1))]

        first, late = ask(found, jobs)
    assert isinstance(first, Answer)
    assert (late.status, late.headers["retry-after"]) == (429, "1")
    assert "The request waited 0.05 s for m, which has too much to do. Try again in 1 s." in late.message


def test_a_lane_that_closes_answers_what_waits(bundle: Path) -> None:
    async def work() -> list[Any]:
        found = Lane(edgetl.load(bundle, threads=1), "m", Batching(), Metrics())
        waiting = [found.submit(Job(pixels(seed))) for seed in range(20)]
        await asyncio.to_thread(found.close)
        return await asyncio.gather(*waiting)

    assert len(asyncio.run(work())) == 20


def test_metrics_are_in_prometheus_text_form() -> None:
    counter = Counter("edgetl_x_total", "Of x.", ("model",))
    counter.add('a"b\\c\nd')
    counter.add('a"b\\c\nd', by=2)
    assert list(counter.lines()) == ['edgetl_x_total{model="a\\"b\\\\c\\nd"} 3']
    histogram = Histogram("edgetl_y", "Of y.", (0.5, 1))
    for value in (0.1, 0.5, 0.7, 9):
        histogram.observe(value)
    assert list(histogram.lines()) == [
        'edgetl_y_bucket{le="0.5"} 2',
        'edgetl_y_bucket{le="1"} 3',
        'edgetl_y_bucket{le="+Inf"} 4',
        "edgetl_y_sum 10.3",
        "edgetl_y_count 4",
    ]
    metrics = Metrics()
    metrics.requests.add("predict", "m", "200")
    lines = metrics.text().splitlines()
    assert "# TYPE edgetl_requests_total counter" in lines
    assert 'edgetl_requests_total{route="predict",model="m",status="200"} 1' in lines
    assert metrics.text().endswith("\n")
