"""A new class from a few pictures, on a device: without training, and known classes stay as they are.

Every variant that this machine computes as its target does gets the class (`edgetl.runtime.prototypes`), by its own
embeddings and its own margin (`edgetl.runtime.calibrating`). The new bundle has its own golden outputs, reference and
provenance, is tried before it takes its name, and is not signed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from edgetl._version import __version__
from edgetl.bundle import reference as references
from edgetl.bundle.archive import Bundle, open_bundle
from edgetl.bundle.manifest import ModelFormat, Provenance, Variant
from edgetl.bundle.reference import Reference
from edgetl.bundle.revise import Revision, revise
from edgetl.data import labels as class_names
from edgetl.errors import BundleError, ConfigError, ImageError, ModelError
from edgetl.failures import cause
from edgetl.files import atomic_path, sha256_bytes, sha256_json
from edgetl.inputs.looks import PIXELS
from edgetl.processor import computes
from edgetl.progress import SILENT, Progress
from edgetl.records.enrol import EnrolledVariant, EnrolRecord
from edgetl.records.lineage import ENROLLED, LineageStep
from edgetl.runtime import calibrating
from edgetl.runtime.features import EMBEDDING, MAP, embeddings, pooled_head
from edgetl.runtime.known import known_images
from edgetl.runtime.prototypes import Added, added_in, with_classes
from edgetl.runtime.session import load
from edgetl.runtime.unknown.looks import with_looks
from edgetl.runtime.wire import read_graph, with_property
from edgetl.tasks.base import LOGITS, Classification
from edgetl.tasks.classification.answers import scaled, softmax
from edgetl.tasks.classification.task import ClassificationTask
from edgetl.tasks.conformal import Conformity, conformities_one, conformity

MOST_PICTURES = 20
"""A class of more pictures is worth a training."""
_LABELS = "edgetl.labels"
"""The models' own property that names their classes, for whoever takes them out of the bundle."""


@dataclass(frozen=True, kw_only=True)
class Enrolment:
    """How a class is added.

    Attributes:
        variant: only this one; every one that this machine computes where unset.
        target: the engine, as in `edgetl.load`.
        threads: of the engine; every usable core where unset.
        false_alarms: the share of images of known classes that may be answered with an added class.

    Raises:
        ConfigError: the share is out of range.
    """

    variant: str | None = None
    target: str = "auto"
    threads: int | None = None
    false_alarms: float = calibrating.FALSE_ALARMS

    def __post_init__(self) -> None:
        if not 0.0 < self.false_alarms < 0.5:
            raise ConfigError(
                f"false alarms: got {self.false_alarms:g}, expected a share above 0 and below 0.5, as 0.005."
            )


@dataclass(frozen=True, kw_only=True)
class _Change:
    """What becomes of the classes: pictures of one more, or the place of one that goes."""

    label: str
    pictures: tuple[bytes, ...] = ()
    forgotten: int | None = None


def enrol(
    path: Path,
    label: str,
    pictures: Sequence[Path],
    out: Path,
    options: Enrolment | None = None,
    *,
    progress: Progress = SILENT,
) -> EnrolRecord:
    """Write a bundle that also knows the class `label`.

    Args:
        path: the bundle.
        label: the new class's name.
        pictures: 1 to `MOST_PICTURES` files that show it. Their sizes may differ: each is prepared by itself.
        out: where to write; may be `path`.
        options: how.
        progress: gets a bar of the variants.

    Raises:
        BundleError: the bundle has nothing to compare with, or no variant of it runs here.
        ConfigError: the name or the number of pictures cannot be, or the bundle is of another task.
        ImageError: a picture cannot be used; the message names it.
        ModelError: what was written does not compute here what it should; then nothing is written.
        StorageError: the bundle cannot be written.
    """
    bundle = open_bundle(path)
    labels = _labels(bundle)
    _check_name(label, labels)
    if not 1 <= len(pictures) <= MOST_PICTURES:
        raise ConfigError(
            f"{len(pictures) or 'No'} pictures of {label} were given; expected 1 to {MOST_PICTURES}."
            + (" With so many, train: edgetl extend RUN --add DATA" if pictures else " Name some.")
        )
    contents = tuple(_content(picture) for picture in pictures)
    if len(set(contents)) < len(contents):
        twice = next(str(p) for at, p in enumerate(pictures) if contents[at] in contents[:at])
        raise ConfigError(f"{twice} has the same content as a picture before it; give each picture once.")
    change = _Change(label=label, pictures=contents)
    return _Writing(bundle, change, out, options or Enrolment(), progress, pictures).run()


def forget(
    path: Path, label: str, out: Path, options: Enrolment | None = None, *, progress: Progress = SILENT
) -> EnrolRecord:
    """Write a bundle without a class that was added to it.

    Raises:
        As `enrol`; ConfigError: the bundle has no such class, or it was trained.
    """
    bundle = open_bundle(path)
    labels = _labels(bundle)
    if label not in labels:
        raise ConfigError(f"{path} has no class {label!r}; it has {', '.join(labels)}.")
    change = _Change(label=label, forgotten=labels.index(label))
    return _Writing(bundle, change, out, options or Enrolment(), progress, ()).run()


def _labels(bundle: Bundle) -> tuple[str, ...]:
    if not isinstance(bundle.manifest.task, Classification):
        raise ConfigError(
            f"{bundle.path} is of the task {bundle.manifest.task.kind}; classes are added to bundles of one class per"
            " image."
        )
    return bundle.manifest.labels


def _check_name(label: str, labels: Sequence[str]) -> None:
    if fault := class_names.fault(label):
        raise ConfigError(f"{fault[0].upper()}{fault[1:]}; give another name.")
    if label in labels:
        raise ConfigError(
            f"There is a class {label!r} already; give another name, or take one that was added away with --forget."
        )
    if alike := [own for own in labels if class_names.alike((own, label))]:
        raise ConfigError(f"{label!r} looks like the class {alike[0]!r}; give another name.")


def _content(picture: Path) -> bytes:
    try:
        return picture.read_bytes()
    except OSError as error:
        raise ImageError(f"{picture}: cannot be read ({cause(error)}).") from error


class _Writing:
    """One new bundle in the making."""

    def __init__(
        self,
        bundle: Bundle,
        change: _Change,
        out: Path,
        options: Enrolment,
        progress: Progress,
        names: Sequence[Path],
    ) -> None:
        self.bundle, self.change, self.out, self.options = bundle, change, out, options
        self.progress, self.names = progress, names
        self.notes: list[str] = []
        self.rows: list[EnrolledVariant] = []
        self.described = False

    def run(self) -> EnrolRecord:
        begun = time.perf_counter()
        bundle, change = self.bundle, self.change
        chosen, left_out = self._chosen()
        task = self._task()
        revisions = {}
        with self.progress.task("Variants", total=2 * len(chosen)) as bar:
            for variant in chosen:
                revisions[variant.name] = self._revision(variant, task)
                bar.advance(note=variant.name)
            learned = bundle.splits()
            if learned is not None:
                learned = learned.with_trained([sha256_bytes(content) for content in change.pictures])
            with atomic_path(self.out) as temporary:
                revise(
                    bundle,
                    revisions,
                    temporary,
                    task=task,
                    provenance=self._provenance(),
                    learned=learned,
                )
                for variant in chosen:
                    self._try(temporary, variant)
                    bar.advance(note=f"{variant.name} tried")
        return EnrolRecord(
            path=str(self.out),
            label=change.label,
            forgotten=change.forgotten is not None,
            pictures=len(change.pictures),
            labels=task.labels,
            false_alarms=self.options.false_alarms,
            variants=tuple(self.rows),
            left_out=tuple(left_out.items()),
            notes=tuple(dict.fromkeys(self.notes)),
            seconds=time.perf_counter() - begun,
        )

    def _chosen(self) -> tuple[list[Variant], dict[str, str]]:
        """The variants that get the class, and why the others do not."""
        bundle = self.bundle
        if self.options.variant is not None:
            asked = bundle.variant(self.options.variant)
            known_images(bundle, asked, "enrol")
        chosen, left_out = list[Variant](), dict[str, str]()
        for variant in bundle.manifest.variants:
            if self.options.variant not in (None, variant.name):
                left_out[variant.name] = "another was asked for"
            elif variant.format is ModelFormat.TFLITE:
                left_out[variant.name] = "a .tflite file cannot be changed here"
            elif variant.reference is None:
                left_out[variant.name] = "it keeps nothing of known images"
            elif not computes(variant.target):
                left_out[variant.name] = f"it is made for {variant.target}, which this machine is not"
            else:
                chosen.append(variant)
        if not chosen:
            known_images(bundle, bundle.variant(), "enrol")  # says what to do where there is no reference
            reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
            raise BundleError(f"{bundle.path} has no variant that a class can be added to here ({reasons}).")
        return chosen, left_out

    def _task(self) -> Classification:
        spec = cast(Classification, self.bundle.manifest.task)
        forgotten = self.change.forgotten
        if forgotten is None:
            labels = (*spec.labels, self.change.label)
        else:
            labels = (*spec.labels[:forgotten], *spec.labels[forgotten + 1 :])
        if spec.relation is not None:
            self.notes.append(
                f"How the classes are related ({spec.relation.kind}) does not say where an added class belongs, so the"
                " new bundle does not know it: --sure has no groups to answer."
            )
        return Classification(labels=labels)

    def _revision(self, variant: Variant, task: Classification) -> Revision:
        """A variant with the class, or without it."""
        bundle, change = self.bundle, self.change
        model = bundle.read(variant.member)
        before = added_in(read_graph(model))
        count = len(bundle.manifest.labels) - (0 if before is None else len(before.prototypes))
        where = str(bundle.path)
        reference = known_images(bundle, variant, "enrol")
        if change.forgotten is None:
            shown, seen, recorded = self._embedded(variant)
            reference = _with(reference, shown[len(recorded) :], seen[len(recorded) :])
            golden_embeddings = shown[: len(recorded)]
        else:
            if change.forgotten < count:
                trained = ", ".join(bundle.manifest.labels[count:]) or "none"
                raise ConfigError(
                    f"{change.label!r} was trained, and cannot be taken away here; added classes: {trained}."
                )
            golden_embeddings, _, recorded = self._embedded(variant)
            reference = _without(reference, change.forgotten)
        known = calibrating.known_classes(reference, count, len(task.labels), where)
        added = calibrating.calibrated(
            known, variant.temperatures.get(LOGITS, 1.0), self.options.false_alarms
        )
        outputs = calibrating.logits(known, added)
        self._describe(variant, known, added, outputs)
        reference = replace(reference, logits={LOGITS: outputs})
        answering = ClassificationTask(spec=task, temperature=variant.temperatures.get(LOGITS, 1.0))
        truths = reference.validation_classes.astype(np.int64)
        chances = softmax(scaled(outputs, answering.temperature))
        longer = with_classes(model, LOGITS, pooled_head(model, [LOGITS]).map, added)
        return Revision(
            model=with_property(longer, _LABELS, json.dumps(list(task.labels), ensure_ascii=False)),
            golden={LOGITS: added.logits(recorded[:, :count], golden_embeddings)},
            reference=references.encode(reference),
            conformities={LOGITS: conformity(conformities_one(chances, truths))},
            normal=_normal(variant, task, reference, longer),
            val=answering.score(truths, {LOGITS: outputs}),
        )

    def _embedded(
        self, variant: Variant
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """The embeddings and the looks of the golden images and of the new pictures, and the golden images' recorded
        logits."""
        bundle = self.bundle
        golden = bundle.golden_images()
        with load(
            bundle.path, target=self.options.target, variant=variant.name, threads=self.options.threads
        ) as session:
            showing = session.with_features()
            rows, looked = [], []
            for at, content in enumerate((*golden, *self.change.pictures)):
                # By name, so that what is wrong with a picture is said of its file.
                picture = content if at < len(golden) else self.names[at - len(golden)]
                seen = with_looks(showing.see(picture))
                rows.append(embeddings({MAP: seen[MAP]})[0].copy())
                looked.append(seen[PIXELS][0])
        return np.stack(rows), np.stack(looked), bundle.golden_outputs(variant.name)[LOGITS]

    def _describe(
        self, variant: Variant, known: calibrating.Known, added: Added, outputs: NDArray[np.float32]
    ) -> None:
        """The variant's figures, and what is to be said of the pictures."""
        reference, count = known.reference, known.count
        truths = reference.validation_classes
        was = reference.logits[LOGITS][:, :count].argmax(axis=1)
        now = outputs.argmax(axis=1)
        pictures = len(self.change.pictures)
        self.rows.append(
            EnrolledVariant(
                name=variant.name,
                images=len(truths),
                before=float((was == truths).mean()),
                after=float((now == truths).mean()),
                added=float((now >= count).mean()),
                found=calibrating.leave_one_out_hits(known, added, len(known.means) - 1)
                if pictures
                else None,
            )
        )
        if pictures and not self.described:  # by the first variant: the others see alike
            self.described = True
            labels = self.bundle.manifest.labels
            own = reference.embeddings[-pictures:]
            for name, place in zip(self.names, calibrating.like_known(known, added, own), strict=True):
                if place is not None:
                    self.notes.append(
                        f"{name} looks as much like the class {labels[place]} as that class's own images do."
                    )

    def _provenance(self) -> Provenance:
        """The bundle's, with the class as one more step of what was learned; without its step where it is forgotten."""
        change, before = self.change, self.bundle.manifest.provenance
        lineage = before.lineage
        if change.forgotten is None:
            if lineage:
                lineage = (*lineage[:-1], replace(lineage[-1], file=self.bundle.sha256()))
            step = LineageStep(
                kind=ENROLLED,
                name=change.label,
                images=len(change.pictures),
                classes=(change.label,),
                data=sha256_json([sha256_bytes(content) for content in change.pictures]),
            )
            lineage = (*lineage, step)
        else:
            lineage = tuple(s for s in lineage if (s.kind, s.name) != (ENROLLED, change.label))
        return replace(before, lineage=lineage, created_by=f"edgetl {__version__}")

    def _try(self, path: Path, variant: Variant) -> None:
        """Raises ModelError where the engine does not compute what was written."""
        with load(
            path, target=self.options.target, variant=variant.name, threads=self.options.threads
        ) as session:
            checked = session.verify()
        if not checked.passed:
            raise ModelError(
                f"The class was not added, since the engine gives something else: {checked.reason}"
            )


def _normal(variant: Variant, task: Classification, reference: Reference, model: bytes) -> Conformity | None:
    """What is normal of known images by the score that tells unknown ones, where the variant has one.

    Args:
        variant: names the score.
        task: of the new bundle.
        reference: of the new bundle.
        model: with the added classes, whose pictures are known now.
    """
    from edgetl.runtime.unknown.judge import normal
    from edgetl.runtime.unknown.scores import Features, scorer

    if variant.unknown is None:
        return None
    kept = references.decode(
        references.encode(reference), task, variant.name
    )  # as the new bundle gives it back
    features = Features(reference=kept, weights=pooled_head(model, [LOGITS]).weights)
    score = scorer(variant.unknown.score, task, features)
    return normal(
        score({EMBEDDING: kept.validation, LOGITS: kept.logits[LOGITS], PIXELS: kept.validation_looks})
    )


def _with(reference: Reference, shown: NDArray[np.float32], seen: NDArray[np.float32]) -> Reference:
    """With one class more, of pictures whose embeddings are (n, F) and whose looks (n, 7)."""
    place = len(reference.counts)
    means = reference.means
    if len(means):
        means = np.concatenate([means, shown.mean(axis=0, keepdims=True)])
    return replace(
        reference,
        embeddings=np.concatenate([reference.embeddings, shown]),
        classes=np.concatenate([reference.classes, np.full(len(shown), place, dtype=np.int32)]),
        means=means,
        counts=np.append(reference.counts, np.int32(len(shown))),
        looks=np.concatenate([reference.looks, seen]) if reference.has_looks else reference.looks,
    )


def _without(reference: Reference, place: int) -> Reference:
    """With one class less; those after it move up."""
    kept = reference.classes != place
    classes = reference.classes[kept]
    return replace(
        reference,
        embeddings=reference.embeddings[kept],
        classes=(classes - (classes > place)).astype(np.int32),
        means=np.delete(reference.means, place, axis=0) if len(reference.means) else reference.means,
        counts=np.delete(reference.counts, place),
        looks=reference.looks[kept] if reference.has_looks else reference.looks,
    )
