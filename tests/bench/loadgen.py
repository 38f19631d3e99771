"""MLCommons' load generator against our own light loop, on the same settings, in blocks that take turns.

`EDGETL_BENCH_ROUNDS` sets the pairs of blocks of each scenario (default 20). Which comes first alternates, so that a
machine whose speed drifts slows down both alike.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import edgetl
from edgetl.bench import loadgen
from edgetl.bench.scenarios import BenchOptions, Scenario, measure
from edgetl.bench.stage import model_call
from edgetl.bench.statistics import Ratio, median_ratio
from edgetl.bundle.archive import open_bundle
from edgetl.errors import MissingDependencyError
from tests.bench.claims import Claim
from tests.bench.subjects import subject

_AIM = 0.03
_WARMUP = 5
# Queries a block: a tenth of them above p90, and one of them above p99.
_RUNS = {
    Scenario.SINGLE_STREAM: 200,
    Scenario.MULTI_STREAM: 50,
    Scenario.SERVER: 200,
    Scenario.OFFLINE: 4,
}


def run() -> Iterator[Claim]:
    """Yield the claims."""
    try:
        loadgen.import_loadgen()
    except MissingDependencyError as error:
        yield Claim(name="the load generator", measured=f"absent: {error}")
        return
    rounds = int(os.environ.get("EDGETL_BENCH_ROUNDS", "20"))
    with tempfile.TemporaryDirectory() as folder:
        what = subject(Path(folder))
        images = open_bundle(what.bundle).golden_images()
        with edgetl.load(what.bundle) as session:
            for scenario in Scenario:
                options = BenchOptions(
                    scenario=scenario, warmup=_WARMUP, runs=_RUNS[scenario], threads=session.backend.threads
                )
                call = model_call(session, images, options.images_per_call)
                yield from _compare(what.name, call, options, rounds)


def _compare(name: str, call, options: BenchOptions, rounds: int) -> Iterator[Claim]:
    ours: list[dict[str, float]] = []
    theirs: list[dict[str, float]] = []
    # The load generator plans its queries by what is expected, and our rate of arrivals is the one to serve.
    known = measure(call, options)
    if options.scenario is Scenario.SERVER:
        options = BenchOptions(
            scenario=options.scenario,
            warmup=options.warmup,
            runs=options.runs,
            threads=options.threads,
            rate=known.rate,
        )
    for turn in range(rounds):
        for own in (True, False) if turn % 2 else (False, True):
            if own:
                found = measure(call, options)
                timed = found.latency
                ours.append(
                    {"p50": timed.p50_ms, "p90": timed.p90_ms, "p99": timed.p99_ms, "rate": timed.throughput}
                )
            else:
                told = loadgen.run(call, options, known)
                theirs.append(
                    {"p50": told.p50_ms, "p90": told.p90_ms, "p99": told.p99_ms, "rate": told.value}
                )
    figures = ("rate",) if options.scenario is Scenario.OFFLINE else ("p50", "p90", "p99")
    for figure in figures:
        own, other = ([block[figure] for block in side] for side in (ours, theirs))
        ratio = median_ratio(own, other, paired=True)
        # Poisson arrivals of the two differ, so their queues do too.
        judged = figure in ("p90", "rate") and options.scenario is not Scenario.SERVER
        blocks = f"{rounds} blocks of {options.runs} queries each"
        yield Claim(
            name=f"{options.scenario}: loadgen's {_NAMES[figure]} over ours, {blocks}, {name}",
            measured=_told(ratio, own, other),
            aim=f"within {_AIM:.0%}" if judged else "-",
            holds=abs(ratio.value - 1) <= _AIM if judged else None,
        )


_NAMES = {"p50": "median", "p90": "p90", "p99": "p99", "rate": "images a second"}


def _told(ratio: Ratio, own: list[float], other: list[float]) -> str:
    return (
        f"{ratio.value - 1:+.2%} ({ratio.low - 1:+.2%} to {ratio.high - 1:+.2%}); medians of blocks "
        f"{statistics.median(other):.4g} and {statistics.median(own):.4g}"
    )
