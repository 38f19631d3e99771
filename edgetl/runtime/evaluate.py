"""Score a session on labelled images."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol, TypeVar, assert_never

import numpy as np

from edgetl.bundle.archive import Bundle
from edgetl.data.boxes.entries import BoxEntry, FoundBoxes, Marked
from edgetl.data.boxes.truths import refuse_outside, root_of, truth_of
from edgetl.data.sources import Entry, closest, find, listing
from edgetl.data.targets import heads_target
from edgetl.errors import DataError, EdgetlError, ImageError
from edgetl.files import sha256_file
from edgetl.inputs.image import upright_size
from edgetl.inputs.spec import InputKind
from edgetl.progress import SILENT, Progress
from edgetl.records.scores import (
    BadImages,
    CoverageScore,
    Evaluation,
    SetEvaluation,
    SetUse,
    UnknownEvaluation,
)
from edgetl.runtime.features import pooled
from edgetl.runtime.session import Session
from edgetl.tasks.all import framed
from edgetl.tasks.base import (
    Classification,
    Detection,
    MultiHead,
    MultiLabel,
    Outputs,
    TaskSpec,
    Truths,
    joined,
    labels_of,
)
from edgetl.tasks.detection.found import plain
from edgetl.tasks.labelling import labelling_of

S = TypeVar("S", Entry, BoxEntry)


class Labelled(Protocol):
    """An image file and what is right for it."""

    @property
    def path(self) -> Path:
        """The image."""

    @property
    def label(self) -> Any:
        """One image's truth as `Task.plain` has it: of classification, the position of the class in the labels."""


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """See `Labelled`."""

    path: Path
    label: Any


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Labelled images to score, below `root`, and what is known of them; see `edgetl.records.scores.SetUse`."""

    root: Path
    samples: tuple[LabelledImage, ...]
    trained_on: int | None = None
    chosen_by: int | None = None
    left_out: int = 0

    def use(self, images: int, skipped: Mapping[Path, str]) -> SetUse:
        """What was taken of it, where so many images were scored and these could not be used."""
        return SetUse(
            images=images,
            skipped=tuple(
                (path.relative_to(self.root).as_posix(), reason) for path, reason in skipped.items()
            ),
            trained_on=self.trained_on,
            chosen_by=self.chosen_by,
            left_out=self.left_out,
        )


def evaluate(session: Session, samples: Sequence[Labelled], *, progress: Progress = SILENT) -> Evaluation:
    """The task's scores of a session.

    Raises:
        DataError: there are no samples.
        ImageError: an image cannot be used; the message names it.
    """
    outputs = predict_outputs(session, samples, progress=progress)
    return session.task.score(truths_for(session, samples), outputs)


def truths_for(session: Session, samples: Sequence[Labelled]) -> Truths:
    """What is right for images, with the frames that the session's network has of them."""
    truths = session.task.read([sample.label for sample in samples])
    return framed(session.task, truths, session.manifest.preprocess)


def predict_outputs(session: Session, samples: Sequence[Labelled], *, progress: Progress = SILENT) -> Outputs:
    """The outputs for images in their order; decodes and runs in the engine's number of threads.

    Raises:
        DataError: there are no samples.
        ImageError: an image cannot be used; the message names it.
    """
    if not samples:
        raise DataError("There are no images to score.")
    rows = []
    with progress.task("Scoring", total=len(samples)) as task:
        for _, row in session.outputs_of([sample.path for sample in samples]):
            if isinstance(row, ImageError):
                raise row
            rows.append(row)
            task.advance()
    return joined(rows)


def usable(
    session: Session,
    samples: Sequence[LabelledImage],
    bad_images: BadImages = BadImages.REFUSE,
    *,
    looks: bool = False,
    progress: Progress = SILENT,
) -> tuple[Outputs, tuple[LabelledImage, ...], dict[Path, str]]:
    """The outputs for the images that can be used, pooled where there are maps; these images, and why the others
    cannot.

    Args:
        session: gives the outputs.
        samples: the images.
        bad_images: `skip` images that cannot be used, or `refuse` the set, as a recipe's `data.bad_images`.
        looks: whether the outputs are to have the images' looks, too (`edgetl.inputs.looks`).
        progress: shows images, and of those skipped.

    Raises:
        DataError: there are no images, or some cannot be used and are not skipped, or none can be used; the message
            lists the first.
    """
    if not samples:
        raise DataError("There are no images to score.")
    from edgetl.runtime.unknown.looks import with_looks

    rows, kept, bad = list[Outputs](), list[LabelledImage](), dict[Path, str]()
    with progress.task("Scoring", total=len(samples)) as task:
        for sample, seen in session.seen(samples, lambda sample: session.framed(sample.path)):
            if isinstance(seen, ImageError):
                bad[sample.path] = str(seen)
            else:
                rows.append(pooled(with_looks(seen) if looks else seen.outputs))
                kept.append(sample)
            task.advance()
    refuse_or_skip(bad, len(samples), bad_images, progress, session.manifest.preprocess.kind)
    return joined(rows), tuple(kept), bad


def refuse_or_skip(
    bad: Mapping[Path, str],
    images: int,
    bad_images: BadImages,
    progress: Progress,
    kind: InputKind = InputKind.IMAGE,
) -> None:
    """Warn of images, or recordings, that are skipped, naming them.

    Raises:
        DataError: they may not be skipped, or none of the images is left.
    """
    if not bad:
        return
    named = f"{len(bad)} of {images} {kind.plural} cannot be used"
    if bad_images is BadImages.REFUSE:
        raise DataError(
            f"{named}:\n{listing(bad.values())}\nMend or remove them, or leave them out with --bad-images skip."
        )
    if len(bad) == images:
        raise DataError(f"{named}:\n{listing(bad.values())}")
    progress.warning(f"{named} and are skipped:\n{listing(bad.values())}")


def evaluate_folder(
    session: Session,
    data: Path,
    *,
    bad_images: BadImages = BadImages.REFUSE,
    coverage: float | None = None,
    unknown: Path | None = None,
    progress: Progress = SILENT,
) -> SetEvaluation:
    """As `evaluate`, on a folder CLASS/* or SPLIT/CLASS/*, a CSV, or a source of boxes; see `choose_images`.

    With `coverage` also how often the sets of labels hold the truth that are to do so often; see `Session.predict`.
    With `unknown`, a folder of images that the model should not know, also how well each score tells these from the
    set's (`edgetl.runtime.unknown`).

    Raises:
        BundleError, ConfigError: as in `Session.predict`, for `coverage`.
        ConfigError: `unknown` is asked of a detector.
        DataError: there is nothing to read, a class that the bundle does not know, or images that cannot be used
            where `bad_images` is not `skip`.
    """
    needed = None if coverage is None else session.least_conformities(coverage)
    strangers: tuple[Path, ...] = ()
    if unknown is not None:
        from edgetl.runtime.unknown.evaluate import comparing, images_in

        strangers = images_in(session, unknown, progress=progress)
        session = comparing(session)
    images = choose_images(data, [session.bundle], progress=progress)
    outputs, kept, bad = usable(
        session, images.samples, bad_images, looks=unknown is not None, progress=progress
    )
    truths = truths_for(session, kept)
    found = session.task.score(truths, {one.name: outputs[one.name] for one in session.task.outputs})
    values = {field.name: getattr(found, field.name) for field in fields(found)}
    covered: tuple[CoverageScore, ...] = ()
    if coverage is not None and needed is not None:
        from edgetl.tasks.confidence import coverages

        covered = coverages(session.task, truths, outputs, coverage, needed)
    of_unknown: UnknownEvaluation | None = None
    if unknown is not None:
        from edgetl.runtime.unknown.evaluate import measure

        others = [LabelledImage(path, None) for path in strangers]
        found_there, there, skipped = usable(session, others, bad_images, looks=True, progress=progress)
        of_unknown = measure(
            session,
            unknown,
            known=outputs,
            unknown=found_there,
            samples=[sample.path for sample in kept],
            images=[sample.path for sample in there],
            skipped=skipped,
            progress=progress,
        )
    return SetEvaluation(**values, image_set=images.use(len(kept), bad), coverage=covered, unknown=of_unknown)


def choose_images(data: Path, bundles: Sequence[Bundle], *, progress: Progress = SILENT) -> ImageSet:
    """The images to score bundles on: those of `find_samples`, less what the bundles have learned from.

    Newer bundles know the images that they were trained on and validated with. Where a set has no splits of its own,
    as the very folder that a bundle was made from, those images are left out as long as others remain: first the
    trained ones, then those that choices were made by. Where a set says itself what is for testing, or nothing else
    is left, all are kept. In any case a warning counts them.

    Raises:
        DataError: as `find_samples`.
        BundleIntegrityError: a bundle's record of its images was altered.
    """
    task = bundles[0].manifest.task
    kind = bundles[0].manifest.preprocess.kind
    root, samples, own_split = find_samples(data, task, kind, progress=progress)
    known = [splits for bundle in bundles if (splits := bundle.splits()) is not None]
    if not known:
        return ImageSet(root=root, samples=samples)
    hashes = list(map(_sha256, samples))
    trained = np.any([splits.holds("train", hashes) for splits in known], axis=0)
    chosen = np.any([splits.holds("val", hashes) for splits in known], axis=0) & ~trained
    out = np.zeros(len(samples), dtype=bool)
    for part in (trained, chosen):
        if not own_split and not (out | part).all():
            out |= part
    images = ImageSet(
        root=root,
        samples=tuple(sample for sample, gone in zip(samples, out, strict=True) if not gone),
        trained_on=int(trained.sum()),
        chosen_by=int(chosen.sum()),
        left_out=int(out.sum()),
    )
    _warn_of_learned(images, len(samples), progress)
    return images


def _warn_of_learned(images: ImageSet, count: int, progress: Progress) -> None:
    parts = [
        f"{number} {what}"
        for number, what in (
            (images.trained_on, "it was trained on"),
            (images.chosen_by, "it was validated with"),
        )
        if number
    ]
    if not parts:
        return
    if not images.left_out:
        what = "All are scored, so the scores are better than on new images."
    else:
        what = f"{images.left_out} of them are left out; the other {len(images.samples)} are scored."
    progress.warning(f"Of these {count} images the bundle knows {' and '.join(parts)}. {what}")


def _sha256(sample: LabelledImage) -> str:
    try:
        return sha256_file(sample.path)
    except (OSError, EdgetlError):
        return ""  # It is found among the bad images.


def find_samples(
    data: Path, task: TaskSpec, kind: InputKind = InputKind.IMAGE, *, progress: Progress = SILENT
) -> tuple[Path, tuple[LabelledImage, ...], bool]:
    """The set's root, what is to be scored (its test split, else its validation split, else all), and whether the set
    itself says so by its splits.

    Classes are matched with the task's labels by name; classes without images are allowed.

    Raises:
        DataError: there is nothing to read, or a class is not among the labels; the message names the nearest.
    """
    if isinstance(task, Detection):
        boxes = _found_boxes(data)
        own, said = _to_score(boxes.entries)
        return root_of(boxes), _with_boxes(data, own, task), said
    found = find(str(data), labelling_of(task), kind=kind, progress=progress)
    kept, said = _to_score(found.entries)
    return found.root, with_truths(data, kept, task), said


def _to_score(entries: Sequence[S]) -> tuple[list[S], bool]:
    """Those of the test split, else of the validation split, else all; and whether there are such splits."""
    splits = {entry.split for entry in entries}
    chosen = next((split for split in ("test", "val") if split in splits), None)
    return [entry for entry in entries if chosen is None or entry.split == chosen], chosen is not None


def _found_boxes(data: Path) -> FoundBoxes:
    from edgetl.data.boxes.sources import find_boxes

    found = find_boxes(data)
    if found is None:
        raise DataError(
            f"There are no boxes at {data}, and the bundle is a detector; expected COCO's JSON, a YOLO set's YAML, "
            "VOC's XML files, or a CSV with the columns path, label, x1, y1, x2, y2."
        )
    return found


def _with_boxes(data: Path, entries: Sequence[BoxEntry], task: Detection) -> tuple[LabelledImage, ...]:
    """What is marked in each picture as `Task.plain` has it; a picture that cannot be read is found out later."""
    _places(data, [o.label for entry in entries for o in entry.objects], task.labels)
    marked: dict[Path, Marked] = {}
    for entry in entries:
        with contextlib.suppress(ImageError):
            marked[entry.path] = Marked(upright_size(entry.path), entry.objects)
    refuse_outside(str(data), marked)
    none = Marked((1, 1), ())
    return tuple(
        LabelledImage(e.path, plain(truth_of(e.path, marked.get(e.path, none), task.labels))) for e in entries
    )


def with_truths(
    data: Path, entries: Sequence[Entry], task: Classification | MultiLabel | MultiHead
) -> tuple[LabelledImage, ...]:
    """What is right for each image as `Task.plain` has it."""
    match task:
        case Classification():
            places = _places(data, [entry.names[0] for entry in entries], task.labels)
            return tuple(LabelledImage(entry.path, places[entry.names[0]]) for entry in entries)
        case MultiLabel():
            places = _places(data, [name for entry in entries for name in entry.names], task.labels)
            return tuple(
                LabelledImage(entry.path, sorted(places[name] for name in entry.names)) for entry in entries
            )
        case MultiHead():
            _places(data, [name for entry in entries for name in entry.names], labels_of(task))
            return tuple(LabelledImage(entry.path, _by_head(task, entry)) for entry in entries)
        case _:
            assert_never(task)


def _by_head(task: MultiHead, entry: Entry) -> dict[str, Any]:
    """The heads that an image is labelled for, each as its own task has it."""
    target = zip(task.heads, heads_target(task, entry.names, entry.none_of), strict=True)
    return {head: list(own) if isinstance(own, tuple) else own for head, own in target if own is not None}


def _places(data: Path, names: Sequence[str], labels: Sequence[str]) -> dict[str, int]:
    position = {label: index for index, label in enumerate(labels)}
    for name in sorted(set(names) - position.keys()):
        near = closest(name, labels, cutoff=0.6)
        hint = f"Did you mean {near!r}?" if near else f"It knows: {', '.join(labels)}."
        raise DataError(f"{data} has the class {name!r}, which the bundle does not know. {hint}")
    return position
