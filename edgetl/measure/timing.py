"""How long networks take per image: the teacher and the candidates of a run, and files that are compared.

Each is timed by a process of its own, see `edgetl.bench.apart`; in it all take turns, so that ratios hold on a machine
whose speed drifts.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from edgetl.bench import apart
from edgetl.bench.threads import ThreadTimes, numbers_of, time_threads
from edgetl.bench.timer import PAUSE_S, block_of, time_interleaved
from edgetl.bundle.manifest import ModelFormat
from edgetl.inputs.spec import PreprocessSpec
from edgetl.measure.candidates import open_backend
from edgetl.progress import SILENT, Progress

TEACHER = "teacher"


@dataclass(frozen=True, kw_only=True)
class ModelsJob:
    """What a run times, on one image.

    Attributes:
        teacher: its checkpoint; run in eager torch, float32.
        teacher_spec, spec: preprocessing of the teacher and of the candidates.
        picture: the file of the image.
        files: the candidates' ONNX or .tflite files by name.
        threads: the most; one is tried as well.
        warmup, runs: calls of each, uncounted and counted.
    """

    teacher: str
    teacher_spec: PreprocessSpec
    spec: PreprocessSpec
    picture: str
    files: dict[str, str]
    threads: int
    warmup: int
    runs: int


def time_models(job: ModelsJob, progress: Progress = SILENT) -> dict[str, ThreadTimes]:
    """The teacher's and the candidates' times with their better number of threads and with the other one.

    Returns:
        Samples in milliseconds by the candidate's name, and of `TEACHER`.

    Raises:
        ModelError: a file cannot be loaded.
        WeightsError: the teacher's checkpoint cannot be used.
    """
    import numpy as np
    import torch

    from edgetl.inputs.image import load_pixels, normalise
    from edgetl.models import checkpoint
    from edgetl.models.fusing import fused
    from edgetl.runtime.engines.base import run_pixels

    picture, numbers = Path(job.picture), numbers_of(job.threads)
    pixels = load_pixels(picture, job.spec)[None]
    batch = np.ascontiguousarray(normalise(pixels, job.spec))
    teacher, _ = checkpoint.load(Path(job.teacher))
    # As its authors run it: a teacher that was made to be fused is.
    teacher = fused(teacher.eval(), job.teacher_spec.size).to(memory_format=torch.channels_last)
    own = normalise(load_pixels(picture, job.teacher_spec)[None], job.teacher_spec)
    tensor = torch.from_numpy(own).contiguous(memory_format=torch.channels_last)

    def run_teacher(number: int) -> object:
        if torch.get_num_threads() != number:
            torch.set_num_threads(number)
        with torch.inference_mode():
            return teacher(tensor)

    backends = {
        name: {number: open_backend(Path(file), threads=number) for number in numbers}
        for name, file in job.files.items()
    }
    bound: dict[str, dict[int, Callable[[], object]]] = {
        TEACHER: {number: functools.partial(run_teacher, number) for number in numbers}
    }
    # Beside a variant that normalises inside, all are timed from pixels, so that the comparison is fair.
    inside = any(backend.input.dtype == "uint8" for by in backends.values() for backend in by.values())
    for name, by_threads in backends.items():
        bound[name] = {
            number: functools.partial(run_pixels, backend, pixels, job.spec)
            if inside
            else functools.partial(backend.run, batch)
            for number, backend in by_threads.items()
        }
    threads = torch.get_num_threads()
    try:
        return time_threads(bound, warmup=job.warmup, runs=job.runs, progress=progress)
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True, kw_only=True)
class TimedFile:
    """A network as an engine takes it, the side of its input in pixels, and the numbers of threads to time it with."""

    content: bytes
    size: int
    threads: tuple[int, ...]
    format: ModelFormat = ModelFormat.ONNX


@dataclass(frozen=True, kw_only=True)
class FilesJob:
    """Files to time by name, as `TimedFile` has them, and the rounds, uncounted and counted."""

    files: dict[str, str]
    sizes: dict[str, int]
    threads: dict[str, tuple[int, ...]]
    warm_rounds: int
    rounds: int


def times_of(
    files: Mapping[str, TimedFile], *, warm_rounds: int, rounds: int, progress: Progress = SILENT
) -> dict[str, dict[int, tuple[float, ...]]]:
    """Time networks in turn, a block of calls of each per round, on an image of noise: its values do not matter.

    Args:
        files: what to time, by name.
        warm_rounds, rounds: rounds, uncounted and counted.
        progress: shows the rounds.

    Returns:
        Samples in milliseconds by name and number of threads. Those of two may be compared in pairs, see
        `time_interleaved`.

    Raises:
        MissingDependencyError: its engine is not installed.
        ModelError: a network cannot be loaded.
    """
    with tempfile.TemporaryDirectory(prefix="edgetl-networks-") as name:
        paths = {key: Path(name) / f"{at}.{one.format}" for at, (key, one) in enumerate(files.items())}
        for key, one in files.items():
            paths[key].write_bytes(one.content)
        job = FilesJob(
            files={key: str(path) for key, path in paths.items()},
            sizes={key: one.size for key, one in files.items()},
            threads={key: one.threads for key, one in files.items()},
            warm_rounds=warm_rounds,
            rounds=rounds,
        )
        timed = apart.run_apart(time_files, job, progress)
    return {key: {number: timed[_key(key, number)] for number in one.threads} for key, one in files.items()}


def time_files(job: FilesJob, progress: Progress = SILENT) -> dict[str, tuple[float, ...]]:
    """Samples in milliseconds by name and number of threads; see `times_of`.

    Raises:
        MissingDependencyError: a file's engine is not installed.
        ModelError: a file cannot be loaded.
    """
    from edgetl.quantize.unlearned import noise

    with ExitStack() as stack:
        calls = {
            _key(name, number): functools.partial(
                stack.enter_context(open_backend(Path(file), threads=number)).run, noise(job.sizes[name])
            )
            for name, file in job.files.items()
            for number in job.threads[name]
        }
        settle, block = block_of(calls)
        timed = time_interleaved(
            calls,
            warmup=job.warm_rounds * block,
            runs=job.rounds * block,
            pause_s=PAUSE_S,
            settle=settle,
            block=block,
            progress=progress,
            title="Timing networks in turn",
        )
    return {key: tuple(samples) for key, samples in timed.items()}


def _key(name: str, threads: int) -> str:
    return f"{name}/{threads}"
