"""What two computations of the same network may differ by, and whether they do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.bundle.manifest import Precision
from edgetl.statistics import most_by_chance
from edgetl.tasks.all import answer_scale, differences
from edgetl.tasks.base import Outputs, Task


@dataclass(frozen=True, kw_only=True)
class Bound:
    """What a step may differ from the one that it stands on.

    `maximum` and `mean` are differences as `edgetl.tasks.all.differences` gives them, `agreement` is the least share of
    images with the same answer, `layer` the largest relative error of a layer's output when the culprit is looked for.
    Of few images some differ by chance: `agreement` is broken only where so many differ that a share of
    1 - `agreement` gives as many in fewer than one of a hundred sets of that size (exact binomial). Near ties, whose
    margin (`Task.margins`) is below the `mean` that is allowed, may fall either way and are not counted.
    """

    maximum: float
    mean: float
    agreement: float
    layer: float


# Ours: a few times what sound variants showed (EfficientNet-Lite0 in half precision: 1e-2 at most, 1e-3 on average).
BOUNDS = {
    Precision.FP32: Bound(maximum=1e-3, mean=1e-4, agreement=0.99, layer=1e-3),
    Precision.FP16: Bound(maximum=3e-2, mean=5e-3, agreement=0.98, layer=3e-2),
    Precision.BF16: Bound(maximum=1e-1, mean=2e-2, agreement=0.97, layer=1e-1),
    Precision.FP8: Bound(maximum=4e-1, mean=5e-2, agreement=0.93, layer=0.5),
    Precision.INT8: Bound(maximum=4e-1, mean=5e-2, agreement=0.93, layer=0.5),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Held:
    """Outputs, held against those that are right.

    Attributes:
        maximum, mean: differences as `edgetl.tasks.all.differences` gives them; None where they are not finite.
        same: (N,) bool, which images have the same answer.
        worst: (N,) the largest difference of each image, infinite where its outputs are not finite.
        finite: the outputs, with 0 in the place of what is not finite.
        reasons: why they are outside the bound; none where they are within.
    """

    maximum: float | None
    mean: float | None
    same: NDArray[np.bool_]
    worst: NDArray[np.float64]
    finite: Outputs
    reasons: tuple[str, ...]


def hold(task: Task, expected: Outputs, found: Outputs, bound: Bound) -> Held:
    """Compare the outputs of the same images.

    Args:
        task: says what an answer is.
        expected: what is right.
        found: what is held against it.
        bound: what is allowed.
    """
    finite = all(np.isfinite(array).all() for array in found.values())
    shown = {n: np.nan_to_num(array, nan=0.0, posinf=0.0, neginf=0.0) for n, array in found.items()}
    gaps = differences(task, expected, found)
    maximum = max(_over(np.max, gap) for gap in gaps.values()) if finite else None
    mean = max(_over(np.mean, gap) for gap in gaps.values()) if finite else None
    same = task.right(task.decide(expected), task.decide(shown))
    reasons = []
    if maximum is None or mean is None:
        reasons.append("its outputs are NaN or infinite")
    else:
        if maximum > bound.maximum:
            reasons.append(f"its largest error is {maximum:.2g}, allowed {bound.maximum:g}")
        if mean > bound.mean:
            reasons.append(f"its mean error is {mean:.2g}, allowed {bound.mean:g}")
    # What is allowed may turn the answers of these.
    ties = np.asarray(task.margins(expected) < bound.mean * answer_scale(task, expected))
    if differing := _too_many_differ(same, ties, bound):
        reasons.append(differing)
    each = [
        np.nan_to_num(gap, nan=0.0 if finite else np.inf).reshape(len(gap), -1).max(axis=1)
        for gap in gaps.values()
    ]
    worst = np.nan_to_num(np.max(each, axis=0), nan=np.inf)
    return Held(maximum=maximum, mean=mean, same=same, worst=worst, finite=shown, reasons=tuple(reasons))


def _over(what: Callable[[NDArray[Any]], Any], gap: NDArray[Any]) -> float:
    """The largest or the mean of what was compared; 0 where nothing was."""
    compared = gap[~np.isnan(gap)]
    return float(what(compared)) if compared.size else 0.0


def _too_many_differ(same: NDArray[np.bool_], ties: NDArray[np.bool_], bound: Bound) -> str:
    """Why so many other answers are more than chance; empty where they are not.

    Args:
        same: (N,) bool, which answers are the same.
        ties: (N,) bool, which may fall either way.
        bound: what is allowed.
    """
    counted, differ = int((~ties).sum()), int((~same & ~ties).sum())
    allowed = most_by_chance(counted, 1 - bound.agreement)
    if differ <= allowed:
        return ""
    return (
        f"the answer differs on {differ} of {counted} images, {len(ties) - counted} near ties left out; where "
        f"{bound.agreement:.0%} agree, chance explains {allowed}"
    )
