"""How improbable the answer is: 1 less the largest probability, the common baseline.

Hendrycks and Gimpel, "A baseline for detecting misclassified and out-of-distribution examples in neural networks", ICLR
2017. Without a temperature, as there. Of any number of classes per image the largest sigmoid counts, of several heads
the mean over them.

Legend: N images, C classes.
"""

from __future__ import annotations

from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from edgetl.tasks.base import LOGITS, Classification, MultiHead, MultiLabel, Outputs
from edgetl.tasks.classification.answers import softmax


def score(spec: Classification | MultiLabel | MultiHead, outputs: Outputs) -> NDArray[np.float64]:
    """(N,) in 0..1 of images with these outputs, (N, C) float each."""
    match spec:
        case Classification():
            return np.asarray(1.0 - softmax(outputs[LOGITS]).max(axis=1), dtype=np.float64)
        case MultiLabel():
            return np.asarray(1.0 - _sigmoid(outputs[LOGITS]).max(axis=1))
        case MultiHead():
            own = [score(head, {LOGITS: outputs[name]}) for name, head in spec.heads.items()]
            return np.asarray(np.mean(own, axis=0))
        case _:
            assert_never(spec)


def _sigmoid(logits: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(np.exp(-np.logaddexp(0.0, -np.asarray(logits, dtype=np.float64))))
