"""What each variant makes of known images, computed as its target computes it; see `edgetl.bundle.reference`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgetl.bundle.manifest import ModelFormat
from edgetl.bundle.reference import MOST_BYTES, NO_CLASS, Reference, class_labels, decode, encode, room
from edgetl.data.pixels import open_pixels
from edgetl.data.splits import draw_evenly, spread
from edgetl.data.targets import first_class
from edgetl.errors import ModelError
from edgetl.files import write_bytes
from edgetl.inputs.looks import PIXELS, looks
from edgetl.measure.candidates import CandidateModel, format_of, open_backend, runner
from edgetl.measure.far import far
from edgetl.progress import SILENT, Progress, ProgressTask
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from edgetl.runtime.features import EMBEDDING, PooledHead, pooled, pooled_head
from edgetl.runtime.unknown.scores import Features
from edgetl.runtime.wire import with_outputs
from edgetl.tasks.all import task_of
from edgetl.tasks.base import Detection, Outputs, TaskSpec, joined

if TYPE_CHECKING:
    from edgetl.data.index import DataIndex, Sample
    from edgetl.inputs.image import PreprocessSpec

MOST_MEASURED = 5_000
"""Training images that are looked at, at most; the class means are of these."""
_FAR = 100
"""Pictures of each kind that show nothing known, at most."""
_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Known:
    """What one variant makes of images; outputs have looks, and embeddings (`edgetl.runtime.features.pooled`)
    where it shows them.

    Attributes:
        features: what is kept of known images, as the bundle gives it back, and the last layer; None where the network
            pools no feature map.
        validation: the outputs of all validation images.
        test: of all test images, where there are some.
        far: of each kind of picture of `edgetl.measure.far`, made of the validation images at `far_of`.
        far_of: (n,) positions.
    """

    features: Features | None
    validation: Outputs
    test: Outputs | None
    far: Mapping[str, Outputs]
    far_of: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ReferenceInputs:
    """What is read; as in `edgetl.measure.stage.MeasureInputs`."""

    candidates: tuple[CandidateModel, ...]
    index: DataIndex
    spec: PreprocessSpec
    pixels_dir: Path
    seed: int
    threads: int


def run(inputs: ReferenceInputs, *, out: Path, progress: Progress = SILENT) -> dict[str, Known]:
    """Look at known images with every candidate; nothing for boxes.

    For each whose network pools a feature map, `NAME.npz` is written into the folder.

    Raises:
        ImageError: an image cannot be decoded.
        StorageError: a file cannot be written.
    """
    spec = inputs.index.task
    if isinstance(spec, Detection):
        return {}
    training = _drawn(inputs.index, inputs.seed)
    splits = (training, inputs.index.split("val"), inputs.index.split("test"))
    pixels = [open_pixels(part, inputs.spec, inputs.pixels_dir, progress) for part in splits]
    classes = _classes(spec, splits[1])
    far_of = np.array(spread(range(len(splits[1])), _FAR), dtype=np.int64)
    made = far(np.asarray(pixels[1][far_of]), classes[far_of], inputs.seed)
    images = _Images(training=pixels[0], others=(pixels[1], pixels[2], *made.values()))
    found = {}
    with progress.task("Known images", total=len(inputs.candidates) * len(images)) as task:
        for candidate in inputs.candidates:
            head, model = _with_map(candidate, spec, progress)
            trained, (validation, test, *shown) = _looked_at(candidate, model, inputs, images, task)
            features = None
            if head is not None:
                kept = _reference(spec, splits[0], splits[1], trained, validation, inputs.seed)
                features = _written(out / f"{candidate.name}.npz", kept, head, spec, progress)
            found[candidate.name] = Known(
                features=features,
                validation=validation,
                test=test if splits[2] else None,
                far=dict(zip(made, shown, strict=True)),
                far_of=far_of,
            )
    return found


@dataclass(frozen=True, kw_only=True)
class _Images:
    """Pixels (N, S, S, 3) uint8: training images, and others, of which a network without a map is asked too."""

    training: NDArray[np.uint8]
    others: tuple[NDArray[np.uint8], ...]

    def __len__(self) -> int:
        return len(self.training) + sum(map(len, self.others))


def _with_map(
    candidate: CandidateModel, spec: TaskSpec, progress: Progress
) -> tuple[PooledHead | None, bytes | None]:
    """The end of a candidate's network, and its model with the feature map shown; neither where it pools none."""
    if format_of(candidate.file) is not ModelFormat.ONNX:
        return None, None
    model = candidate.file.read_bytes()
    try:
        head = pooled_head(model, [one.name for one in task_of(spec).outputs])
    except ModelError as error:
        progress.message(f"{candidate.name} keeps no known images. {error}")
        return None, None
    return head, with_outputs(model, head.shown)


def _written(
    path: Path, kept: Reference, head: PooledHead, spec: TaskSpec, progress: Progress
) -> Features | None:
    """Write what is kept, and give it as the bundle will; None where it cannot be kept."""
    try:
        content = encode(kept)
    except ModelError as error:
        progress.message(f"{path.stem} keeps no known images. {error}")
        return None
    write_bytes(path, content)
    return Features(reference=decode(content, spec, str(path)), weights=head.weights)


def _drawn(index: DataIndex, seed: int) -> list[Sample]:
    """At most `MOST_MEASURED` training images, evenly from their classes."""
    samples = index.split("train")
    strata = index.strata(samples)
    items = [(sample.sha256, stratum) for sample, stratum in zip(samples, strata, strict=True)]
    return [samples[at] for at in draw_evenly(items, MOST_MEASURED, f"{seed}:known")]


def _looked_at(
    candidate: CandidateModel,
    model: bytes | None,
    inputs: ReferenceInputs,
    images: _Images,
    task: ProgressTask,
) -> tuple[Outputs, list[Outputs]]:
    """What a candidate, or the model of it that shows its feature map, makes of training images, and of each other set;
    without a map, no training images are looked at."""
    backend = (
        open_backend(candidate.file, threads=inputs.threads)
        if model is None
        else OnnxBackend(model, threads=inputs.threads)
    )
    with backend:
        run_ = runner(backend, candidate.file, candidate.target, inputs.spec, model)

        def outputs(pixels: NDArray[np.uint8]) -> Outputs:
            rows = list[Outputs]()
            for at in range(0, len(pixels), _BATCH):
                some = pixels[at : at + _BATCH]
                seen = np.stack([looks(one) for one in some])
                rows.append({**pooled(run_(some)), PIXELS: seen})
                task.advance(len(some))
            return joined(rows) if rows else {}

        if model is None:
            task.advance(len(images.training))
            return {}, [outputs(part) for part in images.others]
        return outputs(images.training), [outputs(part) for part in images.others]


def _reference(
    spec: TaskSpec,
    training: Sequence[Sample],
    held_out: Sequence[Sample],
    trained: Outputs,
    validation: Outputs,
    seed: int,
) -> Reference:
    """What has room in the bundle."""
    embeddings, logits = (
        trained[EMBEDDING],
        {name: validation[name] for name in validation if name not in (EMBEDDING, PIXELS)},
    )
    labels, features = len(class_labels(spec)), embeddings.shape[1]
    classes, own = (_classes(spec, part) for part in (training, held_out))
    counts = np.bincount(classes[classes != NO_CLASS], minlength=labels)
    shown = np.eye(labels, dtype=np.float32)[classes] * (classes != NO_CLASS)[:, None]
    means = shown.T @ embeddings / np.maximum(counts, 1)[:, None]
    fit = draw_evenly(
        [(sample.sha256, int(at)) for sample, at in zip(training, classes, strict=True)],
        room(features),
        f"{seed}:embeddings",
    )
    width = sum(array.shape[1] for array in logits.values())
    # As they come, so that they show how often each class does.
    taken = draw_evenly(
        [(sample.sha256, 0) for sample in held_out], room(features, 4 * width), f"{seed}:validation"
    )
    return Reference(
        embeddings=embeddings[fit],
        classes=classes[fit],
        means=means if means.size * 2 <= MOST_BYTES else means[:0],
        counts=counts.astype(np.int32),
        validation=validation[EMBEDDING][taken],
        validation_classes=own[taken],
        logits={name: array[taken] for name, array in logits.items()},
        looks=trained[PIXELS][fit],
        validation_looks=validation[PIXELS][taken],
    )


def _classes(spec: TaskSpec, samples: Sequence[Sample]) -> NDArray[np.int32]:
    return np.array([first_class(spec, sample.label) for sample in samples], dtype=np.int32)
