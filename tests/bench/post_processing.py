"""From a detector's raw outputs to its answer: threshold, suppression, the way back to the picture; one thread."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from edgetl.bench.timer import time_calls
from edgetl.inputs.frame import frame_of
from edgetl.inputs.spec import PreprocessSpec, Resize
from edgetl.tasks.base import Detection
from edgetl.tasks.detection.task import DetectionTask
from tests.bench.claims import Claim, at_most

_SIZE, _PLACES, _CLASSES = 320, 2100, 3
"""An input of 320 pixels at strides 8, 16 and 32."""


def run() -> Iterator[Claim]:
    """Yield the claims."""
    task = DetectionTask(spec=Detection(labels=tuple("abc"), threshold=0.3))
    frame = frame_of((640, 480), PreprocessSpec(size=_SIZE, resize=Resize.PAD))
    for candidates, aim in ((0, None), (60, 0.3), (300, None)):
        outputs = _outputs(candidates)
        # Processor time of the calling thread, so that what else the machine does is left out.
        samples = time_calls(
            lambda o=outputs: task.predict(o, [frame]), warmup=200, runs=2000, clock=time.thread_time_ns
        )
        name = f"predict from outputs, {candidates} candidates of {_PLACES} places above the threshold"
        median = float(np.median(samples))
        if aim is None:
            yield Claim(name=name, measured=f"{median:.3g} ms")
        else:
            yield at_most(name, median, aim, " ms")


def _outputs(candidates: int) -> dict[str, np.ndarray]:
    """Boxes in clusters of four around as many objects, as a trained detector gives them."""
    generator = np.random.default_rng(0)
    objects = np.repeat(np.arange(_PLACES), 4)[:_PLACES]
    low, sides = generator.uniform(0, _SIZE - 60, (_PLACES, 2)), generator.uniform(20, 60, (_PLACES, 2))
    boxes = np.concatenate([low, low + sides], axis=1)[objects] + generator.normal(0, 1, (_PLACES, 4))
    scores = generator.uniform(0, 0.05, (_PLACES, _CLASSES))
    above = generator.uniform(0.31, 0.99, candidates)
    scores[np.arange(candidates), objects[:candidates] % _CLASSES] = above
    return {"boxes": boxes.astype(np.float32)[None], "scores": scores.astype(np.float32)[None]}
