"""Whether the second of two networks is better than the first on the same images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.records.scores import value
from edgetl.records.train import PairedComparison
from edgetl.statistics import binomial_tail, discordant, paired_interval
from edgetl.tasks.base import Classification
from edgetl.tasks.metrics import TOP1
from edgetl.train.seeds import numpy_generator
from edgetl.train.tasks.base import Targets, TrainingTask

_DRAWS = 400
_LEVEL = 0.05
_Z90 = 1.6448536269514722


def compare(
    task: TrainingTask,
    metric: str,
    targets: Targets,
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    *,
    seed: int,
) -> PairedComparison:
    """Compare two sets of outputs.

    The second helped where it is better with an error of 5% at most: by the one-sided exact McNemar test (1947) of
    top-1; of another metric by the paired bootstrap (Efron 1979).

    Args:
        task: scores outputs, each with the thresholds that are best for it, where there are any.
        metric: the score's name.
        targets: (N, ...), as the task makes them.
        before, after: (N, D).
        seed: of the bootstrap.
    """
    both = [(task.settled(targets, outputs), outputs) for outputs in (before, after)]

    def scores(rows: Any = slice(None)) -> tuple[float, float]:
        was, now = (
            value(own.evaluate(targets[rows], outputs[rows], resamples=0), metric) for own, outputs in both
        )
        return was, now

    was, now = scores()
    if isinstance(task.spec, Classification) and metric == TOP1.name:
        lost, won = discordant(before.argmax(axis=1) == targets, after.argmax(axis=1) == targets)
        interval = paired_interval(lost, won, len(targets), _Z90)
        p_value = binomial_tail(won, lost + won)
    else:
        interval, p_value = _bootstrap(scores, len(targets), seed)
    return PairedComparison(
        metric=metric,
        images=len(targets),
        before=was,
        after=now,
        interval=interval,
        p_value=p_value,
        helped=now > was and p_value <= _LEVEL,
    )


def _bootstrap(
    scores: Callable[[NDArray[np.int64]], tuple[float, float]], images: int, seed: int
) -> tuple[tuple[float, float], float]:
    generator, found = numpy_generator(seed, "probe", "bootstrap"), np.empty(_DRAWS)
    for draw in range(_DRAWS):
        was, now = scores(generator.integers(0, images, images))
        found[draw] = now - was
    low, high = (float(v) for v in np.quantile(found, [_LEVEL, 1 - _LEVEL]))
    return (low, high), float((found <= 0).mean())
