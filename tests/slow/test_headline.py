"""The headline: a large teacher in eager torch against the student that ships, mean of three seeds, on real sets.

Runs are kept (`EDGETL_BENCH_CACHE`), so that what was stopped goes on. `EDGETL_HEADLINE_SEEDS` sets their number.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

from edgetl import config, pipeline
from edgetl.config import Recipe
from edgetl.report.document import Headline, headline
from tests.bench.steps import Spoken, kept

pytestmark = [pytest.mark.slow, pytest.mark.timeout(4 * 3600)]
RealSet = Callable[[str], Path]
SEEDS = range(int(os.environ.get("EDGETL_HEADLINE_SEEDS", "3")))
TIMES, POINTS = 30, 1.0

FLOWERS = {
    "preprocess": {"size": 224, "crop_fraction": 1.0},
    "train": {"backbone": "efficientnet_lite2", "epochs": 6},
    "prune": {
        "target_macs": 0.2,
        "target_parameters": 0.12,
        "steps": 6,
        "recovery_epochs": 2,
        "max_drop": 0.08,
        "importance_images": 128,
    },
    "distill": {"size": 128, "epochs": 50},
}
CIFAR = {
    "data": {"max_train_images": 5000},
    "preprocess": {"size": 96, "crop_fraction": 1.0},
    "train": {"backbone": "efficientnet_lite2", "epochs": 4},
    "prune": {
        "target_macs": 0.25,
        "target_parameters": 0.12,
        "steps": 5,
        "recovery_epochs": 1,
        "max_drop": 0.08,
    },
    "distill": {"size": 64, "epochs": 20},
}


def recipe_for(source: Path, settings: dict[str, dict[str, object]], seed: int) -> Recipe:
    """The recipe with this seed."""
    data = {"source": str(source), **settings.get("data", {})}
    return config.parse({"name": source.name, "seed": seed, **settings, "data": data})


def measure(source: Path, settings: dict[str, dict[str, object]]) -> list[Headline]:
    """Run every seed and print a line for each, and their mean."""
    print(
        f"\n{source.name} | teacher, shipped on test | points | latency | size | macs, parameters kept | minutes"
    )
    heads = []
    for seed in SEEDS:
        folder = kept("headline", f"{source.name}-{seed}")
        report = pipeline.run(recipe_for(source, settings, seed), folder, progress=Spoken()).report
        assert report is not None
        head = headline(report)
        heads.append(head)
        before, after = report.teacher.size, report.student.size
        print(
            f"seed {seed} | {head.teacher.top1:.2%}, {head.student.top1:.2%} ({head.shipped.name}) | {head.points:+.2f}"
            f" | {report.measure.teacher_latency.p50_ms:.2f} to {head.shipped.latency.p50_ms:.3f} ms,"
            f" {head.latency_ratio:.1f}x | {report.measure.teacher_size_bytes / 1e6:.2f} to"
            f" {head.shipped.size_bytes / 1e6:.3f} MB, {head.size_ratio:.1f}x"
            f" | {after.macs / before.macs:.1%}, {after.parameters / before.parameters:.1%}"
            f" | {sum(report.stage_seconds.values()) / 60:.0f}",
            flush=True,
        )
    print(
        f"mean | {statistics.mean(h.points for h in heads):+.2f} points"
        f" | {statistics.mean(h.latency_ratio for h in heads):.1f}x"
        f" | {statistics.mean(h.size_ratio for h in heads):.1f}x"
    )
    return heads


@pytest.mark.parametrize(("name", "settings"), [("flowers12", FLOWERS), ("cifar10", CIFAR)])
def test_thirty_times_quicker_and_smaller(
    real_set: RealSet, name: str, settings: dict[str, dict[str, object]]
) -> None:
    heads = measure(real_set(name), settings)
    assert statistics.mean(h.points for h in heads) >= -POINTS
    assert statistics.mean(h.latency_ratio for h in heads) >= TIMES
    assert statistics.mean(h.size_ratio for h in heads) >= TIMES
