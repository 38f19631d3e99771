"""The main job on real image sets: minutes each on two cores. `make test-slow` prints what came out."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

import edgetl
from edgetl import config, pipeline
from edgetl.cli.progress import LineProgress
from edgetl.config import Recipe
from edgetl.data.index import build_index
from edgetl.data.suggest import look, suggest
from edgetl.records.scores import value
from edgetl.report.run import RunReport, headline

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]
RealSet = Callable[[str], Path]


def recipe_for(source: Path, *changes: str, **data: object) -> Recipe:
    """What `edgetl init` would write for the set, with a few settings changed."""
    chosen = suggest(look(build_index(config.DataConfig(source=str(source)))))
    values: dict[str, dict[str, object]] = {"data": {"source": str(source), **data}}
    for item in chosen:
        section, _, key = item.key.partition(".")
        values.setdefault(section, {})[key] = item.value
    return config.parse({"name": source.name, **values}, changes)


def run(recipe: Recipe, folder: Path) -> RunReport:
    """Run the whole way, print the figures, and check what holds for every set."""
    import sys

    started = time.monotonic()
    outcome = pipeline.run(recipe, folder, progress=LineProgress(sys.stdout))
    report = outcome.report
    assert report is not None
    assert outcome.bundle is not None
    head = headline(report)
    before, after = (
        f"{value(e, 'top1'):.1%} (macro-F1 {value(e, 'macro_f1'):.3f})" for e in (head.teacher, head.student)
    )
    print(
        f"\n{recipe.name}: teacher {before}, shipped {head.shipped.name} {after} on {head.split}; "
        f"p50 {report.measure.teacher_latency.p50_ms:.2f} ms in eager torch, {head.shipped.latency.p50_ms:.2f} ms "
        f"shipped: {head.latency_ratio:.1f}x; {report.measure.teacher_size_bytes / 1e6:.2f} MB to "
        f"{head.shipped.size_bytes / 1e6:.2f} MB: {head.size_ratio:.1f}x; {time.monotonic() - started:.0f} s"
    )
    print(report.measure.reason)
    assert report.measure.floor_met, report.measure.reason
    with edgetl.load(outcome.bundle) as session:
        assert session.verify().passed
    return report


def test_flowers12(real_set: RealSet, tmp_path: Path) -> None:
    report = run(recipe_for(real_set("flowers12")), tmp_path / "flowers12")
    head = headline(report)
    assert head.split == "test"
    assert value(head.teacher, "top1") >= 0.96
    assert head.points >= -2.0
    assert head.latency_ratio >= 10
    assert head.size_ratio >= 10


def test_magnetic_tile(real_set: RealSet, tmp_path: Path) -> None:
    run(recipe_for(real_set("magnetic_tile")), tmp_path / "magnetic_tile")


def test_cifar10_with_5000_images(real_set: RealSet, tmp_path: Path) -> None:
    run(recipe_for(real_set("cifar10"), max_train_images=5000), tmp_path / "cifar10")
