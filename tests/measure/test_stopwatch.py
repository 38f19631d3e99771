from __future__ import annotations

from pathlib import Path

import pytest

from edgetl.bench import timer
from edgetl.inputs.image import PreprocessSpec
from edgetl.measure.stopwatch import RuntimeStopwatch
from edgetl.models import backbones, checkpoint
from edgetl.models.architecture import describe
from edgetl.tasks.base import Classification

BACKBONE = "mobilenetv3_small_050"


@pytest.mark.serial
def test_networks_are_timed_against_the_teacher_in_the_runtime(tmp_path: Path) -> None:
    teacher = backbones.create(BACKBONE, 3, "none")
    checkpoint.save(teacher, describe(teacher, BACKBONE, 3), tmp_path / "teacher.safetensors")
    stopwatch = RuntimeStopwatch(
        teacher=tmp_path / "teacher.safetensors",
        teacher_spec=PreprocessSpec(size=32),
        spec=PreprocessSpec(size=160),
        task=Classification(labels=("a", "b", "c")),
        opset=18,
        threads=1,
    )
    # the same network at 25 times the pixels
    timing = stopwatch(teacher)
    assert 0 < timing.teacher_ms < timing.ms
    assert timing.share == timing.ms / timing.teacher_ms


@pytest.mark.serial
def test_calls_that_another_program_lengthened_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = backbones.create(BACKBONE, 3, "none")
    checkpoint.save(teacher, describe(teacher, BACKBONE, 3), tmp_path / "teacher.safetensors")
    spec = PreprocessSpec(size=32)
    stopwatch = RuntimeStopwatch(
        teacher=tmp_path / "teacher.safetensors",
        teacher_spec=spec,
        spec=spec,
        task=Classification(labels=("a", "b", "c")),
        opset=18,
        threads=1,
    )
    samples = {"teacher": [4.0] * 30 + [9.0] * 30, "network": [1.0] * 55 + [9.0] * 5}
    monkeypatch.setattr(timer, "block_of", lambda calls: (1, 1))
    monkeypatch.setattr(timer, "time_interleaved", lambda *args, **kwargs: samples)
    assert stopwatch(teacher).share == 0.25
