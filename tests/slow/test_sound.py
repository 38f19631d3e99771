"""Spoken digits go the whole way: new recordings of known speakers are understood, and words are found in a stream."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import edgetl
from edgetl import pipeline
from edgetl.cli.progress import LineProgress
from edgetl.data import index as indexes
from edgetl.records.scores import value
from tests.bench.sound import DATA, recipe_for, streamed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]


def test_spoken_digits(real_set: Callable[[str], Path], tmp_path: Path) -> None:
    recipe = recipe_for(real_set(DATA), None, 0)
    outcome = pipeline.run(recipe, tmp_path / "run", progress=LineProgress(sys.stdout))
    measured = outcome.records[pipeline.Stage.MEASURE]
    shipped = next(v for v in measured.variants if v.name == measured.default)
    teacher, student = value(measured.teacher_test, "top1"), value(shipped.test, "top1")
    print(
        f"top-1 on new recordings: teacher {teacher:.2%}, shipped {shipped.name} {student:.2%}; {measured.reason}"
    )
    assert teacher > 0.96
    assert student > teacher - 0.025
    assert outcome.bundle is not None
    with edgetl.load(outcome.bundle) as session:
        assert session.verify().passed
        test = indexes.load(tmp_path / "run" / "data" / "index.json").split("test")
        heard = streamed(session, [(sample.path, session.labels[sample.label]) for sample in test], 120.0)
    print(heard)
    assert heard.found > 0.85 * heard.words
    assert heard.grown_mb < 10
