"""Multi-label classification: any number of classes per image, none included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgetl.records.frozen import dataclass
from edgetl.tasks.base import (
    LOGITS,
    Agreement,
    MetricSpec,
    MultiLabel,
    Outputs,
    ScoreLimits,
    TensorSpec,
    agreement,
    output,
)
from edgetl.tasks.classification.answers import Candidate, scaled
from edgetl.tasks.metrics import EXACT, MACRO_F1, MAP
from edgetl.tasks.multilabel.answers import TagsPrediction
from edgetl.tasks.multilabel.scores import evaluate, sigmoid

if TYPE_CHECKING:
    from edgetl.inputs.frame import Frame
    from edgetl.records.gate import GateCheck
    from edgetl.records.scores import Evaluation, Scores

# A threshold of 0 or 1 is never reached from the other side.
_EDGE = 1e-12


@dataclass(frozen=True, kw_only=True)
class MultiLabelTask:
    """See `edgetl.tasks.base.Task`. Truths and answers are (N, C) bool.

    `temperature` divides all classes' logits before they become scores (`edgetl.tasks.temperature`). Thresholds were
    chosen without it and are held against what was: no answer changes by it.
    """

    spec: MultiLabel
    temperature: float = 1.0

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The logits (N, C) float32."""
        return (TensorSpec(name=LOGITS, dtype="float32", shape=(None, len(self.spec.labels))),)

    @property
    def metrics(self) -> tuple[MetricSpec, ...]:
        """See `edgetl.tasks.multilabel.scores.evaluate`."""
        return (MAP, MACRO_F1, EXACT)

    @property
    def thresholds(self) -> NDArray[np.float64]:
        """(C,) the least probabilities that are answered."""
        return np.array(self.spec.thresholds or (0.5,) * len(self.spec.labels), dtype=np.float64)

    def predict(
        self, outputs: Outputs, frames: Sequence[Frame] = (), *, top_k: int = 1
    ) -> list[TagsPrediction]:
        """The classes of each image."""
        chances, answers, found = self.probabilities(outputs), self.decide(outputs), []
        for row, answered in zip(chances, answers, strict=True):
            ranked = [
                Candidate(label=self.spec.labels[i], index=int(i), score=float(row[i]))
                for i in np.argsort(-row, kind="stable")
            ]
            tags = tuple(c for c in ranked if answered[c.index])
            found.append(TagsPrediction(tags=tags, top=tuple(ranked[:top_k])))
        return found

    def probabilities(self, outputs: Outputs) -> NDArray[np.float64]:
        """(N, C) those that are answered as scores."""
        return sigmoid(scaled(output(self, outputs, LOGITS), self.temperature))

    def decide(self, outputs: Outputs) -> NDArray[np.bool_]:
        """(N, C) which classes reach their thresholds."""
        return np.asarray(sigmoid(output(self, outputs, LOGITS)) >= self.thresholds)

    def right(self, truths: NDArray[Any], answers: NDArray[Any]) -> NDArray[np.bool_]:
        """Every class is right."""
        return np.asarray((truths == answers).all(axis=1))

    def margins(self, outputs: Outputs) -> NDArray[Any]:
        """How far the nearest logit lies from its threshold."""
        cuts = np.clip(self.thresholds, _EDGE, 1 - _EDGE)
        return np.asarray(np.abs(output(self, outputs, LOGITS) - np.log(cuts / (1 - cuts))).min(axis=1))

    def score(self, truths: NDArray[Any], outputs: Outputs) -> Evaluation:
        """See `edgetl.tasks.multilabel.scores.evaluate`."""
        return evaluate(truths, output(self, outputs, LOGITS), self.spec.labels, self.thresholds)

    def agreement(self, expected: Outputs, found: Outputs) -> Agreement:
        """The same answer is the same classes."""
        return agreement(self, expected, found, self.right(self.decide(expected), self.decide(found)))

    def judge(
        self, truths: NDArray[Any], before: NDArray[Any], after: NDArray[Any], limits: ScoreLimits
    ) -> tuple[GateCheck, ...]:
        """See `edgetl.tasks.multilabel.judge`."""
        from edgetl.tasks.multilabel.judge import judge

        return judge(truths, before, after, self.spec.labels, limits)

    def judge_scores(self, before: Scores, after: Scores, limits: ScoreLimits) -> tuple[GateCheck, ...]:
        """Only macro-F1."""
        from edgetl.tasks.multilabel.judge import judge_unpaired

        return (judge_unpaired(before, after, limits),)

    def words(self, answers: NDArray[Any]) -> list[str]:
        """The classes' names, or `none`."""
        return [", ".join(self.spec.labels[i] for i in np.flatnonzero(row)) or "none" for row in answers]

    def plain(self, answers: NDArray[Any]) -> list[list[int]]:
        """The classes' positions."""
        return [[int(i) for i in np.flatnonzero(row)] for row in answers]

    def read(self, values: Sequence[Any]) -> NDArray[np.bool_]:
        """See `edgetl.tasks.base.Task.read`."""
        classes = len(self.spec.labels)
        found = np.zeros((len(values), classes), dtype=bool)
        for row, places in enumerate(values):
            fits = isinstance(places, list | tuple) and all(
                type(place) is int and 0 <= place < classes for place in places
            )
            if not fits:
                raise ValueError(
                    f"it holds classes {places!r:.40}, expected positions among its {classes} labels"
                )
            found[row, list(places)] = True
        return found
