"""What a classifier answers for one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.records.codec import OPTIONAL
from edgetl.records.frozen import dataclass
from edgetl.tasks.relations import ANYTHING, Tree, members, paths

_NAMED = 4


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One class's probability (softmax of the logits), in 0..1."""

    label: str
    index: int
    score: float


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The best class of an image; or, where that is not sure enough and it was asked for, the group that is.

    Attributes:
        label: the class, or the group.
        index: the best class, also of a group.
        score: the probability of the label, of a group the sum of its classes', in 0..1.
        top: the best classes, best first.
        classes: of a group those in it, the most probable first; empty where the label is a class.
        possible: the set that holds the truth as often as asked, the most probable class first; None where no coverage
            was asked for.
        unknown: whether the image is like none that the model was made from, at the false alarm rate that was asked
            for; None where that was not asked.
        usual: the share of validation images that look at least as strange, above 0 and at most 1; None likewise.
    """

    label: str
    index: int
    score: float
    top: tuple[Candidate, ...]
    classes: tuple[str, ...] = field(default=(), metadata=OPTIONAL)
    possible: tuple[Candidate, ...] | None = field(default=None, metadata=OPTIONAL)
    unknown: bool | None = field(default=None, metadata=OPTIONAL)
    usual: float | None = field(default=None, metadata=OPTIONAL)

    @property
    def text(self) -> str:
        """The label and its probability, which classes a group may be, and the set where it has others too; behind
        `unknown` where the image is."""
        found = f"{self.label} {self.score:.1%}" + (f", {self.either}" if self.classes else "")
        found = f"{found}; one of {listed(self.possible)}" if len(self.possible or ()) > 1 else found
        return nearest(found) if self.unknown else found

    @property
    def either(self) -> str:
        """What a group may be, as `either crack or fray`."""
        shown, rest = self.classes[:_NAMED], len(self.classes) - _NAMED
        *first, last = shown if rest <= 0 else (*shown, f"{rest} more")
        return f"either {', '.join(first)} or {last}" if first else last


def nearest(found: str) -> str:
    """What is said of an unknown image, which is nearest to what was answered."""
    return f"unknown, nearest to {found}"


def listed(possible: Sequence[Candidate] | None) -> str:
    """The labels of a set, as `crack, fray`; the first few of a large one, and `none` for an empty one."""
    names = [one.label for one in possible or ()]
    rest = len(names) - _NAMED
    return ", ".join(names if rest <= 1 else [*names[:_NAMED], f"{rest} more"]) or "none"


def smallest_sure_group(
    found: Prediction, probabilities: NDArray[Any], tree: Tree, labels: Sequence[str], sure: float
) -> Prediction:
    """A prediction as it is where its class is sure enough, else the smallest group around that class that is.

    Args:
        found: the best class.
        probabilities: (C,) float.
        tree: of the classes; the group of all of them is always sure enough.
        labels: the C class names.
        sure: the least probability of an answer, above 0 and at most 1.
    """
    if found.score >= sure:
        return found
    ways = paths(tree, labels)
    way, within = ways[found.index], members(ways)
    sums = {name: float(probabilities[list(within[name])].sum(dtype=np.float64)) for name in way}
    name = next((name for name in way if sums[name] >= sure), way[-1])
    inside = sorted(within[name], key=lambda place: -probabilities[place])
    return replace(
        found,
        label="any class" if name == ANYTHING else name,
        score=min(1.0, sums[name]),
        classes=tuple(labels[place] for place in inside),
    )


def scaled(logits: NDArray[Any], temperature: float) -> NDArray[Any]:
    """Logits by a temperature; in float64, so that of two unequal ones the larger stays the larger."""
    return logits if temperature == 1.0 else np.asarray(logits, dtype=np.float64) / temperature


def softmax(logits: NDArray[Any]) -> NDArray[np.float32]:
    """Probabilities over the last axis, stable for large logits.

    Args:
        logits: (..., C) float.

    Returns:
        (..., C) float32; each row sums to 1.
    """
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = np.exp(shifted - shifted.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.float32] = (shifted / shifted.sum(axis=-1, keepdims=True)).astype(np.float32)
    return probabilities


def topk(scores: NDArray[Any], k: int) -> NDArray[np.int64]:
    """Indices of the `k` largest scores, best first; of equal scores the lower index comes first.

    Args:
        scores: (N, C) float.
        k: how many; at most C are returned.

    Returns:
        (N, min(k, C)) int64.
    """
    order = np.argsort(-np.asarray(scores, dtype=np.float64), axis=-1, kind="stable")
    return order[..., :k].astype(np.int64)
