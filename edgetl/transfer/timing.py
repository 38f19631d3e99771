"""Latency of several networks, their calls taking turns."""

from __future__ import annotations

from collections.abc import Sequence

from edgetl.bench.statistics import summarise
from edgetl.measure.timing import TimedFile, times_of
from edgetl.progress import SILENT, Progress
from edgetl.records.measured import Latency
from edgetl.transfer.networks import Exported

ROUNDS = 6
"""Of one block of calls of each network; one more, uncounted, comes first."""


def latencies(networks: Sequence[Exported], threads: int, progress: Progress = SILENT) -> list[Latency]:
    """The latency of each network on the CPU, one image per call, float32.

    Args:
        networks: what to time.
        threads: of the engine.
        progress: shows the rounds.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
        ModelError: a network cannot be loaded.
    """
    files = {
        str(at): TimedFile(content=network.model, size=network.spec.size, threads=(threads,))
        for at, network in enumerate(networks)
    }
    timed = times_of(files, warm_rounds=1, rounds=ROUNDS, progress=progress)
    samples = [own[threads] for own in timed.values()]
    return [
        summarise(own, scenario="single-stream", batch=1, threads=threads, warmup=len(own) // ROUNDS)
        for own in samples
    ]
