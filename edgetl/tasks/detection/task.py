"""Detection: boxes around the objects in an image, each with a class and a score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import TensorError
from edgetl.records.frozen import dataclass
from edgetl.tasks.base import (
    Agreement,
    MetricSpec,
    Outputs,
    ScoreLimits,
    TensorSpec,
    agreement,
    output,
)
from edgetl.tasks.base import (
    Detection as DetectionSpec,
)
from edgetl.tasks.detection.answers import Detection, Detections
from edgetl.tasks.detection.boxes import overlaps, suppress
from edgetl.tasks.detection.found import Found, Truth, in_pictures, placed, plain, read
from edgetl.tasks.metrics import AVERAGE_RECALL, MAP, MAP50

if TYPE_CHECKING:
    from edgetl.inputs.frame import Frame
    from edgetl.records.gate import GateCheck
    from edgetl.records.scores import Evaluation, Scores

BOXES, SCORES = "boxes", "scores"
"""Names of the outputs."""
_LEAST = 0.001
"""Boxes below this score are not scored: they move average precision by nothing that counts."""
_CANDIDATES = 300
"""Best boxes that are held against one another for an answer; suppression costs their square."""
_SCORED = 2000
"""The same for a score, where the unsure boxes of a rare class count, which those of a frequent one outnumber."""
_SAME = 0.75
"""Overlap above which two boxes are the same answer."""
_HIT = 0.5
"""Overlap above which a box lies on an object."""


@dataclass(frozen=True, kw_only=True)
class DetectionTask:
    """See `edgetl.tasks.base.Task`. Truths are a list of `Truth`, answers one of `Found` in the input's pixels.

    Legend: A candidate boxes per image, C classes.
    """

    spec: DetectionSpec

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Boxes (N, A, 4) in the input's pixels, and scores (N, A, C) in 0..1, both float32."""
        return (
            TensorSpec(name=BOXES, dtype="float32", shape=(None, None, 4)),
            TensorSpec(name=SCORES, dtype="float32", shape=(None, None, len(self.spec.labels))),
        )

    @property
    def metrics(self) -> tuple[MetricSpec, ...]:
        """Those of COCO."""
        return (MAP, MAP50, AVERAGE_RECALL)

    def predict(self, outputs: Outputs, frames: Sequence[Frame] = (), *, top_k: int = 1) -> list[Detections]:
        """The boxes above the threshold, in each picture's own pixels."""
        found = self._found(outputs, self.spec.threshold)
        if len(frames) != len(found):
            raise TensorError(f"frames: {len(frames)} came for {len(found)} images.")
        answers, names = [], self.spec.labels
        for one, frame in zip(found, frames, strict=True):
            own = placed(one, frame)
            rows = zip(own.boxes.tolist(), own.labels.tolist(), own.scores.tolist(), strict=True)
            items = tuple(
                Detection(box=(x1, y1, x2, y2), label=names[index], index=index, score=score)
                for (x1, y1, x2, y2), index, score in rows
            )
            answers.append(Detections(items=items, width=frame.size[0], height=frame.size[1]))
        return answers

    def decide(self, outputs: Outputs) -> list[Found]:
        """All boxes that scoring looks at, best first, in the input's pixels."""
        return self._found(outputs, _LEAST, _SCORED)

    def right(self, truths: Sequence[Truth | Found], answers: Sequence[Found]) -> NDArray[np.bool_]:
        """The boxes above the threshold are as many as the objects, and lie on them, class by class.

        They overlap by half and more with a `Truth`'s; by more with earlier answers.
        """
        if len(truths) != len(answers):
            raise TensorError(f"truths: {len(truths)} came for {len(answers)} images.")
        found = []
        for truth, answer in zip(truths, answers, strict=True):
            sure = self._sure(answer)
            if isinstance(truth, Found):
                found.append(_same(self._sure(truth), sure))
                continue
            [own] = in_pictures([truth], [sure])
            real = ~truth.crowds()
            want = Found(boxes=truth.boxes[real], labels=truth.labels[real], scores=np.ones(int(real.sum())))
            found.append(_same(want, own, least=_HIT))
        return np.array(found, dtype=bool)

    def _sure(self, found: Found) -> Found:
        sure = found.scores >= self.spec.threshold
        return Found(boxes=found.boxes[sure], labels=found.labels[sure], scores=found.scores[sure])

    def margins(self, outputs: Outputs) -> NDArray[Any]:
        """How near to the threshold the score of any box lies; the boxes' own sides have no such limit."""
        scores = output(self, outputs, SCORES)
        apart = np.abs(scores - self.spec.threshold).reshape(len(scores), -1)
        return np.asarray(apart.min(axis=1, initial=1.0))

    def score(self, truths: Sequence[Truth], outputs: Outputs) -> Evaluation:
        """See `edgetl.tasks.detection.scores.evaluate`."""
        # Not at the top: a device that predicts scores nothing.
        from edgetl.tasks.detection.scores import evaluate

        found = self.decide(outputs)
        if len(found) != len(truths):
            raise TensorError(f"truths: {len(truths)} came for {len(found)} images.")
        return evaluate(truths, in_pictures(truths, found), self.spec.labels, threshold=self.spec.threshold)

    def agreement(self, expected: Outputs, found: Outputs) -> Agreement:
        """The same answer is the same boxes above the threshold; candidates far below it are left out."""
        want, have = (self._found(outputs, self.spec.threshold) for outputs in (expected, found))
        if len(want) != len(have):
            raise TensorError(f"boxes: {len(have)} images came, expected {len(want)}.")
        same = np.array([_same(a, b) for a, b in zip(want, have, strict=True)], dtype=bool)
        asked = _candidates(output(self, expected, SCORES), self.spec.threshold)
        return agreement(self, _only(expected, asked), _only(found, asked), same)

    def judge(
        self, truths: Sequence[Truth], before: Sequence[Found], after: Sequence[Found], limits: ScoreLimits
    ) -> tuple[GateCheck, ...]:
        """See `edgetl.tasks.detection.judge`."""
        from edgetl.tasks.detection.judge import judge

        return judge(
            truths,
            in_pictures(truths, before),
            in_pictures(truths, after),
            self.spec.labels,
            margin=limits.max_drop,
            max_class_drop=limits.max_class_drop,
            same_model=limits.same_model,
        )

    def judge_scores(self, before: Scores, after: Scores, limits: ScoreLimits) -> tuple[GateCheck, ...]:
        """Only mAP, by its intervals."""
        from edgetl.tasks.detection.judge import judge_unpaired

        return (judge_unpaired(before, after, margin=limits.max_drop, same_model=limits.same_model),)

    def words(self, answers: Sequence[Truth | Found]) -> list[str]:
        """How many objects of each class, most first."""
        from collections import Counter

        texts = []
        for answer in answers:
            sure = (
                answer.labels
                if isinstance(answer, Truth)
                else answer.labels[answer.scores >= self.spec.threshold]
            )
            counts = Counter(self.spec.labels[index] for index in sure)
            texts.append(", ".join(f"{count} {label}" for label, count in counts.most_common()) or "nothing")
        return texts

    def plain(self, answers: Sequence[Truth | Found]) -> list[dict[str, Any]]:
        """Boxes to a hundredth of a pixel; scores to four digits where they were found."""
        return [plain(answer) for answer in answers]

    def read(self, values: Any) -> list[Any]:
        """Answers where scores are said, else truths; see `edgetl.tasks.base.Task.read`."""
        try:
            answers = [read(value) for value in values]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"it holds boxes that cannot be read ({error})") from None
        for one in answers:
            beside = (one.scores,) if isinstance(one, Found) else (one.crowds(), one.sizes())
            fits = all(len(one.boxes) == len(other) for other in (one.labels, *beside))
            if not fits or (
                len(one.labels) and not 0 <= one.labels.min() <= one.labels.max() < len(self.spec.labels)
            ):
                raise ValueError(f"it holds boxes that do not fit its {len(self.spec.labels)} labels")
        return answers

    def _found(self, outputs: Outputs, least: float, candidates: int = _CANDIDATES) -> list[Found]:
        """Per image: at most so many candidates above `least`, the best of them, without duplicates."""
        boxes, scores = output(self, outputs, BOXES), output(self, outputs, SCORES)
        if boxes.shape[:2] != scores.shape[:2]:
            raise TensorError(
                f"scores: got {scores.shape} with boxes {boxes.shape}; they must have as many candidates."
            )
        answers = []
        for own_boxes, own_scores in zip(boxes, scores, strict=True):
            flat = own_scores.ravel()
            chosen = np.flatnonzero(flat >= least)
            places, labels = np.divmod(chosen, own_scores.shape[1])
            values = flat[chosen]
            if len(values) > candidates:
                best = np.argpartition(-values, candidates)[:candidates]
                best.sort()
                places, labels, values = places[best], labels[best], values[best]
            own = own_boxes[places]
            remains = suppress(own, values, labels, overlap=self.spec.overlap, most=self.spec.most)
            answers.append(Found(boxes=own[remains], labels=labels[remains], scores=values[remains]))
        return answers


def differences(expected: Outputs, found: Outputs, threshold: float) -> dict[str, NDArray[Any]]:
    """How far boxes are off relative to their own sides, and scores as they are; see `edgetl.tasks.all.differences`."""
    want, have = expected[BOXES].astype(np.float64), found[BOXES].astype(np.float64)
    sides = np.maximum(want[..., 2:] - want[..., :2], 1.0)
    asked = _candidates(expected[SCORES], threshold)
    with np.errstate(invalid="ignore"):
        return {
            BOXES: np.where(asked, np.abs(have - want) / np.concatenate([sides, sides], axis=-1), np.nan),
            SCORES: np.abs(found[SCORES] - expected[SCORES]),
        }


def _candidates(scores: NDArray[Any], threshold: float) -> NDArray[np.bool_]:
    """(N, A, 1) candidates that are not far below what is answered."""
    return np.asarray(scores.max(axis=2, keepdims=True) >= threshold / 2)


def _same(first: Found, second: Found, least: float = _SAME) -> bool:
    """Whether each box of one has its like in the other, class by class."""
    if len(first.labels) != len(second.labels):
        return False
    if not len(first.labels):
        return True
    near = overlaps(first.boxes, second.boxes) >= least
    near &= first.labels[:, None] == second.labels[None]
    return bool(near.any(axis=1).all() and near.any(axis=0).all())


def _only(outputs: Outputs, asked: NDArray[np.bool_]) -> Outputs:
    return {BOXES: np.where(asked, outputs[BOXES], 0), SCORES: outputs[SCORES]}
