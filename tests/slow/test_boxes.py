"""Boxes on real pictures, with the recipe that `init` writes, the whole way: blood cells, playing cards."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgetl import config, pipeline
from edgetl.cli.progress import LineProgress
from edgetl.records.scores import value
from tests.cli.typed import edgetl

pytestmark = [pytest.mark.slow, pytest.mark.timeout(14400)]
SEEDS = tuple(map(int, os.environ.get("EDGETL_SEEDS", "0").split(",")))


LEAST = {"bccd": {"map": 0.5, "map50": 0.82}, "cards": {"map": 0.5}}
"""What a teacher reaches with any seed. Of `bccd` seeds 0, 1 and 2 gave mAP 0.549, 0.553, 0.511 and mAP50 0.887, 0.889,
0.836, in the mean 0.538 and 0.871."""


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", LEAST)
def test_boxes(real_set: Callable[[str], Path], tmp_path: Path, name: str, seed: int) -> None:
    """One seed, or those of EDGETL_SEEDS: the figures of the test split are printed, and held to what is promised."""
    written = edgetl("init", str(real_set(name)), "-o", str(tmp_path / "r.toml"))
    assert written.returncode == 0, written.stderr
    recipe = config.load(tmp_path / "r.toml", [f"seed={seed}"])
    outcome = pipeline.run(recipe, tmp_path / "run", progress=LineProgress(sys.stdout))
    records = outcome.records
    measured = records[pipeline.Stage.MEASURE]
    found = {variant.name: variant for variant in measured.variants}
    shipped, plain = found[measured.default], found["fp32"]
    integers = next(variant for variant in measured.variants if variant.name.startswith("int8-cpu"))
    assert measured.teacher_test is not None
    assert shipped.test is not None
    assert plain.test is not None
    assert integers.test is not None
    before, after = records[pipeline.Stage.TRAIN].size, records[pipeline.Stage.DISTILL].size
    quantized = records[pipeline.Stage.QUANTIZE]
    print(f"{name}, seed {seed}, the test split; {len(SEEDS)} seed(s) in all")
    for metric in ("map", "map50"):
        titles = ("teacher", "student", integers.name, f"shipped ({shipped.name})")
        figures = [value(e, metric) for e in (measured.teacher_test, plain.test, integers.test, shipped.test)]
        print(metric, *(f"{title} {figure:.3f}" for title, figure in zip(titles, figures, strict=True)))
    print(
        f"multiply-accumulates {after.macs / before.macs:.1%}, {integers.name} {integers.size_bytes / 1e6:.2f} MB,"
        f" {next(v.recovery for v in quantized.variants if v.name == integers.name)}"
    )
    teacher, student = value(measured.teacher_test, "map"), value(shipped.test, "map")
    for metric, least in LEAST[name].items():
        assert value(measured.teacher_test, metric) >= least
    assert after.macs <= 0.35 * before.macs
    assert student >= teacher - 0.025
    # 0.01 in the mean of the seeds; of one seed the test split, 72 pictures, does not tell a point from one and a half
    assert value(integers.test, "map") >= value(plain.test, "map") - 0.015
    assert integers.size_bytes <= 1_200_000
