"""What is right for an index's images, as their task's scores ask for it."""

from __future__ import annotations

from collections.abc import Sequence

from edgetl.data.boxes.truths import truth_of
from edgetl.data.index import Sample
from edgetl.inputs.spec import PreprocessSpec
from edgetl.tasks.all import truths_of
from edgetl.tasks.base import Detection, TaskSpec, Truths


def truths_for(task: TaskSpec, samples: Sequence[Sample], spec: PreprocessSpec) -> Truths:
    """The truths of samples, in order.

    Args:
        task: the index's.
        samples: some of its images.
        spec: how a network's input is made of them.
    """
    if not isinstance(task, Detection):
        return truths_of(task, [sample.label for sample in samples])
    found = []
    for sample in samples:
        assert sample.marked is not None
        found.append(truth_of(sample.path, sample.marked, task.labels, spec))
    return found
