"""One aligned cut: channels are removed for good, and the result is checked before it is handed out."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgetl.errors import ModelError, UncuttableError
from edgetl.models.removed import remove_
from edgetl.prune.depth import within
from edgetl.prune.graph import ChannelGraph, layer_costs, running_module, trace, whole_groups
from edgetl.prune.importance import Scorer
from edgetl.prune.latency import LatencyTable
from edgetl.prune.plan import Cost, CutLimits, CutPlan, choose
from edgetl.prune.surgery import masked, mismatch, without


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A network after a cut.

    `widths` are the channels that each group has now, by the group's name; `removed` how many went. Groups of a block
    that was taken out stay in both as they were. `blocks` are the blocks that went.
    """

    model: nn.Module
    cost: Cost
    widths: dict[str, int]
    removed: dict[str, int]
    blocks: tuple[str, ...] = ()


def cut(
    model: nn.Module,
    input_size: int,
    scorer: Scorer,
    budget: Cost,
    limits: CutLimits,
    *,
    keep: Sequence[str] = (),
    table: LatencyTable | None = None,
) -> Cut:
    """Remove the least important channels, and blocks where the limits allow it, until the budget holds.

    `model` itself stays as it is.

    The result is checked: widths are the planned multiples, the cost really fell to the plan's, a forward pass at
    the real input size gives logits of the same shape, and they equal those of `model` with the removed channels
    masked where they are read.

    Args:
        model: (N, 3, H, W) images to (N, C) logits.
        input_size: side of its square input in pixels.
        scorer: ranks the channels.
        budget: what may remain.
        limits: alignment and floors.
        keep: names of layers or blocks whose shapes stay.
        table: predicts milliseconds; where there is none, the budget's do not count.

    Raises:
        ModelError: the network cannot be traced or cut (names the module), the budget is out of reach, or an
            unknown name in `keep`.
    """
    graph = trace(copy.deepcopy(model), input_size, keep=keep, depth=limits.depth)
    try:
        plan = choose(graph, scorer(graph), budget, limits, table)
    except ModelError as error:
        raise ModelError(f"{error}{_refusals(graph)}") from error
    probe = torch.randn(2, 3, input_size, input_size, generator=torch.Generator().manual_seed(0))
    probe = probe.to(next(graph.model.parameters()).device)
    before = {group.name: group.channels for group in graph.groups}
    work = _cut(graph, plan)
    logits = _forward(work, probe)
    _check(graph, work, plan, limits.round_to)
    with torch.no_grad():
        reference = remove_(masked(graph.model, graph.groups, plan.removed), plan.blocks)
        wrong = mismatch(reference(probe), logits)
    if wrong:
        raise UncuttableError(
            f"{type(work).__name__} cannot be pruned: after the cut {wrong}. Name the layers that it comes from in"
            " prune.keep, or take another backbone."
        )
    removed = {name: len(gone) for name, gone in plan.removed.items()}
    return Cut(
        model=work,
        cost=plan.cost,
        widths={name: channels - removed.get(name, 0) for name, channels in before.items()},
        removed=removed,
        blocks=plan.blocks,
    )


def _refusals(graph: ChannelGraph) -> str:
    """Which groups a network is pruned around, for a refusal; nothing where there are none."""
    if not graph.refused:
        return ""
    name, why = next(iter(graph.refused.items()))
    return (
        f" {len(graph.refused)} channel groups cannot be cut, e.g. at {name}: {why}. Take a higher target, or another"
        " backbone."
    )


def _cut(graph: ChannelGraph, plan: CutPlan) -> nn.Module:
    try:
        work = remove_(without(graph.model, graph.groups, plan.removed), plan.blocks)
    except Exception as error:
        raise UncuttableError(
            f"{type(graph.model).__name__} cannot be pruned: {error}. Name layers in prune.keep, or take another"
            f" backbone. Cut were: {', '.join(plan.removed)}."
        ) from error
    work.zero_grad(set_to_none=True)
    return work


def _check(graph: ChannelGraph, model: nn.Module, plan: CutPlan, round_to: int) -> None:
    modules = dict(model.named_modules())
    for group in graph.groups:
        gone = len(plan.removed.get(group.name, ()))
        if gone and (group.channels - gone) % round_to:
            raise UncuttableError(
                f"{type(model).__name__} cannot be pruned: {group.name} has {group.channels - gone} channels after the"
                f" cut, expected a multiple of {round_to}."
            )
        for name, share in group.outputs.items():
            if any(within(name, block) for block in plan.blocks):
                continue
            planned, actual = graph.layers[name].outputs - gone * share, len(modules[name].weight)
            if actual != planned:
                raise UncuttableError(
                    f"{type(model).__name__} cannot be pruned: {name} has {actual} channels after the cut, planned"
                    f" were {planned:g}."
                )
    odd = [
        name
        for name, module in modules.items()
        if whole_groups(module) and isinstance(module, nn.Conv2d) and module.out_channels % module.groups
    ]
    if odd:
        raise UncuttableError(
            f"{type(model).__name__} cannot be pruned: {odd[0]} is left with uneven groups."
        )
    layers = layer_costs(model, graph.input_size).values()
    macs = sum(layer.macs(layer.inputs, layer.outputs) for layer in layers)
    if abs(macs - plan.cost.macs) > 0.01 * plan.cost.macs:
        raise UncuttableError(
            f"{type(model).__name__} cannot be pruned: {macs:.3g} multiply-accumulates remain, planned"
            f" were {plan.cost.macs:.3g}."
        )


def _forward(model: nn.Module, images: Tensor) -> Tensor:
    with running_module(model) as where, torch.no_grad():
        try:
            logits: Tensor = model(images)
        except Exception as error:
            raise UncuttableError(
                f"{type(model).__name__} cannot be pruned: after the cut it fails{where()}: {error}. Name the layers"
                " around it in prune.keep, or take another backbone."
            ) from error
    return logits
