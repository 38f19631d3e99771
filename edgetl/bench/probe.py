"""`python -m edgetl.bench.probe BUNDLE`: load, run once, write a `Footprint` as JSON to standard output."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgetl.bench.memory import peak_memory_bytes
from edgetl.records.bench import Footprint
from edgetl.records.codec import to_json


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, and return the exit code."""
    parser = argparse.ArgumentParser(prog="edgetl.bench.probe")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--variant")
    parser.add_argument("--target", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_args(arguments)
    found = probe(options.bundle, options.variant, options.threads, options.batch, options.target)
    sys.stdout.write(json.dumps(to_json(found)) + "\n")
    return 0


def probe(
    bundle: Path, variant: str | None, threads: int | None, batch: int, target: str = "auto"
) -> Footprint:
    """Load `bundle` and run it once on `batch` grey images; meant for a process that did nothing else."""
    base = peak_memory_bytes()
    start = time.perf_counter_ns()
    from edgetl.runtime.session import load

    with load(bundle, target=target, variant=variant, threads=threads) as session:
        loaded = time.perf_counter_ns()
        size = session.manifest.preprocess.size
        images = np.zeros((batch, 3, size, size), dtype=np.float32)
        begun = time.perf_counter_ns()
        session.run(images)
        done = time.perf_counter_ns()
    return Footprint(
        load_ms=(loaded - start) / 1e6,
        first_ms=(done - begun) / 1e6,
        peak_memory_bytes=peak_memory_bytes(),
        base_memory_bytes=base,
    )


if __name__ == "__main__":
    sys.exit(main())
