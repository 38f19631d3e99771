"""The command line's start against a bare Typer program's, interleaved in one process run."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from tests.bench.claims import Claim, at_most

BARE = """
import typer
app = typer.Typer()
@app.command()
def one(name: str): "Say one thing."
@app.command()
def two(name: str): "Say another."
app()
"""
RUNS = 15


def run() -> Iterator[Claim]:
    """Yield the claims."""
    calls = {
        "bare": [sys.executable, "-c", BARE, "--help"],
        "edgetl": [sys.executable, "-m", "edgetl", "--help"],
        "import": [sys.executable, "-c", "import edgetl"],
        "python": [sys.executable, "-c", "pass"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(RUNS + 2):
        for name, command in calls.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            if turn >= 2:
                seconds[name].append(time.perf_counter() - started)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    yield at_most(
        "edgetl --help over a bare Typer program's --help", median["edgetl"] / median["bare"], 2.0, "x"
    )
    yield Claim(name="edgetl --help", measured=f"{median['edgetl'] * 1e3:.0f} ms")
    yield at_most("import edgetl, on top of python", (median["import"] - median["python"]) * 1e3, 20.0, " ms")
