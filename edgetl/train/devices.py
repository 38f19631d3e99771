"""Devices and mixed precision, through accelerate."""

from __future__ import annotations

from typing import Any, assert_never

import torch
from torch import nn

from edgetl.config import TrainPrecision
from edgetl.errors import TrainingError
from edgetl.train import processes


def accelerator(precision: TrainPrecision) -> Any:
    """An `accelerate.Accelerator` for one fit.

    Raises:
        TrainingError: the arithmetic is not to be had on this machine.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    # accelerate meets other processes on the CPU only where it is configured to stay there
    cpu = processes.join().count > 1 and not torch.cuda.is_available()
    # One process may fit with several precisions in turn; accelerate keeps the first in global state.
    AcceleratorState._reset_state()
    return Accelerator(mixed_precision=_mixed(precision), cpu=cpu)


def device_of(model: nn.Module) -> torch.device:
    """Where a network's weights are."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def _mixed(precision: TrainPrecision) -> str:
    match precision:
        case TrainPrecision.AUTO:
            return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"
        case TrainPrecision.FP32:
            return "no"
        case TrainPrecision.BF16:
            return "bf16"
        case TrainPrecision.FP16:
            if not torch.cuda.is_available():
                raise TrainingError("train.precision is fp16, which needs a GPU. Take fp32 or auto.")
            return "fp16"
        case _:
            assert_never(precision)
