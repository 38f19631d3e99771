"""Counters of a server, in Prometheus' text format.

The format is that of "Exposition formats", version 0.0.4, of Prometheus' documentation. Labels are of few values: names
of served models, routes and statuses, never of what clients send.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
IMAGES = (1, 2, 4, 8, 16, 32, 64)
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})

Labels = tuple[str, ...]


class Counter:
    """A number that grows, for each combination of labels; safe to be called from any thread."""

    kind = "counter"

    def __init__(self, name: str, about: str, labels: Sequence[str] = ()) -> None:
        self.name, self.about, self.labels = name, about, tuple(labels)
        self._values: dict[Labels, float] = {}
        self._lock = threading.Lock()

    def add(self, *labels: str, by: float = 1.0) -> None:
        """Count."""
        with self._lock:
            self._values[labels] = self._values.get(labels, 0.0) + by

    def value(self, *labels: str) -> float:
        """What was counted so far."""
        return self._values.get(labels, 0.0)

    def lines(self) -> Iterable[str]:
        """Its samples."""
        with self._lock:
            values = sorted(self._values.items())
        return [f"{self.name}{_named(self.labels, labels)} {_number(value)}" for labels, value in values]


class Gauge:
    """A number that is asked for when it is shown."""

    kind = "gauge"

    def __init__(
        self,
        name: str,
        about: str,
        read: Callable[[], Mapping[Labels, float]],
        labels: Sequence[str] = (),
        *,
        kind: str = "gauge",
    ) -> None:
        self.name, self.about, self.labels, self.kind = name, about, tuple(labels), kind
        self._read = read

    def lines(self) -> Iterable[str]:
        """Its samples."""
        return [
            f"{self.name}{_named(self.labels, labels)} {_number(value)}"
            for labels, value in sorted(self._read().items())
        ]


class Histogram:
    """How many values were at most each bound, with their sum; safe to be called from any thread."""

    kind = "histogram"

    def __init__(self, name: str, about: str, bounds: Sequence[float], labels: Sequence[str] = ()) -> None:
        self.name, self.about, self.labels = name, about, tuple(labels)
        self._bounds = tuple(bounds)
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}
        self._lock = threading.Lock()

    def observe(self, value: float, *labels: str) -> None:
        """Take a value."""
        with self._lock:
            counts = self._counts.get(labels)
            if counts is None:
                counts = self._counts[labels] = [0] * (len(self._bounds) + 1)
            counts[bisect_left(self._bounds, value)] += 1
            self._sums[labels] = self._sums.get(labels, 0.0) + value

    def lines(self) -> Iterable[str]:
        """Its samples."""
        with self._lock:
            taken = [
                (labels, list(counts), self._sums[labels]) for labels, counts in sorted(self._counts.items())
            ]
        found = []
        for labels, counts, total in taken:
            below = 0
            for bound, count in zip((*self._bounds, math.inf), counts, strict=True):
                below += count
                named = _named((*self.labels, "le"), (*labels, _number(bound)))
                found.append(f"{self.name}_bucket{named} {below}")
            found.append(f"{self.name}_sum{_named(self.labels, labels)} {_number(total)}")
            found.append(f"{self.name}_count{_named(self.labels, labels)} {below}")
        return found


class Metrics:
    """All that a server counts."""

    def __init__(self) -> None:
        self.requests = Counter(
            "edgetl_requests_total", "Requests that were answered.", ("route", "model", "status")
        )
        self.seconds = Histogram(
            "edgetl_request_seconds",
            "From a request's headers to the end of its answer.",
            SECONDS,
            ("route", "model"),
        )
        self.images = Counter("edgetl_images_total", "Images that were answered.", ("model",))
        self.batches = Histogram("edgetl_batch_images", "Images in a call of the engine.", IMAGES, ("model",))
        self.waited = Histogram(
            "edgetl_queue_seconds", "How long requests waited for a worker.", SECONDS, ("model",)
        )
        self.worked = Histogram(
            "edgetl_work_seconds", "Decoding, the model and the answer, of a batch.", SECONDS, ("model",)
        )
        self.swaps = Counter(
            "edgetl_swaps_total", "Bundles that took over, or were refused.", ("model", "outcome")
        )
        self._shown: list[Counter | Gauge | Histogram] = [
            self.requests,
            self.seconds,
            self.images,
            self.batches,
            self.waited,
            self.worked,
            self.swaps,
            *_of_process(),
        ]

    def gauge(
        self, name: str, about: str, read: Callable[[], Mapping[Labels, float]], labels: Sequence[str] = ()
    ) -> None:
        """Show one more number."""
        self._shown.append(Gauge(name, about, read, labels))

    def text(self) -> str:
        """All of it."""
        lines = list[str]()
        for one in self._shown:
            if samples := list(one.lines()):
                lines += [f"# HELP {one.name} {one.about}", f"# TYPE {one.name} {one.kind}", *samples]
        return "\n".join(lines) + "\n"


def resident_bytes() -> int:
    """Memory of this process that is in use, 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        import resource

        return pages * resource.getpagesize()
    except (OSError, ImportError, ValueError, IndexError):
        return 0


def _of_process() -> list[Gauge]:
    began = time.time()
    gauges = [
        Gauge("process_start_time_seconds", "When it began, in Unix time.", lambda: {(): began}),
        Gauge(
            "process_cpu_seconds_total",
            "Processor time.",
            lambda: {(): time.process_time()},
            kind="counter",
        ),
    ]
    if sys.platform == "linux":
        gauges.append(
            Gauge("process_resident_memory_bytes", "Memory in use.", lambda: {(): float(resident_bytes())})
        )
    return gauges


def _named(names: Sequence[str], values: Sequence[str]) -> str:
    if not names:
        return ""
    pairs = ",".join(f'{n}="{v.translate(_ESCAPES)}"' for n, v in zip(names, values, strict=True))
    return f"{{{pairs}}}"


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))
