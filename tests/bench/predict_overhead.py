"""What a session adds to the engine's own call, interleaved in one process."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import edgetl
from edgetl.bench.timer import time_interleaved
from tests.bench.claims import Claim, at_most
from tests.bench_stage.bundles import write_bundle


def run() -> Iterator[Claim]:
    """Yield the claims."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = write_bundle(Path(folder) / "tiny.edgetl")
        with edgetl.load(bundle, threads=1) as session:
            size = session.manifest.preprocess.size
            batch = np.zeros((1, 3, size, size), np.float32)
            engine = session.backend._session
            feed = {session.backend.input.name: batch}
            calls = {"engine": lambda: engine.run(None, feed), "session": lambda: session.run(batch)}
            timed = time_interleaved(calls, warmup=200, runs=3000)
    added = statistics.median(s - e for s, e in zip(timed["session"], timed["engine"], strict=True))
    yield at_most("session.run on top of the engine's own call", added * 1e3, 20, " us")
    yield Claim(name="the engine's own call", measured=f"{statistics.median(timed['engine']) * 1e3:.1f} us")
