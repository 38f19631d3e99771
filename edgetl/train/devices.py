"""Devices and mixed precision, through accelerate."""

from __future__ import annotations

from typing import Any, assert_never

import torch
from torch import nn

from edgetl.config import Precision
from edgetl.errors import TrainingError


def accelerator(precision: Precision) -> Any:
    """An `accelerate.Accelerator` for one fit.

    Raises:
        TrainingError: the arithmetic is not to be had on this machine, or several processes were launched.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    # One process may fit with several precisions in turn; accelerate keeps the first in global state.
    AcceleratorState._reset_state()
    chosen = Accelerator(mixed_precision=_mixed(precision))
    if chosen.num_processes > 1:
        raise TrainingError(
            f"{chosen.num_processes} processes were launched; training runs in one. Start it without a launcher."
        )
    return chosen


def device_of(model: nn.Module) -> torch.device:
    """Where a network's weights are."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def _mixed(precision: Precision) -> str:
    match precision:
        case Precision.AUTO:
            return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"
        case Precision.FP32:
            return "no"
        case Precision.BF16:
            return "bf16"
        case Precision.FP16:
            if not torch.cuda.is_available():
                raise TrainingError("train.precision is fp16, which needs a GPU. Take fp32 or auto.")
            return "fp16"
        case _:
            assert_never(precision)
