"""INT8 over FP32 latency in ONNX Runtime with one thread and two, interleaved; and what would ship."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgetl.bench.statistics import median_ratio, summarise
from edgetl.bench.timer import time_interleaved
from edgetl.config import Calibrator, Target
from edgetl.measure.choice import choose
from edgetl.quantize.affine import from_range
from edgetl.quantize.calibrate import observe
from edgetl.quantize.graph import Graph
from edgetl.quantize.plan import make_plan
from edgetl.quantize.qdq import insert
from edgetl.quantize.ranges import estimate
from edgetl.quantize.targets import rules_for
from edgetl.records.variants import VariantScore
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from edgetl.tasks.classification.scores import evaluate
from tests.bench.claims import Claim
from tests.bench.steps import say
from tests.quantize import peers

SAME = evaluate(np.array([0, 1]), np.eye(2), ["a", "b"], resamples=0)
"""Both count as equally accurate: speed alone decides here."""


def run() -> Iterator[Claim]:
    """Yield the claims. `EDGETL_BENCH_SIZE` sets the input's side (default 160), `EDGETL_BENCH_RUNS` the calls."""
    size = int(os.environ.get("EDGETL_BENCH_SIZE", "160"))
    runs = int(os.environ.get("EDGETL_BENCH_RUNS", "60"))
    with tempfile.TemporaryDirectory() as name:
        for number, network in enumerate(peers.NETWORKS, start=1):
            say(f"{network}, {number} of {len(peers.NETWORKS)}; half a minute or so each")
            fp32, int8 = _models(network, size, Path(name))
            for threads in (1, 2):
                yield _claim(network, size, threads, {"fp32": fp32, "int8-cpu-x86": int8}, runs)


def _models(network: str, size: int, folder: Path) -> tuple[Path, Path]:
    model = peers.untrained(network, size)
    graph, rules = Graph(model), rules_for(Target.CPU_X86)
    plan, grid = make_plan(graph, rules), rules.activations
    found = observe(model, plan.observed, peers.noise(16, size), images=16)
    spans = {n: estimate(h, Calibrator.MINMAX, grid, percentile=99.99) for n, h in found.items()}
    activations = {name: from_range(*span, grid) for name, span in (spans | plan.known).items()}
    paths = folder / f"{network}-fp32.onnx", folder / f"{network}-int8.onnx"
    for path, content in zip(paths, (model, insert(graph, plan, rules, activations)), strict=True):
        path.write_bytes(content.SerializeToString())
    return paths


def _claim(network: str, size: int, threads: int, files: dict[str, Path], runs: int) -> Claim:
    image = next(peers.noise(8, size))[:1]
    backends = {name: OnnxBackend(path, threads=threads) for name, path in files.items()}
    calls = {name: (lambda b=backend: b.run(image)) for name, backend in backends.items()}
    timed = time_interleaved(calls, warmup=10, runs=runs, pause_s=0.05, settle=3, block=5)
    variants = [
        VariantScore(
            name=name,
            precision=name.partition("-")[0],
            target="any",
            file=path.name,
            sha256="",
            size_bytes=path.stat().st_size,
            val=SAME,
            test=None,
            latency=summarise(timed[name], scenario="single-stream", batch=1, threads=threads, warmup=10),
        )
        for name, path in files.items()
    ]
    ratio = median_ratio(timed["fp32"], timed["int8-cpu-x86"], paired=True)
    default, _, _ = choose(variants, "top1", 0.5)
    lost = ratio.low > 1.0
    return Claim(
        name=f"INT8 over FP32, {network}, {size} px, {threads} thread{'s' if threads > 1 else ''}",
        measured=f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f}); ships {default}",
        aim="FP32 ships where INT8 loses",
        holds=default == "fp32" if lost else True,
    )
