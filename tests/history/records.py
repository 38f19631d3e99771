"""Benchmarks as they come from `edgetl bench`, made up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from edgetl.bench.statistics import summarise
from edgetl.history import append
from edgetl.records.bench import BenchRecord, Footprint
from edgetl.records.measured import Machine

MACHINE = Machine(cpu="Cortex-A76", cores=4, memory_bytes=2**32, system="Linux aarch64", python="3.11.7")
START = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)


def record(
    median_ms: float = 5.0,
    *,
    name: str = "flowers",
    variant: str = "int8",
    scenario: str = "single-stream",
    threads: int = 2,
    sha256: str = "a" * 64,
    machine: Machine = MACHINE,
) -> BenchRecord:
    """A benchmark whose median latency is `median_ms`."""
    latency = summarise(
        [0.9 * median_ms, median_ms, 1.2 * median_ms], scenario=scenario, batch=1, threads=threads, warmup=30
    )
    return BenchRecord(
        bundle=f"{name}.edgetl",
        bundle_sha256=sha256,
        variant=variant,
        scenario=scenario,
        metric="p90_ms",
        value=latency.p90_ms,
        latency=latency,
        end_to_end=None,
        footprint=Footprint(
            load_ms=80.0, first_ms=9.0, peak_memory_bytes=70_000_000, base_memory_bytes=30_000_000
        ),
        machine=machine,
        name=name,
        target="cpu",
        warnings=("The machine runs on battery, which lowers clocks: plug it in.",),
    )


def write(path: Path, medians_ms: list[float], *, shas: str = "", start: int = 0, **subject: object) -> None:
    """Append a run a day; the i-th run's bundle is `shas[i]`, and so is its commit."""
    for day, median in enumerate(medians_ms):
        letter = shas[day] if shas else "a"
        append(
            path,
            record(median, sha256=letter * 64, **subject),  # type: ignore[arg-type]
            now=START + timedelta(days=start + day),
            commit=letter * 40,
        )
