"""Peak memory of calibration by the number of images, beside ONNX Runtime's, each in a fresh process.

ONNX Runtime's runs under an address-space limit, since it keeps every activation of every image.
`EDGETL_BENCH_IMAGES` sets the largest number of images for it (default 512, at most 4096).
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from edgetl.bench.memory import peak_memory_bytes
from tests.bench.claims import Claim, at_most
from tests.bench.steps import say

NETWORK, SIZE = "mobilenetv2_100", 64
MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
LIMIT = min(12 << 30, MEMORY * 3 // 4)
COUNTS = (64, 512, 4096)


def run() -> Iterator[Claim]:
    """Yield the claims."""
    most = int(os.environ.get("EDGETL_BENCH_IMAGES", "512"))
    with tempfile.TemporaryDirectory() as folder:
        from tests.quantize.peers import untrained

        path = Path(folder) / "float.onnx"
        path.write_bytes(untrained(NETWORK, SIZE).SerializeToString())
        peaks: dict[int, int | None] = {}
        for count in COUNTS:
            started = time.monotonic()
            peaks[count] = _measured(path, "edgetl", count)
            yield Claim(name=f"peak with {count} images ({NETWORK}, {SIZE} px)", measured=_text(peaks[count]))
            if count == COUNTS[0]:
                seconds = (time.monotonic() - started) * sum(COUNTS) / count
                say(f"at most {seconds / 60:.0f} minutes for ours, judged by {count} images; then the peers")
        known = [peak for peak in peaks.values() if peak is not None]
        yield at_most("spread of the peaks", (max(known) - min(known)) / 2**20, 50, " MiB")
        for method in ("Entropy", "Percentile"):
            for count in (c for c in COUNTS if c <= most):
                say(f"quantize_static, {method.lower()}, {count} images")
                stated = _text(_measured(path, method, count))
                yield Claim(
                    name=f"peak of onnxruntime's quantize_static, {method.lower()}, {count} images",
                    measured=stated,
                )


def _text(peak: int | None) -> str:
    return f"{peak / 2**20:.0f} MiB" if peak is not None else f"ended at the limit of {LIMIT >> 30} GiB"


def _measured(path: Path, method: str, count: int) -> int | None:
    """Peak resident bytes of a fresh process; None where it ran out of the memory that it was allowed."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.calibration_memory", str(path), method, str(count)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return int(done.stdout.split()[-1])
    if (
        "MemoryError" in done.stderr
        or "bad_alloc" in done.stderr
        or "llocat" in done.stderr
        or done.returncode < 0
    ):
        return None
    raise RuntimeError(done.stderr[-2000:])


def _calibrate(path: Path, method: str, count: int) -> None:
    from tests.quantize import peers

    if method == "edgetl":
        calibrate(path, count)
        return
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    peers.quantize_static(path, path.with_name(f"{method}-{count}.onnx"), peers.noise(count, SIZE), method)


def calibrate(path: Path, count: int) -> None:
    """The whole of ours: observe, estimate by entropy, write."""
    import onnx

    from edgetl.config import Calibrator, Target
    from edgetl.quantize.affine import from_range
    from edgetl.quantize.calibrate import observe
    from edgetl.quantize.graph import Graph
    from edgetl.quantize.plan import make_plan
    from edgetl.quantize.qdq import insert
    from edgetl.quantize.ranges import estimate
    from edgetl.quantize.targets import rules_for
    from tests.quantize import peers

    graph, rules = Graph(onnx.load(path)), rules_for(Target.CPU_X86)
    plan = make_plan(graph, rules)
    found = observe(graph.model, plan.observed, peers.noise(count, SIZE), images=count)
    grid = rules.activations
    spans = {n: estimate(h, Calibrator.ENTROPY, grid, percentile=99.99) for n, h in found.items()}
    activations = {name: from_range(*span, grid) for name, span in (spans | plan.known).items()}
    insert(graph, plan, rules, activations)


if __name__ == "__main__":
    _calibrate(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    print(peak_memory_bytes())
