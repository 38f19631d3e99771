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
from edgetl.data.splits import draw_evenly
from edgetl.data.targets import first_class
from edgetl.errors import ModelError
from edgetl.files import write_bytes
from edgetl.measure.candidates import CandidateModel, format_of, runner
from edgetl.progress import SILENT, Progress, ProgressTask
from edgetl.tasks.all import task_of
from edgetl.tasks.base import Detection, Outputs, TaskSpec, joined

if TYPE_CHECKING:
    from edgetl.data.index import DataIndex, Sample
    from edgetl.inputs.image import PreprocessSpec

MOST_MEASURED = 5_000
"""Training images that are looked at, at most; the class means are of these."""
_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Known:
    """Images that were looked at, as one variant sees them: N training images, M validation images.

    Attributes:
        reference: what is kept of them, as the bundle gives it back.
        validation: (M, F) float32, the embeddings of all validation images.
        outputs: these images' outputs.
    """

    reference: Reference
    validation: NDArray[np.float32]
    outputs: Outputs


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
    """Write `NAME.npz` into the folder for each candidate whose network pools a feature map; return what they hold.

    Raises:
        ImageError: an image cannot be decoded.
        StorageError: a file cannot be written.
    """
    spec = inputs.index.task
    if isinstance(spec, Detection):
        return {}
    opened = list[tuple[CandidateModel, bytes]]()
    for candidate in inputs.candidates:
        if format_of(candidate.file) is ModelFormat.ONNX:
            try:
                opened.append((candidate, _with_map(candidate.file.read_bytes(), spec)))
            except ModelError as error:
                progress.message(f"{candidate.name} keeps no known images. {error}")
    if not opened:
        return {}
    training, held_out = _drawn(inputs.index, inputs.seed), inputs.index.split("val")
    pixels = [open_pixels(part, inputs.spec, inputs.pixels_dir, progress) for part in (training, held_out)]
    found = {}
    with progress.task("Known images", total=len(opened) * sum(map(len, pixels))) as task:
        for candidate, model in opened:
            seen, fresh = _looked_at(candidate, model, inputs, pixels, task)
            try:
                content = encode(_kept(spec, training, held_out, seen[0], fresh, inputs.seed))
            except ModelError as error:
                progress.message(f"{candidate.name} keeps no known images. {error}")
                continue
            path = out / f"{candidate.name}.npz"
            write_bytes(path, content)
            kept = decode(content, spec, str(path))
            found[candidate.name] = Known(reference=kept, validation=fresh[0], outputs=fresh[1])
    return found


def _with_map(model: bytes, spec: TaskSpec) -> bytes:
    """A model that also gives its feature map.

    Raises:
        ModelError: it pools none.
    """
    from edgetl.runtime.features import pooled_head
    from edgetl.runtime.wire import with_outputs

    return with_outputs(model, pooled_head(model, [one.name for one in task_of(spec).outputs]).shown)


def _drawn(index: DataIndex, seed: int) -> list[Sample]:
    """At most `MOST_MEASURED` training images, evenly from their classes."""
    samples = index.split("train")
    strata = index.strata(samples)
    items = [(sample.sha256, stratum) for sample, stratum in zip(samples, strata, strict=True)]
    return [samples[at] for at in draw_evenly(items, MOST_MEASURED, f"{seed}:known")]


Seen = tuple[NDArray[np.float32], Outputs]
"""Embeddings (N, F), and outputs."""


def _looked_at(
    candidate: CandidateModel,
    model: bytes,
    inputs: ReferenceInputs,
    pixels: Sequence[NDArray[np.uint8]],
    task: ProgressTask,
) -> list[Seen]:
    """What a model, which gives its feature map, makes of each set of images."""
    from edgetl.runtime.engines.onnxruntime import OnnxBackend
    from edgetl.runtime.features import MAP, embeddings

    found = list[Seen]()
    with OnnxBackend(model, threads=inputs.threads) as backend:
        run_ = runner(backend, candidate.file, candidate.target, inputs.spec, model)
        for images in pixels:
            rows = list[Outputs]()
            pooled = list[NDArray[np.float32]]()
            for at in range(0, len(images), _BATCH):
                outputs = run_(images[at : at + _BATCH])
                pooled.append(embeddings(outputs))
                rows.append({name: array for name, array in outputs.items() if name != MAP})
                task.advance(len(pooled[-1]))
            found.append((np.concatenate(pooled), joined(rows)))
    return found


def _kept(
    spec: TaskSpec,
    training: Sequence[Sample],
    held_out: Sequence[Sample],
    embeddings: NDArray[np.float32],
    validation: Seen,
    seed: int,
) -> Reference:
    """What has room in the bundle."""
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
    logits: Mapping[str, NDArray[np.float32]] = validation[1]
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
        validation=validation[0][taken],
        validation_classes=own[taken],
        logits={name: array[taken] for name, array in logits.items()},
    )


def _classes(spec: TaskSpec, samples: Sequence[Sample]) -> NDArray[np.int32]:
    return np.array([first_class(spec, sample.label) for sample in samples], dtype=np.int32)
