"""Which blocks a network can do without: those whose own shortcut carries the input on.

Taking out a residual block leaves a shorter path of the same shapes: Veit et al., "Residual Networks Behave Like
Ensembles of Relatively Shallow Networks" (NIPS 2016). Fewer and wider layers win where every call costs its own time.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgetl.errors import ModelError
from edgetl.models.adapters import uncut_layers

_PROBES = 2


@dataclass(frozen=True, kw_only=True)
class Block:
    """A residual block that may be taken out whole.

    Attributes:
        name: its module.
        layers: names of its convolutions and linear layers.
    """

    name: str
    layers: frozenset[str]


def removable(model: nn.Module, input_size: int, keep: Sequence[str] = ()) -> tuple[Block, ...]:
    """The smallest modules that give exactly their input when all their parameters are zero, in the network's order.

    Their shortcut alone then carries the image on: the stride is 1, the channels are equal, and no activation behind
    the sum changes what comes in. It is tried with what a real pass brings there, so that no block is known by name.

    Args:
        model: (N, 3, H, W) float32 images to outputs; in evaluation mode.
        input_size: side of its square input in pixels.
        keep: names of layers or blocks that stay.
    """
    device = next(model.parameters()).device
    images = torch.randn(_PROBES, 3, input_size, input_size, generator=torch.Generator().manual_seed(0))
    reached = _inputs(model, images.to(device))
    modules = dict(model.named_modules())
    fixed = [*keep, *uncut_layers(model)]
    found: dict[str, Block] = {}
    # The deepest first: what holds a smaller block is a stage, not a block.
    for name in sorted(reached, key=lambda name: name.count("."), reverse=True):
        if any(within(other, name) for other in (*found, *fixed)) or any(
            within(name, other) for other in keep
        ):
            continue
        if _passes_on(modules[name], reached[name]):
            found[name] = Block(name=name, layers=_layers(modules[name], name))
    order = {name: number for number, name in enumerate(modules)}
    return tuple(sorted(found.values(), key=lambda block: order[block.name]))


def fewest(blocks: Sequence[Block], depth: float) -> int:
    """How many of the blocks stay at least where the share `depth` of them may go."""
    return len(blocks) - math.floor(depth * len(blocks) + 1e-9)


def check(model: nn.Module, blocks: Sequence[Block], depth: float) -> None:
    """Make sure that `depth` lets at least one block go.

    Raises:
        ModelError: it does not, and says why.
    """
    name = type(model).__name__
    if not blocks:
        raise ModelError(
            f"prune.depth = {depth:g}, but {name} has no block that can go: none has a shortcut that carries its input"
            " on unchanged (stride 1, equal channels, no activation behind the sum that changes it). Set"
            " prune.depth = 0, or take a residual backbone."
        )
    if fewest(blocks, depth) == len(blocks):
        raise ModelError(
            f"prune.depth = {depth:g} lets none of the {len(blocks)} blocks of {name} go. Set it to"
            f" {math.ceil(1000 / len(blocks)) / 1000:g} or more, or to 0."
        )


def within(name: str, other: str) -> bool:
    """Whether a module is another one or a part of it."""
    return name == other or name.startswith(f"{other}.")


def _inputs(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """What modules that hold layers get in a pass, of those that are called once, on a tensor whose shape they keep."""
    calls: dict[str, list[Tensor | None]] = {}

    def before(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        alone = len(args) == 1 and not kwargs and isinstance(args[0], Tensor)
        # A copy, since activations may write in place.
        calls.setdefault(name, []).append(args[0].clone() if alone else None)

    def after(name: str, output: Any) -> None:
        given = calls[name][-1]
        if given is None or not isinstance(output, Tensor) or output.shape != given.shape:
            calls[name][-1] = None

    hooks = []
    for name, module in model.named_modules():
        if name and next(module.children(), None) is not None and _layers(module, name):
            hooks += [
                module.register_forward_pre_hook(
                    lambda _, args, kwargs, name=name: before(name, args, kwargs), with_kwargs=True
                ),
                module.register_forward_hook(lambda _, args, output, name=name: after(name, output)),
            ]
    try:
        with torch.no_grad():
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: given[0] for name, given in calls.items() if len(given) == 1 and given[0] is not None}


def _layers(module: nn.Module, name: str) -> frozenset[str]:
    return frozenset(
        f"{name}.{inner}" for inner, part in module.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)
    )


def _passes_on(module: nn.Module, given: Tensor) -> bool:
    """Whether a module gives its input when its parameters are zero."""
    empty = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in empty.parameters():
            parameter.zero_()
        output: Tensor = empty(given.clone())
    return torch.equal(output, given)
