"""The scores by name, each as a function of a network's outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, assert_never

import numpy as np
from numpy.typing import NDArray

from edgetl.bundle.reference import Reference
from edgetl.inputs.looks import PIXELS
from edgetl.records.frozen import dataclass
from edgetl.records.unknown import ScoreName
from edgetl.runtime.features import EMBEDDING, embeddings
from edgetl.runtime.unknown import energy, softmax
from edgetl.runtime.unknown.looks import Looks
from edgetl.runtime.unknown.neighbours import Neighbours
from edgetl.runtime.unknown.vim import Vim
from edgetl.tasks.base import Classification, MultiHead, MultiLabel, Outputs

Labelling: TypeAlias = Classification | MultiLabel | MultiHead
"""A task whose images can be unknown as a whole."""
Scorer: TypeAlias = Callable[[Outputs], NDArray[np.float64]]
"""From N images' outputs to (N,); with their feature map or embeddings, and looks, where the score is by these."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """What scores by features compare with.

    Attributes:
        reference: known images.
        weights: by output the last layer's, (C, F) float32.
    """

    reference: Reference
    weights: Mapping[str, NDArray[np.float32]]


def names(features: Features | None) -> tuple[ScoreName, ...]:
    """The scores that there are, with features or without, and with or without looks."""
    looks = features is not None and features.reference.has_looks
    return tuple(
        name
        for name in ScoreName
        if (features is not None or not name.by_features) and (looks or not name.by_looks)
    )


def scorer(name: ScoreName, spec: Labelling, features: Features | None = None) -> Scorer:
    """Make a score ready.

    Args:
        name: which.
        spec: the task.
        features: for a score by features.
    """
    match name:
        case ScoreName.SOFTMAX:
            return lambda outputs: softmax.score(spec, outputs)
        case ScoreName.ENERGY:
            return lambda outputs: energy.score(spec, outputs)
        case ScoreName.NEIGHBOURS:
            assert features is not None
            neighbours = Neighbours(features.reference.embeddings)
            return lambda outputs: neighbours.score(embeddings(outputs))
        case ScoreName.VIM:
            assert features is not None
            vim = _vim(features)
            return lambda outputs: vim.score(embeddings(outputs), energy.score(spec, outputs))
        case ScoreName.LOOKS:
            assert features is not None
            known, inner = features.reference, scorer(ScoreName.VIM, spec, features)
            strange = inner({EMBEDDING: known.validation, **known.logits})
            looks = Looks(known.looks, known.validation_looks, strange)
            return lambda outputs: looks.score(outputs[PIXELS], inner(outputs))
        case _:
            assert_never(name)


def _vim(features: Features) -> Vim:
    known = features.reference
    weights = np.concatenate(list(features.weights.values()))
    logits: NDArray[Any] = np.concatenate([known.logits[name] for name in features.weights], axis=1)
    # What the logits have beyond the weights' part; the mean, since quantized ones are rounded.
    bias = (logits - known.validation @ weights.T).mean(axis=0)
    return Vim(known.embeddings, weights=weights, bias=bias, fresh=known.validation, logits=logits)
