"""Devices and mixed precision, through accelerate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, assert_never

import torch
from torch import Tensor, nn

from edgetl.config import TrainPrecision
from edgetl.errors import TrainingError
from edgetl.train import processes

_FAST_KERNEL = 3
"""Up to this side, oneDNN has fast gradients in bf16 of a grouped convolution without a stride."""


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


@contextmanager
def fast_on_cpu(model: nn.Module) -> Iterator[None]:
    """While it is open, training in bf16 on a CPU runs a few convolutions of a network in float32.

    oneDNN has no fast kernel for the gradients of a grouped convolution in bf16 if it has a stride, or a kernel of more
    than 3 x 3: they take 4 to 16 times as long as in float32, and two thirds of a step of EfficientNet-Lite0 (torch
    2.15, AVX-512 BF16). Outside `torch.autocast` nothing is changed.

    Args:
        model: any; its modules' `forward` is replaced for the time, so that it must not be copied then.
    """
    slow = [m for m in model.modules() if isinstance(m, nn.Conv2d) and _slow_in_bf16(m)]
    for module in slow:
        module.forward = partial(_in_float32, module.forward)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in slow:
            del module.forward


def _slow_in_bf16(module: nn.Conv2d) -> bool:
    return module.groups > 1 and (max(module.stride) > 1 or max(module.kernel_size) > _FAST_KERNEL)


def _in_float32(forward: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    if images.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return forward(images)
    with torch.autocast("cpu", enabled=False):
        return forward(images.float()).to(torch.get_autocast_dtype("cpu"))


def _mixed(precision: TrainPrecision) -> str:
    match precision:
        case TrainPrecision.AUTO:
            return "bf16" if _has_bf16() else "no"
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


def _has_bf16() -> bool:
    """Whether the device that trains multiplies in bf16 by itself; emulated, it is slower than float32."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
