"""JPEG bytes to label, batch 1: against the floor written by hand and against peers, in turn in one process.

`EDGETL_BENCH_ROUNDS` sets the rounds on large photographs (default 40; three times as many on small ones).
"""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

import edgetl
from edgetl.bench.statistics import Ratio
from edgetl.bench.timer import time_interleaved
from edgetl.inputs.spec import Decoding
from edgetl.process import usable_cores
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from tests.bench.claims import Claim, at_most, paired_ratio
from tests.bench.peers import FLOORS, PEERS, SAME_PIXELS, floor_pillow, open_all
from tests.bench.subjects import LARGE, SMALL, Subject, origin, photographs, subject
from tests.bench_stage.bundles import write_bundle

FAST = 'edgetl, decoding = "fast"'
_PAUSE_S = 0.06
"""Threads of ONNX Runtime by default spin for 43 ms after a call (1.32); the next one must not pay for it."""


def run() -> Iterator[Claim]:
    """Yield the claims."""
    rounds = int(os.environ.get("EDGETL_BENCH_ROUNDS", "40"))
    with tempfile.TemporaryDirectory() as folder:
        yield from _session_overhead(Path(folder))
        what = subject(Path(folder))
        with (
            edgetl.load(what.bundle, threads=usable_cores()) as session,
            _fast(what, usable_cores()) as fast,
        ):
            yield Claim(
                name="the model, and where the photographs come from", measured=f"{what.name}; {origin()}"
            )
            sizes = (("12 megapixels", LARGE, 6, rounds, 2.0), ("640x480", SMALL, 24, 3 * rounds, 1.0))
            for kind, size, count, turns, aim in sizes:
                images = photographs(count, size)
                floors, lacking = open_all(FLOORS, what, usable_cores(), images[0])
                peers, absent = open_all(PEERS, what, usable_cores(), images[0])
                for name, why in {**lacking, **absent}.items():
                    yield Claim(name=f"{kind}: {name}", measured=f"absent ({why})")
                own = {
                    "edgetl": lambda content: session.predict(content).index,
                    FAST: lambda content: fast.predict(content).index,
                }
                timed = _time({**own, **floors, **peers}, images, turns)
                yield from _claims(kind, timed, list(floors), list(peers), aim)
                yield from _processor_time(kind, what, images, turns)
            yield _spun(what, session, images)


def _fast(what: Subject, threads: int) -> edgetl.Session:
    """The same network on `decoding = "fast"`, as if it had been trained so: its labels are not looked at."""
    session = edgetl.load(what.bundle, threads=threads)
    session._spec = replace(session._spec, decoding=Decoding.FAST)
    return session


def _processor_time(kind: str, what: Subject, images: list[bytes], rounds: int) -> Iterator[Claim]:
    """The same in the calling thread's processor time, on one thread: steady on shared machines."""
    with edgetl.load(what.bundle, threads=1) as session, _fast(what, 1) as fast:
        peers, _ = open_all(PEERS, what, 1, images[0])
        calls = {"edgetl": session.predict, FAST: fast.predict, SAME_PIXELS: floor_pillow(what, 1), **peers}
        supplies = {name: itertools.cycle(images) for name in calls}
        timed = time_interleaved(
            {name: lambda n=name, f=call: f(next(supplies[n])) for name, call in calls.items()},
            warmup=max(3, rounds // 10),
            runs=rounds,
            clock=time.thread_time_ns,
        )
    kind = f"{kind}, processor time on one thread"
    ratio = paired_ratio(timed[SAME_PIXELS], timed["edgetl"])
    yield _ratio(f"{kind}: predict over {SAME_PIXELS}, median of pairs", ratio, 1.05)
    yield from _fastest(kind, timed, list(peers), None)


def _fastest(
    kind: str, timed: dict[str, list[float]], peers: list[str], aim: float | None
) -> Iterator[Claim]:
    """The fastest peer, over the pixels as they are by default and over the fast ones."""
    if not peers:
        return
    fastest = min(peers, key=lambda name: statistics.median(timed[name]))
    for own in ("edgetl", FAST):
        ratio = paired_ratio(timed[own], timed[fastest])
        yield Claim(
            name=f"{kind}: the fastest peer ({fastest}) over {own}, median of pairs",
            measured=f"{ratio.value:.2f}x ({ratio.low:.2f} to {ratio.high:.2f})",
            aim="-" if aim is None else f">= {aim:g}x",
            holds=None if aim is None else ratio.value >= aim,
        )


def _spun(what: Subject, session: edgetl.Session, images: list[bytes]) -> Claim:
    """A photograph now and then, as a device sees them: the processor time of all threads, with the wait after it."""
    by_hand = floor_pillow(what, usable_cores())

    def then_wait(predict):
        supply = itertools.cycle(images)
        return lambda: (predict(next(supply)), time.sleep(_PAUSE_S))

    timed = time_interleaved(
        {"own": then_wait(session.predict), "floor": then_wait(by_hand)},
        warmup=3,
        runs=60,
        clock=time.process_time_ns,
        pause_s=_PAUSE_S,
    )
    own, floor = (statistics.median(timed[name]) for name in ("own", "floor"))
    return Claim(
        name="640x480: processor time of a photograph on all threads, by hand (Pillow) over predict",
        measured=f"{floor / own:.1f}x ({floor:.1f} and {own:.1f} ms)",
        aim=">= 1x",
        holds=floor >= own,
    )


def _time(calls, images, rounds) -> dict[str, list[float]]:
    """Each function on the same image in each round, after a call of its own that is not counted.

    So all meet their own threads as they leave them, and none those of another.
    """
    supplies = {name: itertools.cycle(np.repeat(range(len(images)), 2)) for name in calls}
    bound = {name: (lambda n=name, f=f: f(images[next(supplies[n])])) for name, f in calls.items()}
    return time_interleaved(bound, warmup=3, runs=rounds, pause_s=_PAUSE_S, settle=1)


def _claims(
    kind: str, timed: dict[str, list[float]], floors: list[str], peers: list[str], aim: float
) -> Iterator[Claim]:
    own = timed["edgetl"]
    for name in floors:
        # OpenCV's pixels are not those of training, so that floor is said and not aimed at.
        same_pixels = name == SAME_PIXELS
        ratio = paired_ratio(timed[name], own)
        note = "" if same_pixels else ", other pixels"
        yield _ratio(
            f"{kind}: predict over {name}{note}, median of pairs", ratio, 1.05 if same_pixels else None
        )
    yield from _fastest(kind, timed, peers, aim)
    for name, samples in timed.items():
        yield Claim(name=f"{kind}: {name}, p50", measured=f"{statistics.median(samples):.2f} ms")


def _ratio(name: str, ratio: Ratio, aim: float | None) -> Claim:
    measured = f"{ratio.value:.3f}x ({ratio.low:.3f} to {ratio.high:.3f})"
    if aim is None:
        return Claim(name=name, measured=measured)
    return Claim(name=name, measured=measured, aim=f"<= {aim:g}x", holds=ratio.value <= aim)


def _session_overhead(folder: Path) -> Iterator[Claim]:
    """What `Session.run` adds to the engine's own call, on a model that takes no time."""
    with edgetl.load(write_bundle(folder / "tiny.edgetl"), threads=1) as session:
        size = session.manifest.preprocess.size
        batch = np.zeros((1, 3, size, size), np.float32)
        assert isinstance(session.backend, OnnxBackend)
        engine = session.backend._session
        feed = {session.backend.input.name: batch}
        calls = {"engine": lambda: engine.run(None, feed), "session": lambda: session.run(batch)}
        timed = time_interleaved(calls, warmup=200, runs=3000)
    added = statistics.median(s - e for s, e in zip(timed["session"], timed["engine"], strict=True))
    yield at_most("session.run on top of the engine's own call", added * 1e3, 20, " us")
    yield Claim(name="the engine's own call", measured=f"{statistics.median(timed['engine']) * 1e3:.1f} us")
