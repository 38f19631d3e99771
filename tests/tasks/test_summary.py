"""What an answer comes to, for every task."""

from __future__ import annotations

from edgetl.tasks.base import Classification, Detection, MultiHead, MultiLabel
from edgetl.tasks.classification.answers import Candidate, Prediction
from edgetl.tasks.detection.answers import Detection as Box
from edgetl.tasks.detection.answers import Detections
from edgetl.tasks.multihead.answers import HeadsPrediction
from edgetl.tasks.multilabel.answers import TagsPrediction
from edgetl.tasks.summary import named, sureness

COLOURS = Classification(labels=("red", "green", "blue"))
MARKS = MultiLabel(labels=("dry", "cut"))
GREEN = Candidate(label="green", index=1, score=0.7)
CUT, DRY = Candidate(label="cut", index=1, score=0.9), Candidate(label="dry", index=0, score=0.2)
ONE = Prediction(label="green", index=1, score=0.7, top=(GREEN,))


def test_a_class() -> None:
    assert (sureness(ONE), named(ONE, COLOURS)) == (0.7, (1,))
    group = Prediction(label="cold", index=1, score=0.95, top=(GREEN,), classes=("green", "blue"))
    assert sureness(group) == 0.7, "a group is no surer of its class"


def test_tags() -> None:
    some = TagsPrediction(tags=(CUT,), top=(CUT,))
    none = TagsPrediction(tags=(), top=(DRY,))
    assert (sureness(some), named(some, MARKS)) == (0.9, (1,))
    assert (sureness(none), named(none, MARKS)) == (0.8, ())


def test_heads() -> None:
    spec = MultiHead(heads={"colour": COLOURS, "marks": MARKS})
    both = HeadsPrediction(heads={"colour": ONE, "marks": TagsPrediction(tags=(CUT, DRY), top=(CUT,))})
    assert (sureness(both), named(both, spec)) == (0.7, (1, 3, 4))


def test_boxes() -> None:
    spec = Detection(labels=("cell", "dust"))
    box = Box(box=(0.0, 0.0, 1.0, 1.0), label="dust", index=1, score=0.8)
    found = Detections(items=(box, box), width=4, height=4)
    assert (sureness(found), named(found, spec)) == (0.8, (1,))
    nothing = Detections(items=(), width=4, height=4)
    assert (sureness(nothing), named(nothing, spec)) == (0.0, ())
