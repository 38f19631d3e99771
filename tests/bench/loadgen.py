"""MLCommons' load generator against our own light loop, on the same settings.

First on the very same queries: our timer runs inside the generator's, so that only the two ways of counting differ.
Then one after the other in blocks that take turns; which comes first alternates, so that a machine whose speed drifts
slows down both alike. `EDGETL_BENCH_ROUNDS` sets the pairs of blocks (default 20).

The engine has one thread: more would spin for each other on a machine that others use too.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import edgetl
from edgetl.bench import loadgen
from edgetl.bench.scenarios import BenchOptions, Scenario, measure
from edgetl.bench.stage import model_call
from edgetl.bench.statistics import median_ratio, percentile
from edgetl.bundle.archive import open_bundle
from edgetl.errors import MissingDependencyError
from tests.bench.claims import Claim
from tests.bench_stage.bundles import write_bundle

_AIM = 0.03
_WARMUP = 5
# Queries a block; an offline one holds 32 images each.
_RUNS = {Scenario.SINGLE_STREAM: 200, Scenario.MULTI_STREAM: 60, Scenario.SERVER: 100, Scenario.OFFLINE: 8}
_SAME_QUERIES = 2000


def run() -> Iterator[Claim]:
    """Yield the claims."""
    try:
        loadgen.import_loadgen()
    except MissingDependencyError as error:
        yield Claim(name="the load generator", measured=f"absent: {error}")
        return
    rounds = int(os.environ.get("EDGETL_BENCH_ROUNDS", "20"))
    with tempfile.TemporaryDirectory() as folder:
        bundle = write_bundle(Path(folder) / "layers.edgetl", layers=60)
        images = open_bundle(bundle).golden_images()
        with edgetl.load(bundle, threads=1) as session:
            for scenario in Scenario:
                options = BenchOptions(scenario=scenario, warmup=_WARMUP, runs=_RUNS[scenario], threads=1)
                call = model_call(session, images, options.images_per_call)
                if scenario is Scenario.SINGLE_STREAM:
                    yield from _same_queries(call, replace(options, runs=_SAME_QUERIES))
                yield from _in_turns(call, options, rounds)


def _same_queries(call: Callable[[], object], options: BenchOptions) -> Iterator[Claim]:
    known = measure(call, replace(options, runs=100))
    samples: list[float] = []

    def timed() -> None:
        start = time.perf_counter_ns()
        call()
        samples.append((time.perf_counter_ns() - start) / 1e6)

    stated = loadgen.run(timed, options, known)
    # What comes before the generator's queries wakes the engine.
    own = samples[-stated.queries :]
    for figure, theirs in ((50, stated.p50_ms), (90, stated.p90_ms), (99, stated.p99_ms)):
        ours = percentile(own, figure)
        yield Claim(
            name=f"{options.scenario}: loadgen's p{figure} over our timer's, the same {stated.queries} queries",
            measured=f"{theirs / ours - 1:+.2%} ({theirs:.4g} and {ours:.4g} ms)",
            aim=f"within {_AIM:.0%}",
            holds=abs(theirs / ours - 1) <= _AIM,
        )


def _in_turns(call: Callable[[], object], options: BenchOptions, rounds: int) -> Iterator[Claim]:
    # The load generator plans its queries by what is expected, and our rate of arrivals is the one to serve.
    known = measure(call, options)
    if options.scenario is Scenario.SERVER:
        options = replace(options, rate=known.rate)
    ours: list[dict[str, float]] = []
    theirs: list[dict[str, float]] = []
    for turn in range(rounds):
        for own in (True, False) if turn % 2 else (False, True):
            if own:
                timed = measure(call, options).latency
                ours.append({"p50": timed.p50_ms, "p90": timed.p90_ms, "images per second": timed.throughput})
            else:
                stated = loadgen.run(call, options, known)
                theirs.append({"p50": stated.p50_ms, "p90": stated.p90_ms, "images per second": stated.value})
    offline = options.scenario is Scenario.OFFLINE
    for figure in ("images per second",) if offline else ("p50", "p90"):
        own, other = ([block[figure] for block in side] for side in (ours, theirs))
        ratio = median_ratio(own, other, paired=True)
        # Poisson arrivals of the two differ, so their queues do too.
        judged = figure != "p50" and options.scenario is not Scenario.SERVER
        yield Claim(
            name=f"{options.scenario}: loadgen's {figure} over ours, {rounds} blocks of {options.runs} in turn",
            measured=(
                f"{ratio.value - 1:+.2%} ({ratio.low - 1:+.2%} to {ratio.high - 1:+.2%}); medians of blocks "
                f"{statistics.median(other):.4g} and {statistics.median(own):.4g}"
            ),
            aim=f"within {_AIM:.0%}" if judged else "-",
            holds=abs(ratio.value - 1) <= _AIM if judged else None,
        )
