"""Classification: one class per image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgetl.records.frozen import dataclass
from edgetl.tasks.base import (
    LOGITS,
    Agreement,
    Classification,
    MetricSpec,
    Outputs,
    ScoreLimits,
    TensorSpec,
    agreement,
    output,
)
from edgetl.tasks.classification.answers import Candidate, Prediction, scaled, softmax, topk
from edgetl.tasks.metrics import (
    BALANCED_ACCURACY,
    CALIBRATION_ERROR,
    LABEL_DISTANCE,
    MACRO_F1,
    SEVERITY,
    TOP1,
    TOP5,
)

if TYPE_CHECKING:
    from edgetl.inputs.frame import Frame
    from edgetl.records.gate import GateCheck
    from edgetl.records.scores import Evaluation, Scores


@dataclass(frozen=True, kw_only=True)
class ClassificationTask:
    """See `edgetl.tasks.base.Task`. Truths and answers are (N,) int64, the class.

    `temperature` divides logits before they become probabilities (`edgetl.tasks.temperature`); no answer changes by it.
    """

    spec: Classification
    temperature: float = 1.0

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The logits (N, C) float32."""
        return (TensorSpec(name=LOGITS, dtype="float32", shape=(None, len(self.spec.labels))),)

    @property
    def metrics(self) -> tuple[MetricSpec, ...]:
        """Top-5 stands where there are more than five classes, distances where these are related."""
        top5 = (TOP5,) if len(self.spec.labels) > 5 else ()
        related = () if self.spec.relation is None else (SEVERITY, LABEL_DISTANCE)
        return (TOP1, MACRO_F1, BALANCED_ACCURACY, *top5, *related, CALIBRATION_ERROR)

    def predict(self, outputs: Outputs, frames: Sequence[Frame] = (), *, top_k: int = 1) -> list[Prediction]:
        """The best class of each image, and the `top_k` best."""
        probabilities, labels = self.probabilities(outputs), self.spec.labels
        best = topk(output(self, outputs, LOGITS), top_k)
        found = []
        for row, indices in zip(probabilities, best, strict=True):
            top = tuple(Candidate(label=labels[i], index=int(i), score=float(row[i])) for i in indices)
            first = top[0]
            found.append(Prediction(label=first.label, index=first.index, score=first.score, top=top))
        return found

    def probabilities(self, outputs: Outputs) -> NDArray[np.float32]:
        """(N, C) those that are answered as scores."""
        return softmax(scaled(output(self, outputs, LOGITS), self.temperature))

    def decide(self, outputs: Outputs) -> NDArray[np.int64]:
        """(N,) the best class; of equal ones the first."""
        best: NDArray[np.int64] = output(self, outputs, LOGITS).argmax(axis=1).astype(np.int64)
        return best

    def right(self, truths: NDArray[Any], answers: NDArray[Any]) -> NDArray[np.bool_]:
        """The class is right."""
        return np.asarray(truths == answers)

    def margins(self, outputs: Outputs) -> NDArray[Any]:
        """Half of what lies between the two best logits."""
        best = np.sort(output(self, outputs, LOGITS), axis=1)[:, -2:]
        return np.asarray((best[:, -1] - best[:, 0]) / 2)

    def score(self, truths: NDArray[Any], outputs: Outputs) -> Evaluation:
        """See `edgetl.tasks.classification.scores.evaluate`."""
        # Not at the top: a device that predicts scores nothing.
        from edgetl.tasks.classification.scores import evaluate

        logits = scaled(output(self, outputs, LOGITS), self.temperature)
        return evaluate(truths, logits, self.spec.labels, relation=self.spec.relation)

    def agreement(self, expected: Outputs, found: Outputs) -> Agreement:
        """The same answer is the same best class."""
        same = self.decide(expected) == self.decide(found)
        return agreement(self, expected, found, same)

    def judge(
        self, truths: NDArray[Any], before: NDArray[Any], after: NDArray[Any], limits: ScoreLimits
    ) -> tuple[GateCheck, ...]:
        """See `edgetl.tasks.classification.judge`."""
        from edgetl.tasks.classification.judge import judge

        return judge(
            truths,
            before,
            after,
            self.spec.labels,
            margin=limits.max_drop,
            max_recall_drop=limits.max_class_drop,
            same_model=limits.same_model,
        )

    def judge_scores(self, before: Scores, after: Scores, limits: ScoreLimits) -> tuple[GateCheck, ...]:
        """Only top-1."""
        from edgetl.tasks.classification.judge import judge_unpaired

        return (judge_unpaired(before, after, margin=limits.max_drop, same_model=limits.same_model),)

    def words(self, answers: NDArray[Any]) -> list[str]:
        """The classes' names."""
        return [self.spec.labels[index] for index in answers]

    def plain(self, answers: NDArray[Any]) -> list[int]:
        """The classes' positions."""
        return [int(index) for index in answers]

    def read(self, values: Sequence[Any]) -> NDArray[np.int64]:
        """See `edgetl.tasks.base.Task.read`."""
        classes = len(self.spec.labels)
        if any(type(v) is not int or not 0 <= v < classes for v in values):
            raise ValueError(f"it holds a class that is not among its {classes} labels")
        return np.array(values, dtype=np.int64)
