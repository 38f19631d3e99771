"""Look again at the mistakes that the shipped classifier is most sure of: its map, and what the teacher says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgetl.errors import ModelError
from edgetl.keys import UNKEYED
from edgetl.progress import SILENT, Progress
from edgetl.records.codec import to_json
from edgetl.records.mistakes import Mistake, MistakesRecord
from edgetl.records.variants import VariantScore
from edgetl.tasks.base import LOGITS
from edgetl.tasks.classification.detail import WorstAnswer

if TYPE_CHECKING:
    from edgetl.data.index import DataIndex, Sample
    from edgetl.inputs.frame import Frame
    from edgetl.inputs.spec import PreprocessSpec
    from edgetl.runtime.features import PooledHead


@dataclass(frozen=True, kw_only=True)
class MistakesInputs:
    """What is read: the shipped variant, its worst answers on a split, and the teacher.

    `spec` and `teacher_spec` are their preprocessing; the variant's file is relative to `run_dir`.
    """

    shipped: VariantScore
    worst: tuple[WorstAnswer, ...]
    split: Literal["test", "val"]
    index: DataIndex
    spec: PreprocessSpec
    teacher: Path
    teacher_spec: PreprocessSpec
    run_dir: Path = field(metadata=UNKEYED)


def run(inputs: MistakesInputs, *, progress: Progress = SILENT) -> MistakesRecord:
    """Run both networks on the few images.

    Raises:
        ImageError: an image cannot be read.
        WeightsError: the teacher's checkpoint cannot be used.
        ModelError: the variant cannot be loaded.
    """
    samples = inputs.index.split(inputs.split)
    chosen = [samples[one.image] for one in inputs.worst]
    with progress.task("Worst mistakes", total=2) as task:
        taught = _teacher_answers(chosen, inputs)
        task.advance()
        maps, no_maps = _maps(chosen, inputs)
        task.advance()
    names = inputs.index.labels
    found = [
        Mistake(
            file=str(sample.path),
            size=frame.size,
            side=inputs.spec.size,
            scale=frame.scale,
            offset=frame.offset,
            truth=names[one.truth],
            answer=names[one.answer],
            score=one.score,
            teacher=names[at],
            teacher_score=score,
            map=map_,
        )
        for one, sample, (at, score), (frame, map_) in zip(inputs.worst, chosen, taught, maps, strict=True)
    ]
    return MistakesRecord(
        variant=inputs.shipped.name,
        split=inputs.split,
        mistakes=tuple(found),
        no_maps=no_maps,
        sound=None if inputs.spec.sound is None else to_json(inputs.spec.sound),
    )


def _teacher_answers(chosen: Sequence[Sample], inputs: MistakesInputs) -> list[tuple[int, float]]:
    """The teacher's class and its probability for each image."""
    import torch

    from edgetl.inputs.image import load_batch
    from edgetl.models import checkpoint
    from edgetl.tasks.classification.answers import softmax

    teacher, _ = checkpoint.load(inputs.teacher)
    batch = load_batch([sample.path for sample in chosen], inputs.teacher_spec)
    with torch.inference_mode():
        scores = softmax(teacher.eval()(torch.from_numpy(batch)).numpy())
    return [(int(row.argmax()), float(row.max())) for row in scores]


_Map = tuple[tuple[float, ...], ...]


def _maps(chosen: Sequence[Sample], inputs: MistakesInputs) -> tuple[list[tuple[Frame, _Map]], str]:
    """Each picture's frame and the map of what was answered; or no maps, and why."""
    from edgetl.inputs.image import load_framed
    from edgetl.runtime.engines.base import run_pixels
    from edgetl.runtime.engines.onnxruntime import OnnxBackend
    from edgetl.runtime.explain import parts
    from edgetl.runtime.features import MAP
    from edgetl.runtime.wire import with_outputs

    framed = [load_framed(sample.path, inputs.spec) for sample in chosen]
    head, no_maps = _head(inputs)
    if head is None:
        return [(frame, ()) for _, frame in framed], no_maps
    content = (inputs.run_dir / inputs.shipped.file).read_bytes()
    found = []
    with OnnxBackend(with_outputs(content, head.shown), threads=1) as backend:
        for one, (pixels, frame) in zip(inputs.worst, framed, strict=True):
            features = run_pixels(backend, pixels[None], inputs.spec)[MAP]
            values = parts(head.weights[LOGITS][one.answer], features)
            rows = tuple(tuple(round(float(value), 5) for value in row) for row in values)
            found.append((frame, rows))
    return found, ""


def _head(inputs: MistakesInputs) -> tuple[PooledHead | None, str]:
    from edgetl.processor import computes
    from edgetl.runtime.features import pooled_head

    if not computes(inputs.shipped.target):
        return None, f"{inputs.shipped.name} is made for {inputs.shipped.target}, which does not run here."
    try:
        content = (inputs.run_dir / inputs.shipped.file).read_bytes()
        return pooled_head(content, [LOGITS]), ""
    except ModelError as error:
        return None, str(error)
