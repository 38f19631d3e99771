"""How the tests' students follow their teachers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgetl.config import Augment, DistillLoss, TrainPrecision
from edgetl.distill.objective import Guide


def guide_of(teacher: Path, **changes: Any) -> Guide:
    settings: dict[str, Any] = {
        "teacher": teacher,
        "teacher_size": 32,
        "batch_size": 8,
        "weight_decay": 0.01,
        "precision": TrainPrecision.FP32,
        "temperature": 2.0,
        "soft_weight": 0.9,
        "loss": DistillLoss.HINTON,
        "augment": Augment.BASIC,
    }
    return Guide(**(settings | changes))
