"""Score and time every candidate through the runtime that will run it, then choose what ships.

The teacher in eager torch is timed together with the candidates, interleaved in one process of their own, so that the
ratio holds on a machine whose speed drifts; each of them with one thread and with all, so that each is shown at its
best.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgetl.bundle.manifest import ModelFormat
from edgetl.config import BenchConfig, BundleConfig
from edgetl.data.sources import SPLITS
from edgetl.data.truths import truths_for
from edgetl.files import sha256_file
from edgetl.keys import UNKEYED
from edgetl.measure.candidates import CandidateModel, format_of, open_backend, runner
from edgetl.measure.choice import choose
from edgetl.progress import SILENT, Progress
from edgetl.records.bench import Profile
from edgetl.records.codec import to_json
from edgetl.records.confidence import OutputConfidence
from edgetl.records.measured import Latency
from edgetl.records.scores import Evaluation, value
from edgetl.records.unknown import UnknownRecord
from edgetl.records.variants import MeasureRecord, VariantScore
from edgetl.tasks import confidence
from edgetl.tasks.all import settled, task_of
from edgetl.tasks.base import Detection, Outputs, TaskSpec, joined
from edgetl.tasks.metrics import chosen

if TYPE_CHECKING:
    import numpy as np

    from edgetl.data.index import DataIndex
    from edgetl.inputs.image import PreprocessSpec
    from edgetl.measure.reference import Known


@dataclass(frozen=True, kw_only=True)
class MeasureInputs:
    """What is measured.

    `teacher_val` and `teacher_test` are the teacher's scores from training; `teacher_spec` is its preprocessing, of
    which its size may differ from that of the candidates' `spec`. `machine` is the fingerprint of the one that
    measures.
    """

    candidates: tuple[CandidateModel, ...]
    teacher: Path
    teacher_spec: PreprocessSpec
    teacher_val: Evaluation
    teacher_test: Evaluation | None
    index: DataIndex
    spec: PreprocessSpec
    machine: str
    seed: int = 0
    pixels_dir: Path = field(metadata=UNKEYED)
    run_dir: Path = field(metadata=UNKEYED)


def run(
    bench: BenchConfig,
    bundle: BundleConfig,
    inputs: MeasureInputs,
    *,
    out: Path,
    progress: Progress = SILENT,
) -> MeasureRecord:
    """Measure the candidates and the teacher and choose the default; what they make of known images goes to `out`.

    A variant whose target is not this machine is scored with its quantization simulated in float32, as the target
    computes it, and timed like all.

    Returns:
        The scores on the validation and test splits, latencies with raw samples, and the choice with its reason.
    """
    from edgetl.bench import conditions, sensors
    from edgetl.bench.machine import describe
    from edgetl.measure import drift, reference
    from edgetl.measure.timing import TEACHER
    from edgetl.train.sets import open_sets

    task = task_of(inputs.index.task)
    metric = chosen(bundle.metric, task.metrics, setting="bundle.metric")
    sets = open_sets(inputs.index, inputs.spec, inputs.pixels_dir, progress)
    truths = {
        split: truths_for(inputs.index.task, inputs.index.split(split), inputs.spec) for split in SPLITS[1:]
    }
    backends = {c.name: open_backend(c.file, threads=bench.threads) for c in inputs.candidates}
    scores: dict[str, tuple[Evaluation, Evaluation | None]] = {}
    sure: dict[str, tuple[OutputConfidence, ...]] = {}
    answered: dict[str, tuple[tuple[float, ...], tuple[int, ...]]] = {}
    with progress.task("Scoring variants", total=len(backends)) as scoring:
        for number, c in enumerate(inputs.candidates):
            run_ = runner(backends[c.name], c.file, c.target, inputs.spec)
            outputs = _outputs(run_, sets.val.pixels)
            if not number:  # the plain export
                task = task_of(settled(task.spec, truths["val"], outputs))
            tested = _outputs(run_, sets.test.pixels) if sets.test else None
            on_test = (truths["test"], tested) if tested is not None else None
            sure[c.name] = confidence.measure(task.spec, (truths["val"], outputs), on_test)
            own = task_of(task.spec, confidence.temperatures(sure[c.name]))
            answered[c.name] = drift.answers_of(own, outputs)
            val = own.score(truths["val"], outputs)
            test = own.score(*on_test) if on_test is not None else None
            scores[c.name] = (val, test)
            scoring.advance(note=f"{c.name} {value(val, metric):.1%}")
    known = reference.run(
        reference.ReferenceInputs(
            candidates=inputs.candidates,
            index=inputs.index,
            spec=inputs.spec,
            pixels_dir=inputs.pixels_dir,
            seed=inputs.seed,
            threads=bench.threads,
        ),
        out=out / "reference",
        progress=progress,
    )
    before = sensors.read()
    latencies = _time(inputs, bench, progress)
    seen, doubts = conditions.between(before, sensors.read())
    variants = tuple(
        VariantScore(
            name=c.name,
            precision=c.precision,
            target=c.target,
            file=_below(inputs.run_dir, c.file),
            sha256=sha256_file(c.file),
            size_bytes=c.file.stat().st_size,
            val=scores[c.name][0],
            test=scores[c.name][1],
            latency=latencies[c.name][0],
            other_latency=latencies[c.name][1],
            input=c.input,
            confidence=sure[c.name],
            reference=_reference(known.get(c.name), inputs.run_dir, out / "reference" / f"{c.name}.npz"),
            unknown=_unknown(task.spec, known.get(c.name), inputs.index),
            sureness=answered[c.name][0],
            named=answered[c.name][1],
        )
        for c in inputs.candidates
    )
    floor = value(inputs.teacher_val, metric) - bundle.max_drop
    default, floor_met, reason = choose(variants, metric, floor)
    shipped = next(v for v in variants if v.name == default)
    layers, no_layers = _layers(inputs, shipped, progress)
    return MeasureRecord(
        variants=variants,
        teacher_val=inputs.teacher_val,
        teacher_test=inputs.teacher_test,
        teacher_latency=latencies[TEACHER][0],
        teacher_other_latency=latencies[TEACHER][1],
        teacher_size_bytes=inputs.teacher.stat().st_size,
        metric=metric,
        floor=floor,
        floor_met=floor_met,
        default=default,
        reason=reason,
        machine=describe(),
        task=to_json(task.spec),
        looks=drift.looks_of(sets.val.pixels),
        conditions=seen,
        doubts=doubts,
        layers=layers,
        no_layers=no_layers,
    )


def _layers(inputs: MeasureInputs, shipped: VariantScore, progress: Progress) -> tuple[Profile | None, str]:
    """Where the time of what ships goes, in a few calls of their own; or why that is not known, in a sentence."""
    from edgetl.bench.profile import profile
    from edgetl.inputs.image import load_pixels, normalise
    from edgetl.processor import computes
    from edgetl.runtime.engines.onnxruntime import Device

    file = inputs.run_dir / shipped.file
    if format_of(file) is not ModelFormat.ONNX:
        return None, "LiteRT's Python package gives no time by operator."
    if not computes(shipped.target):
        return None, f"{shipped.name} is made for {shipped.target}, which does not run here."
    pixels = load_pixels(inputs.index.split("val")[0].path, inputs.spec)[None]
    images = pixels if shipped.input.startswith("uint8") else normalise(pixels, inputs.spec)
    with progress.task("Profiling", total=1) as task:
        found = profile(file.read_bytes(), images, device=Device.CPU, threads=shipped.latency.threads)
        task.advance()
    return found, ""


def _reference(known: Known | None, run_dir: Path, file: Path) -> str:
    return "" if known is None or known.features is None else _below(run_dir, file)


def _unknown(spec: TaskSpec, known: Known | None, index: DataIndex) -> UnknownRecord | None:
    """How a variant tells unknown images; nothing for boxes."""
    import numpy as np

    from edgetl.data.targets import first_class
    from edgetl.measure import unknown

    if known is None or isinstance(spec, Detection):
        return None
    classes = np.array([first_class(spec, sample.label) for sample in index.split("val")], dtype=np.int32)
    return unknown.measure(spec, known, classes)


def _below(folder: Path, file: Path) -> str:
    return file.relative_to(folder).as_posix()


def _outputs(run: Callable[[np.ndarray], Outputs], pixels: np.ndarray) -> Outputs:
    return joined([run(pixels[i : i + 32]) for i in range(0, len(pixels), 32)])


def _time(
    inputs: MeasureInputs, bench: BenchConfig, progress: Progress
) -> dict[str, tuple[Latency, Latency | None]]:
    """The teacher's and the candidates' latencies with their better number of threads and with the other one."""
    from edgetl.bench import apart
    from edgetl.bench.statistics import summarise
    from edgetl.measure.timing import ModelsJob, time_models

    job = ModelsJob(
        teacher=str(inputs.teacher),
        teacher_spec=inputs.teacher_spec,
        spec=inputs.spec,
        picture=str(inputs.index.split("val")[0].path),
        files={c.name: str(c.file) for c in inputs.candidates},
        threads=bench.threads,
        warmup=bench.warmup,
        runs=bench.runs,
    )

    def summary(samples_ms: Sequence[float], number: int) -> Latency:
        return summarise(samples_ms, scenario="single-stream", batch=1, threads=number, warmup=bench.warmup)

    return {
        name: (
            summary(found.samples_ms, found.threads),
            None if found.other_threads is None else summary(found.other_ms, found.other_threads),
        )
        for name, found in apart.run_apart(time_models, job, progress).items()
    }
