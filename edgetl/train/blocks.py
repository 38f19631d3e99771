"""A network's layers as blocks from the stem to the head: what may be frozen, and how fast each block learns."""

from __future__ import annotations

from typing import Any

from torch import nn

from edgetl.errors import TrainingError
from edgetl.models.detector import Detector
from edgetl.train.freezing import Trainable
from edgetl.train.tasks.base import FitTask, TrainingTask

Block = tuple[str, ...]
"""Names of parameters."""
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_LEAST_STAGES = 4


def blocks(model: nn.Module, task: FitTask, *, coarse: bool = False) -> tuple[Block, ...]:
    """Every parameter's name, in blocks from the stem to the head.

    timm's networks say themselves how their layers are grouped (`group_matcher`). Of others the modules are taken in
    their order: stages are the children, containers opened until there are four; blocks are the stages' children.

    Args:
        model: a network.
        task: says which parts of it are new: they are the head.
        coarse: whole stages instead of single blocks.

    Returns:
        The blocks; the last one holds the head.

    Raises:
        ModelError: the head cannot be distinguished from the backbone.
    """
    if isinstance(model, Detector):  # its neck and heads stand beside the backbone
        groups = [[f"backbone.{name}" for name in group] for group in _by_order(model.backbone, coarse)]
        groups.append([name for name, _ in model.named_parameters() if not name.startswith("backbone.")])
    else:
        groups = _by_matcher(model, coarse) if hasattr(model, "group_matcher") else _by_order(model, coarse)
    heads = tuple(f"{name}." for name in task.new_layers(model))
    names = [n for n, _ in model.named_parameters() if n.startswith(heads)]
    rest = [[n for n in group if not n.startswith(heads)] for group in groups]
    if any(n in groups[-1] for n in names):
        *rest, neck = rest
        names = [*neck, *names]
    return tuple(tuple(group) for group in [*rest, names] if group)


def last_blocks(count: int, task: TrainingTask) -> Trainable:
    """Lets the head and the last `count` blocks before it learn.

    Raises:
        TrainingError: when called, the network has fewer blocks.
    """

    def choose(model: nn.Module) -> list[nn.Parameter]:
        found = blocks(model, task)
        if count >= len(found):
            raise TrainingError(
                f"train.unfrozen_blocks is {count}, but the network has {len(found) - 1} blocks before its head."
                ' Take fewer, or train.strategy = "full".'
            )
        return _parameters(model, found[len(found) - 1 - count :])

    return choose


def last_stages(share: float, task: TrainingTask) -> Trainable:
    """Lets the head and the last `share` (0..1) of the stages before it learn, rounded up to whole stages."""

    def choose(model: nn.Module) -> list[nn.Parameter]:
        found = blocks(model, task, coarse=True)
        count = -(-round(share * 1000) * (len(found) - 1) // 1000)
        return _parameters(model, found[len(found) - 1 - count :])

    return choose


def layer_scales(model: nn.Module, task: FitTask, decay: float) -> dict[int, float]:
    """The share of the learning rate of each parameter, by its `id`: decay^k, k blocks below the head.

    Layer-wise learning-rate decay (Clark et al. 2020, ELECTRA; Bao et al. 2022, BEiT).
    """
    found = blocks(model, task)
    return {
        id(model.get_parameter(name)): decay ** (len(found) - 1 - number)
        for number, block in enumerate(found)
        for name in block
    }


def _parameters(model: nn.Module, chosen: tuple[Block, ...]) -> list[nn.Parameter]:
    return [model.get_parameter(name) for block in chosen for name in block]


def _by_matcher(model: Any, coarse: bool) -> list[list[str]]:
    from timm.models import group_parameters

    return [list(group) for group in group_parameters(model, model.group_matcher(coarse=coarse)).values()]


def _by_order(model: nn.Module, coarse: bool) -> list[list[str]]:
    units = _children("", model)
    while len(units) <= _LEAST_STAGES:
        largest = max(units, key=lambda u: _size(u[1]))
        opened = _children(*largest)
        if not opened:
            break
        at = units.index(largest)
        units[at : at + 1] = opened
    if not coarse:
        units = [inner for unit in units for inner in _opened(*unit)]
    prefixes = [f"{name}." for name, _ in units]
    groups: list[list[str]] = [[] for _ in units]
    for name, _ in model.named_parameters():
        # parameters that lie next to the units (class token, position embedding) go with the stem
        at = next((i for i, prefix in enumerate(prefixes) if name.startswith(prefix)), 0)
        groups[at].append(name)
    kept: list[list[str]] = []
    for group in groups:
        # a norm of its own goes with the layer before it
        if kept and all(model.get_parameter(name).ndim <= 1 for name in group):
            kept[-1] += group
        elif group:
            kept.append(group)
    return kept


def _opened(name: str, module: nn.Module) -> list[tuple[str, nn.Module]]:
    if not isinstance(module, _CONTAINERS):
        return [(name, module)]
    return [inner for child in _children(name, module) for inner in _opened(*child)] or [(name, module)]


def _children(name: str, module: nn.Module) -> list[tuple[str, nn.Module]]:
    prefix = f"{name}." if name else ""
    return [(prefix + key, child) for key, child in module.named_children() if _size(child)]


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
