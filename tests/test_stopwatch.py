from __future__ import annotations

from pathlib import Path

from edgetl.config import BenchConfig
from edgetl.models import backbones, checkpoint
from edgetl.models.architecture import describe
from edgetl.preprocess import PreprocessSpec
from edgetl.stopwatch import RuntimeStopwatch

BACKBONE = "mobilenetv3_small_050"


def test_networks_are_timed_against_the_teacher_in_the_runtime(tmp_path: Path) -> None:
    teacher = backbones.create(BACKBONE, 3, "none")
    checkpoint.save(teacher, describe(teacher, BACKBONE, 3), tmp_path / "teacher.safetensors")
    stopwatch = RuntimeStopwatch(
        teacher=tmp_path / "teacher.safetensors",
        teacher_spec=PreprocessSpec(size=32),
        spec=PreprocessSpec(size=160),
        labels=("a", "b", "c"),
        opset=18,
        bench=BenchConfig(threads=1),
    )
    # the same network at 25 times the pixels
    timing = stopwatch(teacher)
    assert 0 < timing.teacher_ms < timing.ms
    assert timing.share == timing.ms / timing.teacher_ms
