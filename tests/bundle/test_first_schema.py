"""A bundle of schema 1, packed by the last version that wrote it, still opens, predicts, verifies and gates."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import edgetl
from edgetl.bundle.archive import open_bundle
from edgetl.gate.capture import Timing, capture
from edgetl.gate.compare import compare
from edgetl.records.gate import Verdict
from edgetl.records.scores import score
from edgetl.runtime.session import load
from edgetl.tasks.base import Classification
from tests.bundles import picture

FIRST = Path(__file__).parent / "schema_1.edgetl"


def test_it_opens_with_its_task_and_scores() -> None:
    manifest = open_bundle(FIRST).manifest
    assert manifest.task == Classification(labels=("rose", "daisy", "tulip"))
    assert [v.name for v in manifest.variants] == ["fp32", "int8-cpu-x86"]
    kept = manifest.variants[0].val
    assert kept is not None
    assert list(kept.scores) == ["top1", "macro_f1", "balanced_accuracy", "calibration_error"]
    for name in ("top1", "macro_f1", "balanced_accuracy"):
        found = score(kept, name)
        assert found.interval is not None
        assert found.interval[0] < found.value < found.interval[1]


@pytest.mark.parametrize("variant", ["fp32", "int8-cpu-x86"])
def test_it_predicts_and_verifies(variant: str) -> None:
    with load(FIRST, variant=variant, threads=1) as session:
        found = session.predict(picture())
        assert isinstance(found, edgetl.Prediction)
        assert found.label in ("rose", "daisy", "tulip")
        (one,) = session.predict(picture(), explain=True).maps
        assert one.label == found.label
        assert one.values.shape == (15, 15)
        check = session.verify()
    assert check.passed, check.reason


def test_it_is_gated_against_itself(tmp_path: Path) -> None:
    path = Path(shutil.copy(FIRST, tmp_path / "first.edgetl"))
    figures = capture(path, timing=Timing(threads=1, warmup=1, runs=10))
    report = compare(figures, figures)
    accuracy = next(check for check in report.checks if check.name == "accuracy")
    assert accuracy.verdict is Verdict.PASS
