"""Whether the second of two networks is better than the first on the same images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgetl.records.scores import value
from edgetl.records.train import PairedComparison
from edgetl.statistics import binomial_tail, paired_interval
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
    was, now = (_score(task, metric, targets, outputs) for outputs in (before, after))
    if isinstance(task.spec, Classification) and metric == TOP1.name:
        hit, hits = before.argmax(axis=1) == targets, after.argmax(axis=1) == targets
        lost, won = int((hit & ~hits).sum()), int((~hit & hits).sum())
        interval = paired_interval(lost, won, len(targets), _Z90)
        p_value = binomial_tail(won, lost + won)
    else:
        interval, p_value = _bootstrap(task, metric, targets, before, after, seed)
    return PairedComparison(
        metric=metric,
        images=len(targets),
        before=was,
        after=now,
        interval=interval,
        p_value=p_value,
        helped=now > was and p_value <= _LEVEL,
    )


def _score(task: TrainingTask, metric: str, targets: Targets, outputs: NDArray[np.float32]) -> float:
    return value(task.settled(targets, outputs).evaluate(targets, outputs, resamples=0), metric)


def _bootstrap(
    task: TrainingTask,
    metric: str,
    targets: Targets,
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    seed: int,
) -> tuple[tuple[float, float], float]:
    generator, found = numpy_generator(seed, "probe", "bootstrap"), np.empty(_DRAWS)
    settled = [task.settled(targets, outputs) for outputs in (before, after)]
    for draw in range(_DRAWS):
        rows = generator.integers(0, len(targets), len(targets))
        was, now = (
            value(one.evaluate(targets[rows], outputs[rows], resamples=0), metric)
            for one, outputs in zip(settled, (before, after), strict=True)
        )
        found[draw] = now - was
    low, high = (float(v) for v in np.quantile(found, [_LEVEL, 1 - _LEVEL]))
    return (low, high), float((found <= 0).mean())
