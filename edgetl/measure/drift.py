"""What validation images are like and what a variant answers to them, for a device to notice other ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from edgetl.bundle.drift import DriftAnswers, DriftSource, places
from edgetl.inputs.frame import Frame
from edgetl.inputs.looks import LOOKS, looks
from edgetl.tasks.base import Outputs, Task, labels_of
from edgetl.tasks.summary import named, sureness

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgetl.records.variants import MeasureRecord
    from edgetl.tasks.all import Prediction

_DIGITS = 9
"""With which a float32 is written so that it comes back."""


def looks_of(pixels: NDArray[np.uint8]) -> tuple[tuple[float, ...], ...]:
    """The looks of the reference's images.

    Args:
        pixels: (N, S, S, 3) uint8, of the validation split.
    """
    return tuple(_exact(looks(pixels[at])) for at in places(len(pixels)))


def answers_of(task: Task, outputs: Outputs) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """How sure a variant's answers to the reference's images are, and how many of them name each class.

    Args:
        task: with the variant's temperatures.
        outputs: of the validation split's images.
    """
    images = len(next(iter(outputs.values())))
    whole = Frame(size=(1, 1), scale=(1.0, 1.0), offset=(0.0, 0.0))  # Where boxes are does not matter.
    sure, counts = [], np.zeros(len(labels_of(task.spec)), dtype=np.int64)
    for at in places(images):
        row = {name: values[at : at + 1] for name, values in outputs.items()}
        answer = cast("Prediction", task.predict(row, (whole,))[0])
        sure.append(sureness(answer))
        counts[list(named(answer, task.spec))] += 1
    return _exact(np.array(sure, dtype=np.float32)), tuple(counts.tolist())


def source_of(measured: MeasureRecord) -> DriftSource | None:
    """What is packed; None of a record that is older than this."""
    if not measured.looks:
        return None
    return DriftSource(
        looks=np.array(measured.looks, dtype=np.float32).reshape(-1, len(LOOKS)),
        answers={
            v.name: DriftAnswers(
                sureness=np.array(v.sureness, dtype=np.float32), named=np.array(v.named, dtype=np.int64)
            )
            for v in measured.variants
        },
    )


def _exact(values: NDArray[np.float32]) -> tuple[float, ...]:
    return tuple(float(f"{value:.{_DIGITS}g}") for value in values)
