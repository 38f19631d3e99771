"""Images calibrated a second beside ONNX Runtime's `quantize_static`, by turns in one process."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.calibration_memory import NETWORK, SIZE, calibrate
from tests.bench.claims import Claim, at_least
from tests.quantize import peers

TURNS = 2


def run() -> Iterator[Claim]:
    """Yield the claims. `EDGETL_BENCH_IMAGES` sets the images (default 512)."""
    count = int(os.environ.get("EDGETL_BENCH_IMAGES", "512"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "float.onnx"
        path.write_bytes(peers.untrained(NETWORK, SIZE).SerializeToString())
        calibrate(path, 16)  # imports, and the files' first reading
        seconds: dict[str, list[float]] = {"edgetl": [], "Entropy": [], "Percentile": []}
        for _ in range(TURNS):
            for method, kept in seconds.items():
                started = time.perf_counter()
                if method == "edgetl":
                    calibrate(path, count)
                else:
                    peers.quantize_static(path, path.with_name("out.onnx"), peers.noise(count, SIZE), method)
                kept.append(time.perf_counter() - started)
    rate = {method: count / statistics.median(kept) for method, kept in seconds.items()}
    told = f"{NETWORK}, {SIZE} px, {count} images"
    yield Claim(name=f"images a second, entropy ({told})", measured=f"{rate['edgetl']:.0f}")
    yield at_least("over quantize_static with entropy", rate["edgetl"] / rate["Entropy"], 5, "x")
    yield Claim(
        name="over quantize_static with percentiles", measured=f"{rate['edgetl'] / rate['Percentile']:.1f}x"
    )
