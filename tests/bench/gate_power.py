"""How often the latency gate is right, and how soon: on this machine's own noise, with candidates that do more work.

Candidates are the base model (about 3 ms) with extra convolutions that cost 0, 2, 5 and 10%. Three steps, of which
`EDGETL_GATE_STEPS` names some (default `record,replay,live`):

record   the base and all candidates, timed in turn, in segments of a minute with fresh sessions, kept in
         `.cache/gate-power/`; goes on where it stopped. `EDGETL_GATE_TRACE_S` is the total (default 2000 s).
replay   500 gates against each candidate (`EDGETL_GATE_REPLAYS`), each from a random moment of the trace on, its
         rounds in their order; and beside it the naive gate: the mean of 100 calls against that of another moment.
live     20 gates against each candidate (`EDGETL_GATE_LIVE`), each with fresh sessions.

`EDGETL_GATE_BUSY` is a number of processes that use the processor meanwhile (default 0): a trace of its own. The
candidates are calibrated on the first run, which should be one on a quiet machine.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgetl.bench.machine import describe
from edgetl.bench.statistics import median_ratio
from edgetl.bench.timer import quiet_gc, time_interleaved
from edgetl.files import write_bytes
from edgetl.gate.compare import Limits
from edgetl.gate.conditions import Clocks
from edgetl.gate.latency import LEAST_SECONDS, SECONDS, race, rest, time_block
from edgetl.gate.sequential import RatioTest
from edgetl.process import usable_cores
from edgetl.records.gate import Verdict
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from edgetl.statistics import wilson_interval
from tests.bench.claims import Claim, at_least, at_most
from tests.onnx_models import deep_classifier

HOME = Path(".cache/gate-power")
SLOWER = (0.0, 0.02, 0.05, 0.10)
LIMIT = Limits().max_latency_increase
QUIET_BLOCK, BUSY_BLOCK = 10, 3
"""Calls a block, as the gate chooses them: blocks of some 30 ms, as the calls take with and without neighbours."""

SEGMENT_S = 60.0
_WARMUP_ROUNDS = 8
_NAIVE_CALLS = 100
_AIM_MS = 3.0
_EXTRA = 150
_IMAGE = np.random.default_rng(0).normal(size=(1, 3, 112, 112)).astype(np.float32)


def run() -> Iterator[Claim]:
    """Yield the claims."""
    steps = os.environ.get("EDGETL_GATE_STEPS", "record,replay,live").split(",")
    busy = int(os.environ.get("EDGETL_GATE_BUSY", "0"))
    models = make_models()
    trace = HOME / (f"busy-{busy}" if busy else "quiet")
    if "record" in steps:
        with _neighbours(busy):
            seconds = float(os.environ.get("EDGETL_GATE_TRACE_S", "2000"))
            record(models, trace, seconds, BUSY_BLOCK if busy else QUIET_BLOCK)
    if "replay" in steps:
        yield from replay(Trace.load(trace), int(os.environ.get("EDGETL_GATE_REPLAYS", "500")), busy)
    if "live" in steps:
        with _neighbours(busy):
            yield from live(models, int(os.environ.get("EDGETL_GATE_LIVE", "20")), busy)


# --- models ------------------------------------------------------------------------------------------


def make_models() -> list[Path]:
    """The base and the four candidates, calibrated once on this machine."""
    paths = [HOME / "base.onnx", *(HOME / f"slower-{share:.2f}.onnx" for share in SLOWER)]
    made_for = HOME / "models.json"
    machine = describe().fingerprint
    if made_for.exists() and json.loads(made_for.read_text())["machine"] == machine:
        return paths
    depth = max(1, round(12 * _AIM_MS / _milliseconds(deep_classifier(12))))
    # So many extra layers cost enough to be timed; each candidate gets its share of them.
    cost = (_ratio(deep_classifier(depth), deep_classifier(depth, extra=_EXTRA)) - 1) / _EXTRA
    extras = [round(share / cost) for share in SLOWER]
    for path, extra in zip(paths, [0, *extras], strict=True):
        write_bytes(path, deep_classifier(depth, extra=extra))
    write_bytes(made_for, json.dumps({"machine": machine, "depth": depth, "extra": extras}).encode())
    _say(f"made models of {depth} layers, with {extras} extra ones")
    return paths


def _milliseconds(model: bytes) -> float:
    with OnnxBackend(model) as backend:
        timed = time_interleaved({"m": lambda: backend.run(_IMAGE)}, warmup=50, runs=100)
    return float(np.percentile(timed["m"], 10))


def _ratio(base: bytes, more: bytes) -> float:
    with OnnxBackend(base) as first, OnnxBackend(more) as second:
        calls = {"base": lambda: first.run(_IMAGE), "more": lambda: second.run(_IMAGE)}
        timed = time_interleaved(calls, warmup=20, runs=1000, pause_s=0.05, settle=2, block=QUIET_BLOCK)
    return median_ratio(timed["base"], timed["more"], paired=True).value


# --- record ------------------------------------------------------------------------------------------


def record(models: list[Path], trace: Path, seconds: float, block: int) -> None:
    """Record segments until the trace is `seconds` long."""
    while (done := _recorded(trace)) < seconds:
        number = len(list(trace.glob("*.npz")))
        length = min(SEGMENT_S, seconds - done)
        calls_ms, block_s = _segment(models, length, block, seed=number)
        trace.mkdir(parents=True, exist_ok=True)
        unfinished = trace / f"{number:04}.partial"
        with unfinished.open("wb") as file:
            np.savez_compressed(file, calls_ms=calls_ms, block_s=block_s, seconds=length, time=time.time())
        unfinished.rename(trace / f"{number:04}.npz")
        shares = np.median(calls_ms, axis=(0, 2)) / np.median(calls_ms[:, 0]) - 1
        _say(
            f"recorded {done + length:.0f} of {seconds:.0f} s: {np.median(calls_ms[:, 0]):.2f} ms, "
            + ", ".join(f"{share:+.1%}" for share in shares[1:])
        )


def _recorded(trace: Path) -> float:
    return sum(float(np.load(path)["seconds"]) for path in trace.glob("*.npz"))


def _segment(
    models: list[Path], seconds: float, block: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(rounds, models, calls) milliseconds, and (rounds, models) seconds that the blocks took in all.

    Every round runs all models in random order and then in the reverse order, so that for the base and any candidate
    it is a round A B B A or B A A B.
    """
    clocks, generator = Clocks(), np.random.default_rng(seed)
    calls_ms, block_s = [], []
    with ExitStack() as stack, quiet_gc():
        backends = [stack.enter_context(OnnxBackend(path)) for path in models]
        calls = [lambda backend=backend: backend.run(_IMAGE) for backend in backends]
        start, rounds, last = time.perf_counter(), -_WARMUP_ROUNDS, -1
        while time.perf_counter() - start < seconds:
            order = generator.permutation(len(calls))
            times: list[list[float]] = [[] for _ in calls]
            spent = np.zeros(len(calls), dtype=np.float32)
            for which in [*order, *order[::-1]]:
                begun = time.perf_counter()
                if which != last:
                    rest(clocks)
                    last = which
                times[which] += time_block(calls[which], block, clocks)
                spent[which] += time.perf_counter() - begun
            if rounds >= 0:
                calls_ms.append(times)
                block_s.append(spent)
            rounds += 1
    return np.array(calls_ms, dtype=np.float32), np.array(block_s, dtype=np.float32)


# --- replay ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Trace:
    """All segments, one after the other: (rounds, models, calls) milliseconds and (rounds, models) seconds."""

    calls_ms: NDArray[np.float32]
    block_s: NDArray[np.float32]
    seconds: float

    @classmethod
    def load(cls, folder: Path) -> Trace:
        """Read a recorded trace."""
        parts = [np.load(path) for path in sorted(folder.glob("*.npz"))]
        assert parts, f"there is no trace in {folder}: record one first"
        return cls(
            calls_ms=np.concatenate([part["calls_ms"] for part in parts]),
            block_s=np.concatenate([part["block_s"] for part in parts]),
            seconds=sum(float(part["seconds"]) for part in parts),
        )

    def log_ratios(self, model: int) -> NDArray[np.float64]:
        """(rounds,) logs of the model's median over the base's."""
        logs = np.log(np.median(self.calls_ms, axis=2))
        return (logs[:, model] - logs[:, 0]).astype(np.float64)


def replay(trace: Trace, gates: int, busy: int) -> Iterator[Claim]:
    """Gates from random moments of the trace."""
    generator, rounds = np.random.default_rng(0), len(trace.calls_ms)
    base = np.median(trace.calls_ms[:, 0])
    yield Claim(
        name=f"trace, {busy} busy processes",
        measured=f"{trace.seconds:.0f} s, {rounds} rounds, base {base:.2f} ms, limit {LIMIT:.1%}",
    )
    for model, share in enumerate(SLOWER, start=1):
        logs, costs = trace.log_ratios(model), trace.block_s[:, 0] + trace.block_s[:, model]
        starts = generator.integers(0, rounds, gates)
        found = [_replayed(np.roll(logs, -start), np.roll(costs, -start)) for start in starts]
        name = f"replayed, {busy} busy, slower by {share:.0%} ({math.expm1(np.median(logs)):+.2%} over the trace)"
        yield from _claims(name, share, found, busy)
        yield _naive(name, trace, model, gates, generator)


def _replayed(logs: NDArray[np.float64], costs: NDArray[np.float32]) -> tuple[Verdict, float]:
    """Verdict and seconds, the warm-up included, of a gate that meets these rounds."""
    test, spent, warmup = RatioTest(), 0.0, float(costs[:_WARMUP_ROUNDS].sum())
    for log_ratio, cost in zip(logs[_WARMUP_ROUNDS:], costs[_WARMUP_ROUNDS:], strict=True):
        spent += float(cost)
        test.add(float(log_ratio))
        verdict = test.verdict(LIMIT)
        if verdict is not Verdict.UNSURE and spent >= LEAST_SECONDS:
            return verdict, warmup + spent
        if spent * (1 + 1 / len(test)) > SECONDS:
            break
    return Verdict.UNSURE, warmup + spent


def _naive(name: str, trace: Trace, model: int, gates: int, generator: np.random.Generator) -> Claim:
    """The mean of 100 calls now over the mean of 100 calls of the base at another moment, held to the same limit."""
    calls = trace.calls_ms.shape[2]
    rounds = -(-_NAIVE_CALLS // calls)
    moments = generator.integers(0, len(trace.calls_ms) - rounds, (gates, 2))
    fails = 0
    for stored, now in moments:
        before = trace.calls_ms[stored : stored + rounds, 0].ravel()[:_NAIVE_CALLS].mean()
        after = trace.calls_ms[now : now + rounds, model].ravel()[:_NAIVE_CALLS].mean()
        fails += after / before - 1 > LIMIT
    return Claim(name=f"{name}: naive gate fails it", measured=_share(fails, gates))


# --- live --------------------------------------------------------------------------------------------


def live(models: list[Path], gates: int, busy: int) -> Iterator[Claim]:
    """Gates as `edgetl gate --against` runs them, on the models alone."""
    found: dict[float, list[tuple[Verdict, float]]] = {share: [] for share in SLOWER}
    for number in range(gates):
        for share, path in zip(SLOWER, models[1:], strict=True):
            start = time.perf_counter()
            with OnnxBackend(models[0]) as base, OnnxBackend(path) as candidate:
                trial = race(
                    lambda: base.run(_IMAGE),
                    lambda: candidate.run(_IMAGE),
                    limit=LIMIT,
                    seed=number,
                )
            found[share].append((trial.verdict, time.perf_counter() - start))
            _say(
                f"live gate {number + 1} of {gates}, slower by {share:.0%}: {trial.verdict}, "
                f"{trial.change:+.2%} {trial.interval}, {trial.rounds} rounds {' '.join(trial.notes)}"
            )
    for share, results in found.items():
        yield from _claims(
            f"live on {usable_cores()} cores, {busy} busy, slower by {share:.0%}", share, results, busy
        )


# --- both --------------------------------------------------------------------------------------------


def _claims(name: str, share: float, found: list[tuple[Verdict, float]], busy: int) -> Iterator[Claim]:
    gates, stated = len(found), [verdict for verdict, _ in found]
    fails = stated.count(Verdict.FAIL)
    if share == 0:
        yield at_most(f"{name}: fails it, {_share(fails, gates)}", 100 * fails / gates, 1.0, "%")
    elif share >= 0.05 and not busy:
        yield at_least(f"{name}: fails it, {_share(fails, gates)}", 100 * fails / gates, 95.0, "%")
    else:
        yield Claim(name=f"{name}: fails it", measured=_share(fails, gates))
    yield Claim(name=f"{name}: cannot tell", measured=_share(stated.count(Verdict.UNSURE), gates))
    # A gate that could not tell has no time to a verdict: it counts as an endless one.
    seconds = float(np.median([math.inf if stated is Verdict.UNSURE else spent for stated, spent in found]))
    if share in (0.0, 0.05, 0.10) and not busy:
        yield at_most(f"{name}: median time to the verdict, warm-up included", seconds, 20.0, " s")
    else:
        yield Claim(name=f"{name}: median time to the verdict, warm-up included", measured=f"{seconds:.1f} s")


def _share(count: int, number: int) -> str:
    low, high = wilson_interval(count, number)
    return f"{count} of {number} (95% interval {low:.1%} to {high:.1%})"


@contextmanager
def _neighbours(number: int) -> Iterator[None]:
    """Processes that use the processor as long as the block runs."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
