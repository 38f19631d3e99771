"""Networks are timed by a process of its own."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgetl.bench import apart
from edgetl.bench.apart import run_apart
from edgetl.errors import ModelError
from edgetl.inputs.spec import PreprocessSpec
from edgetl.measure import timing
from edgetl.measure.timing import TEACHER, FilesJob, ModelsJob, TimedFile, time_files, time_models, times_of
from edgetl.models import backbones, checkpoint
from edgetl.models.architecture import describe
from edgetl.progress import SILENT, SilentProgress
from tests.bundles import picture
from tests.onnx_models import SIZE, classifier

BACKBONE = "mobilenetv3_small_050"


class Seen(SilentProgress):
    """Keeps the bars' titles and steps."""

    def __init__(self, stop: bool = False) -> None:
        self.titles, self.steps, self._stop = list[str](), list[int](), stop

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Seen]:
        self.titles.append(description)
        yield self

    def advance(self, steps: int = 1, note: str = "") -> None:
        if self._stop:
            raise KeyboardInterrupt
        self.steps.append(steps)


@pytest.fixture
def job(tmp_path: Path) -> ModelsJob:
    teacher = backbones.create(BACKBONE, 3, "none")
    checkpoint.save(teacher, describe(teacher, BACKBONE, 3), tmp_path / "teacher.safetensors")
    (tmp_path / "fp32.onnx").write_bytes(classifier())
    (tmp_path / "picture.png").write_bytes(picture())
    spec = PreprocessSpec(size=SIZE)
    return ModelsJob(
        teacher=str(tmp_path / "teacher.safetensors"),
        teacher_spec=spec,
        spec=spec,
        picture=str(tmp_path / "picture.png"),
        files={"fp32": str(tmp_path / "fp32.onnx")},
        threads=2,
        warmup=5,
        runs=10,
    )


def test_another_process_times_the_teacher_and_the_candidates(
    job: ModelsJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, seen = time_models, Seen()
    monkeypatch.setattr(timing, "time_threads", None)  # of this process
    found = run_apart(work, job, seen)
    assert list(found) == [TEACHER, "fp32"]
    for one in found.values():
        assert {one.threads, one.other_threads} == {1, 2}
        assert len(one.samples_ms) == 10
        assert min(one.samples_ms) > 0
    assert seen.titles[-1] == "Timing teacher, fp32"
    assert sum(seen.steps) > 0


def test_another_process_times_files_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "run_apart", run_apart)
    monkeypatch.setattr(timing, "time_interleaved", None)
    files = {
        "small": TimedFile(content=classifier(), size=SIZE, threads=(1, 2)),
        "large": TimedFile(content=classifier(size=8 * SIZE), size=8 * SIZE, threads=(1,)),
    }
    found = times_of(files, warm_rounds=1, rounds=2)
    assert {name: list(by_threads) for name, by_threads in found.items()} == {"small": [1, 2], "large": [1]}
    assert len(found["small"][1]) == len(found["large"][1]) >= 2
    assert min(found["small"][1]) < min(found["large"][1])


def test_an_error_there_is_the_same_error_here(job: ModelsJob) -> None:
    Path(job.files["fp32"]).write_bytes(b"not a model")
    with pytest.raises(ModelError) as here:
        time_models(job, SILENT)
    with pytest.raises(ModelError, match=rf"^{re.escape(str(here.value))}$"):
        run_apart(time_models, job)


def test_why_it_ended_without_a_result_is_said() -> None:
    job = FilesJob(files={"small": "small.onnx"}, sizes={"small": 32}, threads={}, warm_rounds=1, rounds=1)
    with pytest.raises(
        ModelError, match=r"^Nothing could be timed in a process of its own: KeyError: 'small'$"
    ):
        run_apart(time_files, job)


def test_a_stop_ends_the_other_process_too(job: ModelsJob, monkeypatch: pytest.MonkeyPatch) -> None:
    started = list[subprocess.Popen[str]]()

    class Noted(subprocess.Popen[str]):
        def __enter__(self) -> Noted:
            started.append(self)
            return self

    monkeypatch.setattr(apart.subprocess, "Popen", Noted)
    with pytest.raises(KeyboardInterrupt):
        run_apart(time_models, job, Seen(stop=True))
    assert [process.returncode for process in started] == [-signal.SIGKILL]
