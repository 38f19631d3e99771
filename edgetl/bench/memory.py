"""Load time and peak memory, measured in a fresh process: here, what ran before would be counted too."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

from edgetl.errors import EdgetlError
from edgetl.failures import death
from edgetl.progress import SILENT, Progress
from edgetl.records.bench import Footprint
from edgetl.records.codec import from_json

_TIMEOUT_S = 300


def measure_fresh(
    bundle: Path,
    *,
    variant: str | None = None,
    target: str = "auto",
    threads: int | None = None,
    batch: int = 1,
    repeats: int = 3,
    progress: Progress = SILENT,
) -> Footprint:
    """Load a bundle and run it once in fresh processes; medians of times, the largest of memory.

    Args:
        bundle: the bundle.
        variant: its variant, the default one where unset.
        target: the engine.
        threads: threads of the engine.
        batch: images in the first inference.
        repeats: number of processes.
        progress: shows each process.

    Raises:
        EdgetlError: the process failed; carries its message.
    """
    found = []
    with progress.task("Loading in a fresh process", repeats) as bar:
        for _ in range(repeats):
            found.append(load_fresh(bundle, variant=variant, target=target, threads=threads, batch=batch))
            bar.advance()
    return Footprint(
        load_ms=statistics.median(f.load_ms for f in found),
        first_ms=statistics.median(f.first_ms for f in found),
        peak_memory_bytes=max(f.peak_memory_bytes for f in found),
        base_memory_bytes=max(f.base_memory_bytes for f in found),
    )


def load_fresh(
    bundle: Path,
    *,
    variant: str | None = None,
    target: str = "auto",
    threads: int | None = None,
    batch: int = 1,
) -> Footprint:
    """As `measure_fresh`, in one process."""
    command = [sys.executable, "-m", "edgetl.bench.probe", str(bundle), "--batch", str(batch)]
    command += ["--target", target]
    command += ["--variant", variant] if variant else []
    command += ["--threads", str(threads)] if threads else []
    return _probe(command)


def peak_memory_bytes() -> int:
    """Peak resident memory of this process since its program started; 0 where the system does not say."""
    try:
        # Not getrusage: on Linux its maximum survives exec, so a child would report its parent's memory.
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _probe(command: list[str]) -> Footprint:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise EdgetlError(f"Loading the bundle took more than {_TIMEOUT_S} s in a fresh process.") from None
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        why = f"it died by {death(done.returncode)}" if done.returncode < 0 else last[0]
        raise EdgetlError(f"The bundle could not be loaded in a fresh process: {why}")
    return from_json(Footprint, json.loads(done.stdout.splitlines()[-1]))
