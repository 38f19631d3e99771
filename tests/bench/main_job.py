"""The demo's run: the shipped variant against the teacher in eager torch, measured again side by side."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from edgetl import pipeline
from edgetl.report.run import headline
from tests.bench.claims import Claim, at_least, at_most
from tests.slow.test_real_sets import recipe_for


def run() -> Iterator[Claim]:
    """Yield the claims."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        report = pipeline.run(recipe_for(Path("digits")), Path(folder)).report
        seconds = time.monotonic() - started
    assert report is not None
    head = headline(report)
    low, high = head.latency_interval or (0.0, 0.0)
    yield at_most("digits from start to finish", seconds / 60, 6, " minutes")
    yield at_most("student's top-1 below the teacher's on test", -head.points, 1.0, " points")
    yield at_least("median latency, teacher in eager torch over shipped", head.latency_ratio, 10, "x")
    yield Claim(name="95% interval of that ratio", measured=f"{low:.1f}x to {high:.1f}x")
    yield at_least("checkpoint of the teacher over shipped model, bytes", head.size_ratio, 10, "x")
