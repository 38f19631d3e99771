"""Latency of several networks, their calls taking turns."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np

from edgetl.bench.statistics import summarise
from edgetl.bench.timer import BLOCK, PAUSE_S, SETTLE, time_interleaved
from edgetl.progress import SILENT, Progress
from edgetl.records.measured import Latency
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from edgetl.transfer.networks import Exported

ROUNDS = 6
"""Of one block a network; one more, uncounted, comes first."""


def latencies(networks: Sequence[Exported], threads: int, progress: Progress = SILENT) -> list[Latency]:
    """The latency of each network on the CPU, one image per call, float32.

    Args:
        networks: what to time.
        threads: of the engine.
        progress: shows the rounds.

    Raises:
        ModelError: a network cannot be loaded.
        MissingDependencyError: ONNX Runtime is not installed.
    """
    with ExitStack() as stack:
        calls = {}
        for at, network in enumerate(networks):
            side = network.spec.size
            images = np.random.default_rng(0).normal(size=(1, 3, side, side)).astype(np.float32)
            calls[str(at)] = stack.enter_context(OnnxBackend(network.model, threads=threads)).bind(images)
        samples = time_interleaved(
            calls,
            warmup=BLOCK,
            runs=ROUNDS * BLOCK,
            pause_s=PAUSE_S,
            settle=SETTLE,
            block=BLOCK,
            progress=progress,
            title="Timing networks in turn",
        )
    return [
        summarise(own, scenario="single-stream", batch=1, threads=threads, warmup=BLOCK)
        for own in samples.values()
    ]
