"""A machine, and latencies measured on it."""

from __future__ import annotations

from dataclasses import field

from edgetl.records.codec import OPTIONAL
from edgetl.records.frozen import dataclass


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The machine a figure was measured on. `processor` is its `edgetl.processor.kind`, empty in older records."""

    cpu: str
    cores: int
    memory_bytes: int
    system: str
    python: str
    gpu: str = ""
    governor: str = ""
    processor: str = field(default="", metadata=OPTIONAL)

    @property
    def fingerprint(self) -> str:
        """Short text that distinguishes machines; figures of different fingerprints are not comparable."""
        return f"{self.cpu} x{self.cores}, {self.system}" + (f", {self.gpu}" if self.gpu else "")


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Statistics over raw samples of one call's wall time. `batch` images per call; throughput in images per second."""

    scenario: str
    batch: int
    threads: int
    warmup: int
    runs: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    throughput: float
    samples_ms: tuple[float, ...] = ()
