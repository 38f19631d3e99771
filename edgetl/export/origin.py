"""Where an operator that cannot be exported comes from: the layer that calls it."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

_OPERATOR = re.compile(r"\b(?:aten|prims|torchvision|quantized)(?:::|\.)\w+")


def operator_in(message: str) -> str | None:
    """The operator that an exporter's message names, as `aten::name`; None where it names none."""
    found = _OPERATOR.search(message)
    return found.group().replace(".", "::") if found else None


def layer_of(model: nn.Module, images: torch.Tensor, operator: str) -> str:
    """The innermost layer whose forward calls `operator` first, as `blocks.3.attn (Attention)`; empty if none does."""
    stack: list[str] = []
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(lambda *_, name=name: stack.append(name)))
        handles.append(module.register_forward_hook(lambda *_: stack.pop() and None, always_call=True))
    watch = _Watch(operator, stack)
    try:
        with torch.inference_mode(), watch:
            model(images)
    except (
        Exception
    ):  # The layer was met before the failure, or it was not: either way there is no more to learn.
        pass
    finally:
        for handle in handles:
            handle.remove()
    if watch.layer is None:
        return ""
    return f"{watch.layer or 'the network itself'} ({kinds[watch.layer]})"


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the innermost layer at the first call of an operator."""

    def __init__(self, operator: str, stack: list[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operator, self.stack = operator.rstrip("_"), stack
        self.layer: str | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.rstrip("_")
        if self.layer is None and self.stack and name == self.operator:
            self.layer = self.stack[-1]
        return func(*args, **(kwargs or {}))
