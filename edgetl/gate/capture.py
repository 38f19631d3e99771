"""Measuring a bundle for the gate: its figures now, or side by side with another bundle in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetl import files
from edgetl.bench.machine import describe
from edgetl.bench.scenarios import Scenario
from edgetl.bench.stage import model_call, share_handed_on
from edgetl.bench.statistics import summarise
from edgetl.bench.timer import time_calls
from edgetl.bundle.manifest import ModelFormat
from edgetl.errors import BaselineError, DataError
from edgetl.gate.baseline import Accuracy, Baseline, Loads
from edgetl.gate.latency import race
from edgetl.gate.layers import layer_bits
from edgetl.gate.loads import measure_loads
from edgetl.process import usable_cores
from edgetl.progress import SILENT, Progress
from edgetl.records.gate import LatencyTrial
from edgetl.records.measured import Latency
from edgetl.records.scores import BadImages
from edgetl.tasks.all import in_pictures
from edgetl.tasks.base import Detection, MultiHead, Task, TaskSpec, Truths

if TYPE_CHECKING:
    from edgetl.bundle.manifest import Manifest
    from edgetl.runtime.evaluate import ImageSet
    from edgetl.runtime.session import Session

_MOST_IN_TURN = 32
"""Images of which each block of a cascade's calls takes every one."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How latency is sampled: threads of the engine (every usable core where unset) and calls."""

    threads: int | None = None
    warmup: int = 20
    runs: int = 200

    @property
    def engine_threads(self) -> int:
        """Threads of the engine, as a number."""
        return self.threads or usable_cores()


def capture(
    bundle: Path,
    *,
    variant: str | None = None,
    target: str = "auto",
    data: Path | None = None,
    bad_images: BadImages = BadImages.REFUSE,
    timing: Timing | None = None,
    progress: Progress = SILENT,
) -> Baseline:
    """Measure a bundle: accuracy, latency (the model alone, batch 1), size, load time, peak memory and precision.

    Args:
        bundle: the bundle.
        variant: its variant, the default one where unset.
        target: the engine, as in `edgetl.load`.
        data: labelled images to measure accuracy on; the bundle's own test score is taken where unset.
        bad_images: `skip` images that cannot be used, or `refuse` the set.
        timing: how latency is sampled.
        progress: shows images and samples.

    Raises:
        BundleError: the bundle cannot be used.
        BaselineError: no images were given and the bundle has no score of its own.
        DataError: the images cannot be used, or have a class that the bundle does not know.
    """
    timing = timing or Timing()
    with _open(bundle, variant, target, timing.engine_threads) as session:
        [accuracy] = _accuracies([session], data, bad_images, progress)
        [call], [handed_on], _ = calls_of([session], _scored(session, accuracy, data), progress)
        samples = time_calls(call, warmup=timing.warmup, runs=timing.runs, progress=progress)
    latency = _latency(samples, timing.engine_threads, timing.warmup)
    [loads] = measure_loads(
        [bundle], variant=variant, target=target, threads=timing.engine_threads, progress=progress
    )
    return _figures(bundle, session, accuracy, latency, loads, handed_on)


def capture_pair(
    reference: Path,
    candidate: Path,
    *,
    limit: float,
    seconds: float,
    variant: str | None = None,
    target: str = "auto",
    data: Path | None = None,
    bad_images: BadImages = BadImages.REFUSE,
    threads: int | None = None,
    progress: Progress = SILENT,
) -> tuple[Baseline, Baseline, LatencyTrial]:
    """Measure two bundles, their calls timed in turn in this process until it is decided which verdict holds.

    Args:
        reference: the bundle to hold to.
        candidate: the bundle that is judged.
        limit: the largest increase of the median latency that passes.
        seconds: longest time for the timing.
        variant: the variant of both, the default ones where unset.
        target: the engine of both.
        data: as in `capture`, whose errors it raises.
        bad_images: as in `capture`; both are scored on the same images.
        threads: threads of the engines; every usable core where unset.
        progress: shows images and of the timing.
    """
    count = threads or usable_cores()
    with ExitStack() as stack:
        opened = [stack.enter_context(_open(path, variant, target, count)) for path in (reference, candidate)]
        accuracies = _accuracies(opened, data, bad_images, progress)
        scored = _scored(opened[0], accuracies[0], data)
        (first, second), handed_on, images = calls_of(opened, scored, progress)
        trial = race(first, second, limit=limit, seconds=seconds, images=images, progress=progress)
    loads = measure_loads(
        [reference, candidate], variant=variant, target=target, threads=count, progress=progress
    )
    latencies = [_latency(list(ms), count, trial.warmup) for ms in (trial.baseline_ms, trial.current_ms)]
    before, now = (
        _figures(path, opened[at], accuracies[at], latencies[at], loads[at], handed_on[at])
        for at, path in enumerate((reference, candidate))
    )
    return before, now, trial


@contextmanager
def _open(bundle: Path, variant: str | None, target: str, threads: int) -> Iterator[Session]:
    from edgetl.runtime.session import load

    with load(bundle, target=target, variant=variant, threads=threads) as session:
        yield session


def calls_of(
    sessions: Sequence[Session], scored: Callable[[], Sequence[Path]] | None, progress: Progress = SILENT
) -> tuple[list[Callable[[], object]], list[float | None], int]:
    """A call of each model on one image; the share of the images that each cascade hands on; and how many images are
    taken in turn, 1 where no model is a cascade.

    Each runs on its own golden image. Where one is a cascade, whose time depends on the images, all run on the same.

    Args:
        sessions: the models.
        scored: gives the images that a cascade is timed on; its golden ones where None, which is said.
        progress: gets the warning.
    """
    images = [session.bundle.golden_images() for session in sessions]
    cascades = [
        own for own, session in zip(images, sessions, strict=True) if session.variant.cascade is not None
    ]
    count = 1
    if cascades:
        if scored is None:
            progress.warning(
                "A cascade's time depends on the images, and these are its golden ones; time it on yours with --data."
            )
            shared = cascades[0]
        else:
            from edgetl.data.splits import spread

            shared = tuple(path.read_bytes() for path in spread(scored(), _MOST_IN_TURN))
        images, count = [shared for _ in sessions], len(shared)
    pairs = list(zip(sessions, images, strict=True))
    return (
        [model_call(session, own, 1) for session, own in pairs],
        [share_handed_on(session, own) for session, own in pairs],
        count,
    )


def _scored(session: Session, accuracy: Accuracy, data: Path | None) -> Callable[[], Sequence[Path]] | None:
    """Where the scored images are; None where none were."""
    if data is None:
        return None

    def paths() -> Sequence[Path]:
        from edgetl.data.sources import find
        from edgetl.tasks.labelling import labelling_of

        root = find(str(data), labelling_of(session.manifest.task)).root
        return [root / path for path in accuracy.paths]

    return paths


def _figures(
    path: Path,
    session: Session,
    accuracy: Accuracy,
    latency: Latency,
    loads: Loads,
    handed_on: float | None,
) -> Baseline:
    return Baseline(
        bundle=path.name,
        bundle_sha256=session.bundle.sha256(),
        task=session.manifest.task,
        variant=session.variant.name,
        model_sha256=session.variant.sha256,
        size_bytes=session.variant.size_bytes,
        accuracy=accuracy,
        latency=latency,
        loads=loads,
        layers=_layers(session),
        target=session.choice.target.value,
        placement=_placement(session),
        machine=describe(),
        handed_on=handed_on,
    )


def _layers(session: Session) -> dict[str, int]:
    """Bits of layers, which are read of ONNX files alone."""
    if session.variant.format is not ModelFormat.ONNX:
        return {}
    return layer_bits(session.bundle.read(session.variant.member))


def _placement(session: Session) -> dict[str, int]:
    """Where the nodes run, for the engines that leave to the CPU what they lack; the others run a model as a whole."""
    from edgetl.runtime.engines.onnxruntime import Device, placement
    from edgetl.runtime.targets import EngineName

    match session.choice.target:
        case EngineName.CUDA:
            return placement(session.bundle.read(session.variant.member), Device.CUDA)
        case EngineName.ORT_TENSORRT:
            return placement(session.bundle.read(session.variant.member), Device.TENSORRT)
        case _:
            return {}


def _latency(samples_ms: list[float], threads: int, warmup: int) -> Latency:
    return summarise(
        samples_ms, scenario=Scenario.SINGLE_STREAM.value, batch=1, threads=threads, warmup=warmup
    )


def _accuracies(
    sessions: Sequence[Session], data: Path | None, bad_images: BadImages, progress: Progress
) -> list[Accuracy]:
    if data is not None:
        return measure_accuracies(sessions, data, bad_images=bad_images, progress=progress)
    return [_recorded(session) for session in sessions]


def _recorded(session: Session) -> Accuracy:
    """The bundle's own score."""
    found = session.variant
    for split, scores in (("test", found.test), ("val", found.val)):
        if scores is not None:
            which = _identity(split, session.manifest, scores.images)
            return Accuracy(source="manifest", evaluation=scores, images_sha256=which)
    raise BaselineError(
        f"Variant {found.name} of {session.manifest.name} has no measured accuracy in its bundle. "
        "Give an image set to measure it on."
    )


def measure_accuracies(
    sessions: Sequence[Session],
    data: Path,
    *,
    bad_images: BadImages = BadImages.REFUSE,
    progress: Progress = SILENT,
) -> list[Accuracy]:
    """Score sessions on the same labelled images, and keep what each said of each.

    Images that any of the bundles was trained on are left out for all, see
    `edgetl.runtime.evaluate.choose_images`; so are those that cannot be used, where `bad_images` is `skip`.

    Raises:
        DataError: there are no images, of a class that the bundle does not know, or none of one that it does; or some
            cannot be used.
    """
    from edgetl.runtime.evaluate import choose_images

    images = choose_images(data, [session.bundle for session in sessions], progress=progress)
    labels = sessions[0].labels

    def refuse_missing(truth: Iterable[Any]) -> None:
        _refuse_missing(data, labels, _present(sessions[0].task.spec, truth), images.left_out)

    refuse_missing(sample.label for sample in images.samples)
    found = score_images(sessions, images, bad_images=bad_images, progress=progress)
    refuse_missing(found[-1].truth)
    return found


def score_images(
    sessions: Sequence[Session],
    images: ImageSet,
    *,
    bad_images: BadImages = BadImages.REFUSE,
    progress: Progress = SILENT,
) -> list[Accuracy]:
    """Score sessions on the same images, and keep what each said of each.

    Raises:
        DataError: there are no images, or some cannot be used where `bad_images` is not `skip`.
    """
    from edgetl.runtime.evaluate import truths_for, usable

    kept, bad, found = images.samples, dict[Path, str](), list[Accuracy]()
    for session in sessions:
        # What the first one could decode is what the others are scored on: no image of it may be lost.
        allowed = BadImages.REFUSE if found else bad_images
        outputs, kept, skipped = usable(session, kept, allowed, progress=progress)
        bad |= skipped
        task, paths = session.task, [s.path.relative_to(images.root).as_posix() for s in kept]
        truth = [_portable(sample.label) for sample in kept]
        truths = truths_for(session, kept)
        found.append(
            Accuracy(
                source="measured",
                evaluation=task.score(truths, outputs).summary(),
                images_sha256=files.sha256_json(
                    [
                        [files.sha256_file(s.path), said]
                        for s, said in zip(kept, _said(task, truths, truth), strict=True)
                    ]
                ),
                paths=tuple(paths),
                truth=tuple(truth),
                predictions=tuple(task.plain(in_pictures(task, truths, task.decide(outputs)))),
                image_set=images.use(len(kept), bad),
            )
        )
    return found


def _portable(truth: Any) -> Any:
    """A truth as `Task.plain` has it, without the place of the picture's file on this machine."""
    return {key: value for key, value in truth.items() if key != "file"} if isinstance(truth, dict) else truth


def _said(task: Task, truths: Truths, plain: Sequence[Any]) -> Sequence[Any]:
    """What tells one truth from another: the class in words, or the boxes."""
    return plain if isinstance(task.spec, Detection) else task.words(truths)


def _present(task: TaskSpec, truths: Iterable[Any]) -> set[int]:
    """The classes that there are images of, by their places in the flat names of all; truths are `Task.plain`'s."""
    from edgetl.data.targets import positions

    if isinstance(task, Detection):
        return {label for truth in truths for label in truth["labels"]}
    if isinstance(task, MultiHead):
        truths = [[truth.get(head) for head in task.heads] for truth in truths]
    return {place for truth in truths for place in positions(task, truth)}


def _refuse_missing(data: Path, labels: Sequence[str], present: set[int], left_out: int) -> None:
    if missing := [name for at, name in enumerate(labels) if at not in present]:
        learned = (
            f" besides the {left_out} that a bundle was trained on or validated with" if left_out else ""
        )
        raise DataError(
            f"{data} has no images of {', '.join(missing[:3])}"
            f"{f' and {len(missing) - 3} more' if missing[3:] else ''}{learned}, "
            "which the bundle knows: a class without images could be lost unseen. Add images of it."
        )


def _identity(split: str, manifest: Manifest, images: int) -> str:
    """Which images a bundle's own score belongs to, as far as the bundle says."""
    return files.sha256_json([split, manifest.provenance.data_sha256, list(manifest.labels), images])
