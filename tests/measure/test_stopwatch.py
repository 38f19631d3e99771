from __future__ import annotations

from pathlib import Path

import pytest

from edgetl.config import QuantizeConfig, Target
from edgetl.inputs.image import PreprocessSpec
from edgetl.measure import timing
from edgetl.measure.stopwatch import RuntimeStopwatch, share_of, shipped_target
from edgetl.models import backbones, checkpoint
from edgetl.models.architecture import describe
from edgetl.processor import architecture
from edgetl.runtime.engines.onnxruntime import OnnxBackend
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
        target=None,
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
        target=None,
        threads=1,
    )
    samples = {"teacher/1": [4.0] * 30 + [9.0] * 30, "network/1": [1.0] * 55 + [9.0] * 5}
    monkeypatch.setattr(timing, "block_of", lambda calls: (1, 1))
    monkeypatch.setattr(timing, "time_interleaved", lambda *args, **kwargs: samples)
    assert stopwatch(teacher).share == 0.25


@pytest.mark.parametrize("threads", [1, 2])
def test_what_ships_is_timed_with_every_number_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    teacher = backbones.create(BACKBONE, 3, "none")
    checkpoint.save(teacher, describe(teacher, BACKBONE, 3), tmp_path / "teacher.safetensors")
    spec = PreprocessSpec(size=32)
    opened = list[tuple[bool, int]]()

    class Noted(OnnxBackend):
        def __init__(self, file: Path, *, threads: int) -> None:
            opened.append((b"QuantizeLinear" in file.read_bytes(), threads))
            super().__init__(file, threads=threads)

    monkeypatch.setattr("edgetl.runtime.engines.onnxruntime.OnnxBackend", Noted)
    monkeypatch.setattr(timing, "time_interleaved", lambda calls, **_: {key: [1.0] * 10 for key in calls})
    stopwatch = RuntimeStopwatch(
        teacher=tmp_path / "teacher.safetensors",
        teacher_spec=spec,
        spec=spec,
        task=Classification(labels=("a", "b", "c")),
        opset=18,
        target=Target.CPU_X86,
        threads=threads,
    )
    assert stopwatch(teacher).share == 1.0
    numbers = [1, 2][:threads]
    assert opened == [(False, n) for n in numbers] + [(True, n) for n in numbers]


def test_the_target_that_ships_here() -> None:
    own = {"x86": Target.CPU_X86, "arm": Target.CPU_ARM}[architecture()]
    other = {"x86": Target.CPU_ARM, "arm": Target.CPU_X86}[architecture()]
    assert shipped_target(QuantizeConfig(target=(Target.LITERT, other, own))) == own
    assert shipped_target(QuantizeConfig(target=(Target.OPENVINO, other))) is None
    assert shipped_target(QuantizeConfig(enabled=False)) is None


def test_rounds_in_which_the_machine_was_faster_do_not_count() -> None:
    own, other = [1.0] * 60, [4.0] * 60
    assert share_of(own, other, rounds=6) == 0.25
    own[10:20] = [0.7] * 10
    other[30:40] = [2.8] * 10
    assert share_of(own, other, rounds=6) == 0.25
