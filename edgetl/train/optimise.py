"""Optimiser, learning-rate schedule and the moving average of weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, assert_never

import torch
from torch import Tensor, nn

from edgetl.config import Optimizer

_MOMENTUM = 0.9


def optimiser_of(
    kind: Optimizer,
    parameters: Sequence[nn.Parameter],
    *,
    lr: float,
    weight_decay: float,
    scales: Mapping[int, float] | None = None,
) -> torch.optim.Optimizer:
    """An optimiser with decay apart from the gradient. Vectors and scalars (norms, biases, scales) are not decayed.

    Args:
        kind: which.
        parameters: what learns.
        lr: peak rate.
        weight_decay: of matrices and filters.
        scales: share of the rate that a parameter gets, by its `id`; 1 where None. It stands in the parameter groups
            as `lr_scale`, for `set_rate`.
    """
    chosen: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for decayed in (True, False):
        for parameter in parameters:
            if (parameter.ndim > 1) is decayed:
                scale = scales[id(parameter)] if scales is not None else 1.0
                chosen.setdefault((scale, decayed), []).append(parameter)
    groups = [
        {"params": found, "weight_decay": weight_decay if decayed else 0.0, "lr_scale": scale}
        for (scale, decayed), found in chosen.items()
    ]
    match kind:
        case Optimizer.ADAMW:
            fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters)
            return torch.optim.AdamW(groups, lr=lr, fused=fused)
        case Optimizer.SGD:
            made: torch.optim.Optimizer = torch.optim.SGD(
                _apart(groups), lr=lr, momentum=_MOMENTUM, nesterov=True
            )
        case Optimizer.RMSPROP:
            made = torch.optim.RMSprop(_apart(groups), lr=lr, momentum=_MOMENTUM)
        case _:
            assert_never(kind)
    made.register_step_pre_hook(_decay)
    return made


def _apart(groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The groups with their decay where the optimiser does not see it."""
    return [{**group, "weight_decay": 0.0, "decay": group["weight_decay"]} for group in groups]


def _decay(optimiser: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    with torch.no_grad():
        for group in optimiser.param_groups:
            if group["decay"]:
                torch._foreach_mul_(group["params"], 1.0 - group["lr"] * group["decay"])


def set_rate(groups: Iterable[dict[str, Any]], rate: float) -> None:
    """Set the learning rate of an optimiser's parameter groups, each by its `lr_scale`."""
    for group in groups:
        group["lr"] = rate * group["lr_scale"]


def schedule(step: int, steps: int, warmup_share: float) -> float:
    """The share of the peak rate at a step: linear warm-up, then cosine to zero (Loshchilov, Hutter 2017).

    Args:
        step: 0..steps-1.
        steps: of the whole phase.
        warmup_share: of `steps`; the warm-up's last step has the full rate.
    """
    warmup = round(steps * warmup_share)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


class MovingAverage:
    """Exponential moving average of a network's weights and statistics.

    The decay grows as (1 + t) / (10 + t) up to `decay`, so that a short run is not ruled by its first weights.

    Attributes:
        model: the averaged network.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self._decay = decay

    def update(self, model: nn.Module, step: int) -> None:
        """Move towards `model`; `step` counts from 0 over the whole phase."""
        share = 1.0 - min(self._decay, (1 + step) / (10 + step))
        own, new = self.model.state_dict(), model.state_dict()
        floats = [k for k, v in own.items() if v.is_floating_point()]
        with torch.no_grad():
            torch._foreach_lerp_([own[k] for k in floats], [new[k].detach() for k in floats], share)
            for key in own.keys() - set(floats):
                own[key].copy_(new[key])


def copy_state(model: nn.Module) -> dict[str, Tensor]:
    """A copy of a network's tensors, on the CPU, with the versions of their layers, by which some are read back."""
    state = model.state_dict()
    for name, value in state.items():
        state[name] = value.detach().to("cpu", copy=True)
    return state
