"""How well the latency table predicts: random prunings of a network, predicted against measured in the runtime.

Every time is taken in turn with the unpruned network's, so that a machine whose speed drifts does not count.
"""

from __future__ import annotations

import os
import random
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from edgetl.config import PruneConfig, QuantizeConfig, SpeedupTarget, Target
from edgetl.inputs.image import PreprocessSpec
from edgetl.measure.stopwatch import RuntimeStopwatch, shipped_target
from edgetl.models import backbones, checkpoint
from edgetl.models.architecture import describe
from edgetl.prune.graph import ChannelGraph, layer_costs, trace
from edgetl.prune.plan import CutLimits, alignment_for
from edgetl.prune.surgery import without
from edgetl.prune.timed import TimedTarget
from edgetl.tasks.base import Classification
from tests.bench.claims import Claim, at_most
from tests.bench.steps import Spoken, say

MODELS: Mapping[str, str] = {
    "efficientnet_lite0": backbones.PRETRAINED,
    "torchvision/resnet18": backbones.NO_WEIGHTS,
    "torchvision/mobilenet_v2": backbones.NO_WEIGHTS,
}
CLASSES = tuple(f"class {i}" for i in range(12))
PRUNINGS = 20
LOW, HIGH = 0.2, 0.95
AIM = 0.05
FLOAT_TIMES, INT8_TIMES = 1.2, 5.0
"""Speed-ups over the network in float32 that pruning can reach, and that it does not have already in INT8."""
ALIGNMENT = alignment_for(QuantizeConfig().target)


def run() -> Iterator[Claim]:
    """Yield the claims.

    `EDGETL_BENCH_SIZE` sets the side of the images (default 160), `EDGETL_BENCH_THREADS` the engine's threads
    (default 2; take 1 where other programs want the cores), `EDGETL_BENCH_MODELS` the networks, with commas.
    """
    size, threads = (int(os.environ.get(f"EDGETL_BENCH_{n}", d)) for n, d in (("SIZE", 160), ("THREADS", 2)))
    for name in os.environ.get("EDGETL_BENCH_MODELS", ",".join(MODELS)).split(","):
        for precision in (None, shipped_target(QuantizeConfig())):
            yield from predicted(name, MODELS.get(name, backbones.NO_WEIGHTS), size, threads, precision)


def predicted(name: str, weights: str, size: int, threads: int, precision: Target | None) -> Iterator[Claim]:
    """Fit a table as pruning does, then predict networks of other random widths, and time those.

    Args:
        name: the network.
        weights: those it has.
        size: side of its input.
        threads: the most threads.
        precision: what INT8 is made for, which is timed; float32 where None.
    """
    what = "float32" if precision is None else f"INT8 for {precision}"
    model, spec = backbones.create(name, len(CLASSES), weights).eval(), PreprocessSpec(size=size)
    with tempfile.TemporaryDirectory() as folder:
        teacher = Path(folder) / "teacher.safetensors"
        checkpoint.save(model, describe(model, name, len(CLASSES)), teacher)
        stopwatch = RuntimeStopwatch(
            teacher=teacher,
            teacher_spec=spec,
            spec=spec,
            task=Classification(labels=CLASSES),
            opset=18,
            target=precision,
            threads=threads,
        )
        graph = trace(model, size)
        target = TimedTarget(
            model,
            size,
            config=PruneConfig(target=SpeedupTarget(times=FLOAT_TIMES if precision is None else INT8_TIMES)),
            limits=CutLimits(
                round_to=ALIGNMENT, max_cut=0.9, widths={g.name: g.channels for g in graph.groups}
            ),
            stopwatch=stopwatch,
            kept=Path(folder) / "latency.json",
            key=name,
            seed=0,
            progress=Spoken(),
        )
        errors, times = [], []
        for number in range(PRUNINGS):
            network = without(graph.model, graph.groups, pruning(graph, number))
            guess = target.table.milliseconds(layer_costs(network, size))
            times.append(stopwatch(network).share * target.teacher_ms)
            errors.append(guess / times[-1] - 1)
            say(
                f"{name} in {what} {number}: {guess:.3f} ms predicted, {times[-1]:.3f} ms measured, {errors[-1]:+.1%}"
            )
    setting = f"{name}, {what}, {size} px, at most {threads} threads, {PRUNINGS} random prunings"
    off = np.abs(errors)
    yield at_most(
        f"median error of predicted latency ({setting})", 100 * float(np.median(off)), 100 * AIM, "%"
    )
    yield Claim(
        name=f"worst error and bias of predicted latency ({setting})",
        measured=f"{off.max():.1%} worst, {statistics.median(errors):+.1%} median with its sign; measured"
        f" {min(times):.2f} to {max(times):.2f} ms, unpruned {target.teacher_ms:.2f} ms; table from"
        f" {target.networks} other networks, its own estimate {target.table.error:.1%}",
    )


def pruning(graph: ChannelGraph, seed: int) -> dict[str, tuple[int, ...]]:
    """Channels that go: each group keeps a random share between 0.2 and 0.95, in whole units."""
    generator, removed = random.Random(seed), {}
    for group in graph.groups:
        unit = CutLimits(round_to=ALIGNMENT, max_cut=0.9, widths={}).unit(group)
        kept = max(round(generator.uniform(LOW, HIGH) * group.channels / unit), 1) * unit
        if kept < group.channels:
            removed[group.name] = tuple(range(kept, group.channels))
    return removed
