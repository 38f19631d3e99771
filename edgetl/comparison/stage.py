"""Compare two runs or bundles: both answer the same images here, and what was measured before is set side by side."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgetl.comparison.images import Split, common_images, named_images
from edgetl.comparison.record import ComparedImages, ComparedModel, Comparison
from edgetl.comparison.settings import origin_differences, recipe_differences
from edgetl.comparison.sides import Side, open_side
from edgetl.errors import ConfigError, DataError
from edgetl.progress import SILENT, Progress
from edgetl.records.gate import LatencyTrial
from edgetl.records.measured import Machine
from edgetl.records.scores import BadImages, Scores
from edgetl.statistics import compare_paired
from edgetl.tasks.all import task_of
from edgetl.tasks.base import Detection, MultiHead, ScoreLimits, TaskSpec
from edgetl.text import few

if TYPE_CHECKING:
    from edgetl.runtime.evaluate import ImageSet
    from edgetl.runtime.session import Session

_LIMIT = 0.025
"""Largest increase of the median latency that the timing in turn asks about: a gate's usual one."""
_FEW = 100
"""Fewer images tell only large differences."""


@dataclass(frozen=True, kw_only=True)
class ComparisonConfig:
    """What to compare on, and with what.

    Attributes:
        data: labelled images; the images that two runs have in common where unset.
        split: of the runs' images. Test images that choices are made by say too much good of what is chosen.
        bad_images: `skip` images that cannot be used, or `refuse` the set.
        variant: of both; what each would run here where unset.
        target: the engine of both, as in `edgetl.load`.
        threads: of the engines; every usable core where unset.
        seconds: longest time to time both in turn; 0 takes what was measured before.
    """

    data: Path | None = None
    split: Split = "val"
    bad_images: BadImages = BadImages.REFUSE
    variant: str | None = None
    target: str = "auto"
    threads: int | None = None
    seconds: float = 0.0


def run(first: Path, second: Path, config: ComparisonConfig, *, progress: Progress = SILENT) -> Comparison:
    """Compare two runs or bundles; see `Comparison`.

    Args:
        first: a run folder or a bundle.
        second: that which is set beside it.
        config: see there.
        progress: shows images and of the timing.

    Raises:
        BundleError: one of the two is neither, or cannot be used.
        ConfigError: they answer other questions or know other classes, or one is a bundle and no image set is named.
        DataError: they have no image in common, or images cannot be used.
    """
    from edgetl.gate.capture import score_images
    from edgetl.gate.compare import box_turns, flips
    from edgetl.runtime.session import load

    sides = open_side(first), open_side(second)
    _refuse_other_task(sides)
    images, about = _images(sides, config, progress)
    with ExitStack() as stack:
        sessions = [
            stack.enter_context(
                load(side.bundle.path, target=config.target, variant=config.variant, threads=config.threads)
            )
            for side in sides
        ]
        before, now = score_images(sessions, images, bad_images=config.bad_images, progress=progress)
        trial = _time(sessions, images, config, progress) if config.seconds else None
    specs = [side.bundle.manifest.task for side in sides]
    tasks = [task_of(spec) for spec in specs]
    truths, was, is_now = (
        tasks[1].read(values) for values in (now.truth, before.predictions, now.predictions)
    )
    same_model = sessions[0].variant.sha256 == sessions[1].variant.sha256
    models = [
        _model(side, name, session, accuracy.evaluation)
        for side, name, session, accuracy in zip(
            sides, _names(first, second), sessions, (before, now), strict=True
        )
    ]
    recipes = sides[0].recipe, sides[1].recipe
    about = replace(about, images=len(now.paths))
    rights = tasks[0].right(truths, was), tasks[1].right(truths, is_now)
    return Comparison(
        first=models[0],
        second=models[1],
        settings=None
        if recipes[0] is None or recipes[1] is None
        else recipe_differences(recipes[0], recipes[1]),
        origins=origin_differences(sides[0].bundle.manifest, sides[1].bundle.manifest),
        images=about,
        right=compare_paired(*rights),
        both_right=int((rights[0] & rights[1]).sum()),
        checks=tasks[1].judge(truths, was, is_now, ScoreLimits(same_model=same_model)),
        flips=None if isinstance(specs[1], Detection) else flips(before, now, tasks[1]),
        boxes=box_turns(before, now, *specs),
        trial=trial,
        notes=tuple(_notes(about, models, trial)),
    )


def _images(
    sides: tuple[Side, Side], config: ComparisonConfig, progress: Progress
) -> tuple[ImageSet, ComparedImages]:
    if config.data is not None:
        images, about = named_images(config.data, sides, progress=progress)
        if not images.samples:
            raise DataError(
                f"{config.data} has no images to compare on. Name another labelled set with --data."
            )
        return images, about
    alone = [str(side.path) for side in sides if side.run is None]
    if alone:
        raise ConfigError(
            f"{' and '.join(alone)}: a bundle does not hold the images that it was validated with. Name labelled images"
            " with --data, or compare run folders."
        )
    return common_images(*sides, config.split)


def _refuse_other_task(sides: tuple[Side, Side]) -> None:
    first, second = (_labels_by_head(side.bundle.manifest.task) for side in sides)
    if first != second:
        names = [str(side.path) for side in sides]
        what = [
            ", ".join(f"{head}{'' if not head else ': '}{kind}" for head, (kind, _) in one.items())
            for one in (first, second)
        ]
        if what[0] != what[1]:
            raise ConfigError(
                f"{names[0]} is of the task {what[0]}, {names[1]} of {what[1]}: they answer other questions. Compare"
                " runs of one task."
            )
        parts = []
        for head in first:
            own, other = first[head][1], second[head][1]
            gone = [label for label in own if label not in other]
            new = [label for label in other if label not in own]
            parts += [
                f"{name} alone knows {few(some)}"
                for name, some in zip(names, (gone, new), strict=True)
                if some
            ]
        raise ConfigError(
            f"{names[0]} and {names[1]} do not know the same classes"
            f" ({'; '.join(parts) or 'they have them in another order'}). Compare runs of the same classes; what a"
            " class more costs the old ones stands in the report of `edgetl extend`."
        )


def _labels_by_head(task: TaskSpec) -> dict[str, tuple[str, tuple[str, ...]]]:
    """What is asked, by head; of a task without heads the name is empty."""
    if isinstance(task, MultiHead):
        return {name: (head.kind, head.labels) for name, head in task.heads.items()}
    return {"": (task.kind, task.labels)}


def _time(
    sessions: Sequence[Session], images: ImageSet, config: ComparisonConfig, progress: Progress
) -> LatencyTrial:
    from edgetl.gate.capture import calls_of
    from edgetl.gate.latency import race

    (first, second), _, count = calls_of(
        sessions, lambda: [sample.path for sample in images.samples], progress
    )
    return race(first, second, limit=_LIMIT, seconds=config.seconds, images=count, progress=progress)


def _model(side: Side, name: str, session: Session, scores: Scores) -> ComparedModel:
    variant = session.variant
    latency, machine = variant.latency, variant.machine
    if side.run is not None:
        measured = side.run.measure
        latency, machine = next(
            ((v.latency, measured.machine) for v in measured.variants if v.sha256 == variant.sha256),
            (latency, machine),
        )
    return ComparedModel(
        name=name,
        path=str(side.path),
        variant=variant.name,
        precision=variant.precision.value,
        target=session.choice.target.value,
        size_bytes=variant.size_bytes,
        bundle_bytes=len(side.bundle.content()),
        scores=scores,
        latency=latency,
        machine=machine,
    )


def _names(first: Path, second: Path) -> tuple[str, str]:
    """The last parts of the paths, as many as tell them apart."""
    parts = [path.absolute().parts for path in (first, second)]
    for count in range(1, max(map(len, parts)) + 1):
        names = [str(Path(*own[-count:])) for own in parts]
        if names[0] != names[1]:
            return names[0], names[1]
    return str(first), f"{second} (again)"


def _notes(about: ComparedImages, models: Sequence[ComparedModel], trial: LatencyTrial | None) -> list[str]:
    found = []
    if about.only_first or about.only_second:
        found.append(
            f"The splits differ: {_counted(about.only_first)} only in {models[0].name}'s, {about.only_second} only in"
            f" {models[1].name}'s; all figures are of the {about.images} in both."
        )
    if about.relabelled:
        found.append(f"Left out, since the two label them differently: {_counted(about.relabelled)}.")
    if about.split == "val":
        found.append(
            "Epochs, cuts and variants were chosen by validation images, so both scores are better than on new ones."
        )
    if about.images < _FEW:
        found.append(f"So few images ({about.images}) tell only large differences.")
    found += _of_latency(models, trial)
    return found


def _counted(images: int) -> str:
    return f"{images} image{'' if images == 1 else 's'}"


def _of_latency(models: Sequence[ComparedModel], trial: LatencyTrial | None) -> list[str]:
    if trial is not None:
        return list(trial.notes)
    machines = {_fingerprint(one.machine) for one in models if one.latency is not None}
    if len(machines) > 1:
        return [
            "The latencies were measured on other machines and do not compare; time both here with --seconds 20."
        ]
    if all(one.latency is not None for one in models):
        return [
            "The latencies were measured at other times, between which a machine differs from itself; time both in turn"
            " with --seconds 20."
        ]
    return []


def _fingerprint(machine: Machine | None) -> str:
    return machine.fingerprint if machine else ""


def page_name(record: Comparison) -> str:
    """A file for the page of a comparison, of both names."""
    names = [
        Path(one.name).with_suffix("").as_posix().replace("/", "-") for one in (record.first, record.second)
    ]
    return f"compare-{names[0]}-{names[1]}.html"
