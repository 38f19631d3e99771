"""Several heads on one backbone: each is a task of its own, with its own output, scores and gate."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgetl.records.codec import to_json
from edgetl.records.frozen import dataclass
from edgetl.records.scores import Evaluation, Score, Scores, value
from edgetl.tasks.base import (
    LOGITS,
    Agreement,
    Classification,
    HeadTruths,
    MetricSpec,
    MultiHead,
    Outputs,
    ScoreLimits,
    TensorSpec,
    agreement,
    output,
)
from edgetl.tasks.classification.task import ClassificationTask
from edgetl.tasks.metrics import MEAN, metric
from edgetl.tasks.multihead.answers import HeadsPrediction
from edgetl.tasks.multihead.detail import HeadsDetail
from edgetl.tasks.multilabel.task import MultiLabelTask

if TYPE_CHECKING:
    from edgetl.inputs.frame import Frame
    from edgetl.records.gate import GateCheck

HeadTask = ClassificationTask | MultiLabelTask
Heads = Mapping[str, HeadTruths]


@dataclass(frozen=True, kw_only=True)
class MultiHeadTask:
    """See `edgetl.tasks.base.Task`. Truths and answers are head name to `HeadTruths`; all answers are known.

    `temperatures` are the heads', by name; 1 for one that is not named.
    """

    spec: MultiHead
    temperatures: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def heads(self) -> dict[str, HeadTask]:
        """Each head's task."""
        return {
            name: ClassificationTask(spec=head, temperature=self.temperatures.get(name, 1.0))
            if isinstance(head, Classification)
            else MultiLabelTask(spec=head, temperature=self.temperatures.get(name, 1.0))
            for name, head in self.spec.heads.items()
        }

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Each head's logits, by its name."""
        return tuple(dataclasses.replace(task.outputs[0], name=name) for name, task in self.heads.items())

    @property
    def metrics(self) -> tuple[MetricSpec, ...]:
        """The mean of the heads' first metrics, these metrics as `head/name`, then the heads' others."""
        of_heads = [(name, task.metrics) for name, task in self.heads.items()]
        first = [metric(f"{name}/{found[0].name}") for name, found in of_heads]
        return (MEAN, *first, *(metric(f"{name}/{m.name}") for name, found in of_heads for m in found[1:]))

    def predict(
        self, outputs: Outputs, frames: Sequence[Frame] = (), *, top_k: int = 1
    ) -> list[HeadsPrediction]:
        """Every head's answer for each image."""
        found = {
            name: task.predict(self._own(outputs, name), frames, top_k=top_k)
            for name, task in self.heads.items()
        }
        count = len(next(iter(found.values())))
        return [
            HeadsPrediction(heads={name: rows[at] for name, rows in found.items()}) for at in range(count)
        ]

    def decide(self, outputs: Outputs) -> dict[str, HeadTruths]:
        """Every head's answers."""
        decided = {name: task.decide(self._own(outputs, name)) for name, task in self.heads.items()}
        return {name: HeadTruths(values=v, known=np.ones(len(v), dtype=bool)) for name, v in decided.items()}

    def right(self, truths: Heads, answers: Heads) -> NDArray[np.bool_]:
        """Every head whose truth is known is right."""
        parts = [
            task.right(truths[name].values, answers[name].values) | ~truths[name].known
            for name, task in self.heads.items()
        ]
        return np.asarray(np.all(parts, axis=0))

    def margins(self, outputs: Outputs) -> NDArray[Any]:
        """The least of the heads'."""
        return np.asarray(
            np.min([task.margins(self._own(outputs, name)) for name, task in self.heads.items()], axis=0)
        )

    def score(self, truths: Heads, outputs: Outputs) -> Evaluation:
        """Every head on the images whose truth is known for it; see `together`."""
        found = {
            name: task.score(
                truths[name].values[truths[name].known], self._own(outputs, name, truths[name].known)
            )
            for name, task in self.heads.items()
        }
        return self.together(found, len(next(iter(truths.values())).known))

    def together(self, found: Mapping[str, Evaluation], images: int) -> Evaluation:
        """The heads' evaluations as one, of so many images; `mean` is over the heads that have any."""
        scored = [
            value(found[name], task.metrics[0].name)
            for name, task in self.heads.items()
            if found[name].images
        ]
        scores = {MEAN.name: Score(value=float(np.mean(scored)) if scored else 0.0)}
        for place in (slice(0, 1), slice(1, None)):
            for name, task in self.heads.items():
                for one in task.metrics[place]:
                    if one.name in found[name].scores:
                        scores[f"{name}/{one.name}"] = found[name].scores[one.name]
        return Evaluation(images=images, scores=scores, detail=to_json(HeadsDetail(heads=dict(found))))

    def agreement(self, expected: Outputs, found: Outputs) -> Agreement:
        """The same answer is the same of every head."""
        return agreement(self, expected, found, self.right(self.decide(expected), self.decide(found)))

    def judge(self, truths: Heads, before: Heads, after: Heads, limits: ScoreLimits) -> tuple[GateCheck, ...]:
        """Each head's checks, named after it, on the images whose truth is known; each head has its own error levels.

        A head of which no image's truth is known is not judged.
        """
        found: list[GateCheck] = []
        for name, task in self.heads.items():
            known = truths[name].known
            if known.any():
                right, was, now = (values[name].values[known] for values in (truths, before, after))
                found += [_of(name, check) for check in task.judge(right, was, now, limits)]
        return tuple(found)

    def judge_scores(self, before: Scores, after: Scores, limits: ScoreLimits) -> tuple[GateCheck, ...]:
        """Each head's checks of its figures."""
        found: list[GateCheck] = []
        for name, task in self.heads.items():
            was, now = (_own_scores(scores, name) for scores in (before, after))
            found += [_of(name, check) for check in task.judge_scores(was, now, limits)]
        return tuple(found)

    def words(self, answers: Heads) -> list[str]:
        """Every head's answer that is known."""
        said = {name: task.words(answers[name].values) for name, task in self.heads.items()}
        count = len(next(iter(answers.values())).known)
        return [
            "; ".join(f"{name}: {said[name][at]}" for name in said if answers[name].known[at])
            for at in range(count)
        ]

    def plain(self, answers: Heads) -> list[dict[str, Any]]:
        """One object per image, without the heads that are not known."""
        said = {name: task.plain(answers[name].values) for name, task in self.heads.items()}
        count = len(next(iter(answers.values())).known)
        return [{n: said[n][at] for n in said if answers[n].known[at]} for at in range(count)]

    def read(self, values: Sequence[Any]) -> dict[str, HeadTruths]:
        """See `edgetl.tasks.base.Task.read`; a head that an image leaves out is not known for it."""
        heads = self.heads
        for row in values:
            if not isinstance(row, Mapping) or row.keys() - heads.keys():
                raise ValueError(f"it holds {row!r:.40}, expected an object with some of {', '.join(heads)}")
        found = {}
        for name, task in heads.items():
            fill: Any = 0 if isinstance(task, ClassificationTask) else []
            known = np.array([row.get(name) is not None for row in values], dtype=bool)
            read = task.read([row[name] if has else fill for row, has in zip(values, known, strict=True)])
            found[name] = HeadTruths(values=read, known=known)
        return found

    def _own(self, outputs: Outputs, name: str, rows: NDArray[np.bool_] | None = None) -> Outputs:
        """A head's output as its own task calls it."""
        found = output(self, outputs, name)
        return {LOGITS: found if rows is None else found[rows]}


def _of(head: str, check: GateCheck) -> GateCheck:
    return dataclasses.replace(check, name=f"{head} {check.name}", sentence=f"{head}: {check.sentence}")


def _own_scores(scores: Scores, head: str) -> Scores:
    prefix = f"{head}/"
    own = {name.removeprefix(prefix): s for name, s in scores.scores.items() if name.startswith(prefix)}
    return Scores(images=scores.images, scores=own)
