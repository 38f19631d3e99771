"""How little all logits together speak for any class: the energy.

Of one class per image it is -log sum exp of the logits (Liu et al., "Energy-based out-of-distribution detection",
NeurIPS 2020, equation 4, at temperature 1). Of any number of classes it is -sum log(1 + exp) over them, the joint
energy (Wang et al., "Can multi-label classification networks know what they don't know?", NeurIPS 2021). Of several
heads it is the sum over them.

Legend: N images, C classes.
"""

from __future__ import annotations

from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from edgetl.tasks.base import LOGITS, Classification, MultiHead, MultiLabel, Outputs


def score(spec: Classification | MultiLabel | MultiHead, outputs: Outputs) -> NDArray[np.float64]:
    """(N,) of images with these outputs, (N, C) float each."""
    match spec:
        case Classification():
            return -_log_sum_exp(outputs[LOGITS])
        case MultiLabel():
            return np.asarray(-np.logaddexp(0.0, np.asarray(outputs[LOGITS], dtype=np.float64)).sum(axis=1))
        case MultiHead():
            own = [score(head, {LOGITS: outputs[name]}) for name, head in spec.heads.items()]
            return np.asarray(np.sum(own, axis=0))
        case _:
            assert_never(spec)


def _log_sum_exp(logits: NDArray[Any]) -> NDArray[np.float64]:
    values = np.asarray(logits, dtype=np.float64)
    largest = values.max(axis=1, keepdims=True)
    return np.asarray(largest[:, 0] + np.log(np.exp(values - largest).sum(axis=1)))
