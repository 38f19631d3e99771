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
    low = generator.uniform(0, _SIZE - 60, (1, _PLACES, 2))
    low[:, :candidates] = np.repeat(low[:, : max(1, candidates // 4)], 4, axis=1)[:, :candidates] + (
        generator.normal(0, 2, (1, candidates, 2))
    )
    scores = generator.uniform(0, 0.05, (1, _PLACES, _CLASSES))
    scores[0, np.arange(candidates), generator.integers(0, _CLASSES, candidates)] = generator.uniform(
        0.31, 0.99, candidates
    )
    boxes = np.concatenate([low, low + generator.uniform(20, 60, (1, _PLACES, 2))], axis=2)
    return {"boxes": boxes.astype(np.float32), "scores": scores.astype(np.float32)}
