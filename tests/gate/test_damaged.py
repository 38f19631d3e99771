"""The gate on a real model that is damaged in one class."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgetl.gate.capture import measure_accuracies
from edgetl.records.gate import Verdict
from edgetl.runtime.session import load
from edgetl.tasks.classification.judge import judge
from tests.gate.digits import LABELS, write_digits_bundle, write_images


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("digits")
    write_images(home / "images")
    # The damaged one was fed far better, so that its total holds.
    write_digits_bundle(home / "sound.edgetl", images=60)
    write_digits_bundle(home / "better.edgetl", images=700)
    write_digits_bundle(home / "damaged.edgetl", images=700, lose=4)
    return home


def _compared(home: Path, before: str, after: str) -> dict[str, Verdict]:
    scores = []
    for name in (before, after):
        with load(home / f"{name}.edgetl", threads=1) as session:
            scores += measure_accuracies([session], home / "images")
    first, second = scores
    checks = judge(first.truth, first.predictions, second.predictions, LABELS)
    print(*(check.sentence for check in checks), sep="\n")
    return {check.name: check.verdict for check in checks}


def test_a_damaged_class_is_caught_though_the_total_holds(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = _compared(home, "sound", "damaged")
    assert found["accuracy"] is not Verdict.FAIL
    assert found["recall"] is Verdict.FAIL
    assert "Recall went down in 1 of 10 classes: 4 from" in capsys.readouterr().out


def test_a_damaged_class_of_the_same_training_fails_all_three(home: Path) -> None:
    assert set(_compared(home, "better", "damaged").values()) == {Verdict.FAIL}


def test_a_better_model_passes(home: Path) -> None:
    assert set(_compared(home, "sound", "better").values()) == {Verdict.PASS}
