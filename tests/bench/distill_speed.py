"""Images a second of distillation, where the teacher's batch norms are folded and where it runs as it was trained."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator

from torch import nn

from edgetl.distill.objective import Distillation
from edgetl.distill.teacher import guide
from edgetl.distill.views import AtSize
from edgetl.models import backbones
from edgetl.train.loop import fit
from edgetl.train.sets import PixelSet
from tests.bench.claims import Claim, at_least
from tests.bench.finetune_speed import TASK, one_epoch
from tests.bench.head_cache import CLASSES, TURNS, images

STUDENT = "efficientnet_lite0"
CASES = (("efficientnet_lite0", 160, 160), ("tf_efficientnet_lite2", 224, 144))
"""Teacher, its side and the student's."""


def run() -> Iterator[Claim]:
    """Yield the claims. `EDGETL_BENCH_IMAGES` sets the training images (default 320)."""
    count = int(os.environ.get("EDGETL_BENCH_IMAGES", "320"))
    for name, side, size in CASES:
        teacher = backbones.create(name, CLASSES, backbones.NO_WEIGHTS)
        train, val = images(count, side), images(CLASSES, size)
        turns = [
            tuple(_rate(one, size, train, val) for one in (guide(teacher, side), AtSize(teacher, side)))
            for _ in range(1 + TURNS)
        ]
        # the first turn fills caches that the others find filled
        ratio = statistics.median(ours / whole for ours, whole in turns[1:])
        setting = f"{name} at {side} px teaches {STUDENT} at {size} px"
        yield at_least(f"images per second over those with the norms unfolded ({setting})", ratio, 1.0, "x")
        rate = statistics.median(ours for ours, _ in turns[1:])
        yield Claim(name=f"images per second ({setting})", measured=f"{rate:.0f}")


def _rate(teacher: nn.Module, size: int, train: PixelSet, val: PixelSet) -> float:
    student = backbones.create(STUDENT, CLASSES, backbones.NO_WEIGHTS)
    objective = Distillation(teacher=teacher, task=TASK, temperature=2.0, soft_weight=0.9, student_size=size)
    (epoch,) = fit(
        student, one_epoch("distill"), train=train, val=val, task=TASK, objective=objective, state=None
    )
    return epoch.images_per_second
