"""Images calibrated a second beside ONNX Runtime's `quantize_static`, by turns in one process."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.calibration_memory import NETWORK, SIZE, calibrate
from tests.bench.claims import Claim, at_least
from tests.bench.steps import say
from tests.quantize import peers

TURNS, TRIED = 2, 32


def run() -> Iterator[Claim]:
    """Yield the claims. `EDGETL_BENCH_IMAGES` sets the images (default 512)."""
    count = int(os.environ.get("EDGETL_BENCH_IMAGES", "512"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "float.onnx"
        path.write_bytes(peers.untrained(NETWORK, SIZE).SerializeToString())
        calibrate(path, 16)  # imports, and the files' first reading
        seconds: dict[str, list[float]] = {"edgetl": [], "Entropy": [], "Percentile": []}
        tried = sum(_seconds(lambda m=method: _calibrate(m, path, TRIED)) for method in seconds)
        # Half of a small run is there whatever the number of images.
        say(f"about {TURNS * tried * (0.5 + 0.5 * count / TRIED) / 60:.0f} minutes, judged by {TRIED} images")
        for turn in range(TURNS):
            for method, kept in seconds.items():
                kept.append(_seconds(lambda m=method: _calibrate(m, path, count)))
                say(f"turn {turn + 1} of {TURNS}: {method} took {kept[-1]:.1f} s")
    rate = {method: count / statistics.median(kept) for method, kept in seconds.items()}
    stated = f"{NETWORK}, {SIZE} px, {count} images"
    yield Claim(name=f"images per second, entropy ({stated})", measured=f"{rate['edgetl']:.0f}")
    yield at_least("over quantize_static with entropy", rate["edgetl"] / rate["Entropy"], 5, "x")
    yield Claim(
        name="over quantize_static with percentiles", measured=f"{rate['edgetl'] / rate['Percentile']:.1f}x"
    )


def _calibrate(method: str, path: Path, count: int) -> None:
    if method == "edgetl":
        calibrate(path, count)
    else:
        peers.quantize_static(path, path.with_name("out.onnx"), peers.noise(count, SIZE), method)


def _seconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
