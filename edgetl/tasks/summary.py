"""What an answer comes to, whatever the task: how sure it is, and which classes it names."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from edgetl.tasks.base import MultiHead, TaskSpec
from edgetl.tasks.classification.answers import Prediction as ClassPrediction
from edgetl.tasks.detection.answers import Detections
from edgetl.tasks.multihead.answers import HeadsPrediction
from edgetl.tasks.multilabel.answers import TagsPrediction

if TYPE_CHECKING:
    from edgetl.tasks.all import Prediction


def sureness(prediction: Prediction) -> float:
    """How sure an answer is, in 0..1.

    The best class's probability; of any number of classes how sure the most probable one is answered or not, the larger
    of its probability and what is left of it; of several heads the least sure one; of boxes the best one's score, 0
    where there is none.
    """
    match prediction:
        case ClassPrediction():
            return prediction.top[0].score
        case TagsPrediction():
            best = prediction.top[0].score
            return max(best, 1.0 - best)
        case HeadsPrediction():
            return min(sureness(found) for found in prediction.heads.values())
        case Detections():
            return prediction.items[0].score if prediction.items else 0.0
        case _:
            assert_never(prediction)


def named(prediction: Prediction, spec: TaskSpec) -> tuple[int, ...]:
    """The classes that an answer names: places among `edgetl.tasks.base.labels_of(spec)`, ascending."""
    match prediction:
        case ClassPrediction():
            return (prediction.index,)
        case TagsPrediction():
            return tuple(sorted(tag.index for tag in prediction.tags))
        case HeadsPrediction():
            assert isinstance(spec, MultiHead)
            found: list[int] = []
            start = 0
            for name, head in spec.heads.items():
                found += [start + place for place in named(prediction.heads[name], head)]
                start += len(head.labels)
            return tuple(found)
        case Detections():
            return tuple(sorted({item.index for item in prediction.items}))
        case _:
            assert_never(prediction)
