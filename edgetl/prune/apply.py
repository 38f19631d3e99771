"""One aligned cut: channels are removed for good, and the result is checked before it is handed out."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgetl.errors import ModelError
from edgetl.prune.graph import Graph, is_consumer, layer_costs, trace, watched, whole_groups
from edgetl.prune.importance import Scorer
from edgetl.prune.plan import Cost, Limits, Plan, choose

_TOLERANCE, _TOLERANCE_GPU = 1e-3, 2e-2
"""Largest difference of a cut network's logits from a masked one's, relative to the largest logit (TF32 on GPUs)."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A network after a cut.

    `widths` are the channels that each group has now, by the group's name; `removed` how many went.
    """

    model: nn.Module
    cost: Cost
    widths: dict[str, int]
    removed: dict[str, int]


def cut(
    model: nn.Module,
    input_size: int,
    scorer: Scorer,
    budget: Cost,
    limits: Limits,
    *,
    keep: Sequence[str] = (),
) -> Cut:
    """Remove the least important channels until the budget holds. `model` itself stays as it is.

    The result is checked: widths are the planned multiples, the cost really fell to the plan's, a forward pass at
    the real input size gives logits of the same shape, and they equal those of `model` with the removed channels
    masked where they are read (where no layer norm spans them).

    Args:
        model: (N, 3, H, W) images to (N, C) logits.
        input_size: side of its square input in pixels.
        scorer: ranks the channels.
        budget: what may remain.
        limits: alignment and floors.
        keep: names of layers or blocks whose shapes stay.

    Raises:
        ModelError: the network cannot be traced or cut (names the module), the budget is out of reach, or an
            unknown name in `keep`.
    """
    work = copy.deepcopy(model)
    graph = trace(work, input_size, keep=keep)
    plan = choose(graph, scorer(graph), budget, limits)
    probe = torch.randn(2, 3, input_size, input_size, generator=torch.Generator().manual_seed(0))
    probe = probe.to(next(work.parameters()).device)
    exact = all(g.exact for g in graph.groups if g.name in plan.removed)
    with torch.no_grad():
        expected = masked(graph, plan.removed)(probe) if exact else work(probe)
    before = {group.name: group.channels for group in graph.groups}
    _remove(graph, plan.removed)
    logits = _forward(work, probe)
    _check(work, input_size, plan, before, limits.round_to)
    if logits.shape != expected.shape:
        raise ModelError(
            f"{type(work).__name__} cannot be pruned: after the cut it gives logits of shape {tuple(logits.shape)},"
            f" expected {tuple(expected.shape)}."
        )
    difference = float((logits - expected).abs().max() / expected.abs().max().clamp_min(1e-6))
    if exact and not difference <= (_TOLERANCE if probe.device.type == "cpu" else _TOLERANCE_GPU):
        raise ModelError(
            f"{type(work).__name__} cannot be pruned: its logits differ by {difference:.2g} from those of the same"
            " network with the removed channels masked, so the cut would be silently wrong."
        )
    removed = {name: len(gone) for name, gone in plan.removed.items()}
    return Cut(
        model=work,
        cost=plan.cost,
        widths={name: channels - removed.get(name, 0) for name, channels in before.items()},
        removed=removed,
    )


def recalibrate(model: nn.Module, batches: Sequence[Tensor]) -> None:
    """Measure batch norms' means and variances anew, in place, as plain averages over `batches`.

    After a cut the statistics belong to another network. The rest of the network is in evaluation mode.

    Args:
        model: the network; on any device.
        batches: images (n, 3, H, W) float32.
    """
    norms = [
        m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats
    ]
    if not norms or not batches:
        return
    model.eval()
    momenta = [norm.momentum for norm in norms]
    device = next(model.parameters()).device
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        with torch.no_grad():
            for batch in batches:
                model(batch.to(device))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


def masked(graph: Graph, removed: Mapping[str, Sequence[int]]) -> nn.Module:
    """A copy of the network in which nothing reads the channels (group -> indices) that are to go."""
    names = {module: name for name, module in graph.model.named_modules()}
    masked = copy.deepcopy(graph.model)
    modules = dict(masked.named_modules())
    for group in graph.groups:
        gone = set(removed.get(group.name, ()))
        for item in group.members:
            if not is_consumer(item.dep):
                continue
            idxs = [i for i, root in zip(item.idxs, item.root_idxs, strict=True) if root in gone]
            modules[names[item.dep.target.module]].weight.data[:, idxs] = 0.0
    return masked


def cut_alone(graph: Graph, removed: Mapping[str, Sequence[int]]) -> nn.Module:
    """A copy of the network without the channels (group -> indices); nothing is checked."""
    work = copy.deepcopy(graph.model)
    _remove(trace(work, graph.input_size), removed)
    return work


def _remove(graph: Graph, removed: Mapping[str, Sequence[int]]) -> None:
    modules = dict(graph.model.named_modules())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for group in graph.groups:
            if group.name not in removed:
                continue
            root = group.members[0].dep
            try:
                graph.dependencies.get_pruning_group(
                    modules[group.name], root.handler, list(removed[group.name])
                ).prune()
            except Exception as error:
                raise ModelError(
                    f"{type(graph.model).__name__} cannot be pruned at {group.name}: {error}. Name it in prune.keep."
                ) from error
    graph.model.zero_grad(set_to_none=True)


def _check(model: nn.Module, input_size: int, plan: Plan, before: dict[str, int], round_to: int) -> None:
    modules = dict(model.named_modules())
    for name, gone in plan.removed.items():
        planned, actual = before[name] - len(gone), len(modules[name].weight)
        if actual != planned or actual % round_to:
            raise ModelError(
                f"{type(model).__name__} cannot be pruned: {name} has {actual} channels after the cut, planned were"
                f" {planned}, a multiple of {round_to}."
            )
    odd = [
        name
        for name, module in modules.items()
        if whole_groups(module) and isinstance(module, nn.Conv2d) and module.out_channels % module.groups
    ]
    if odd:
        raise ModelError(f"{type(model).__name__} cannot be pruned: {odd[0]} is left with uneven groups.")
    layers = layer_costs(model, input_size).values()
    macs = sum(layer.macs(layer.inputs, layer.outputs) for layer in layers)
    if abs(macs - plan.cost.macs) > 0.01 * plan.cost.macs:
        raise ModelError(
            f"{type(model).__name__} cannot be pruned: {macs:.3g} multiply-accumulates remain, planned"
            f" were {plan.cost.macs:.3g}."
        )


def _forward(model: nn.Module, images: Tensor) -> Tensor:
    with watched(model) as where, torch.no_grad():
        try:
            logits: Tensor = model(images)
        except Exception as error:
            raise ModelError(
                f"{type(model).__name__} cannot be pruned: after the cut it fails{where()}: {error}. Name the layers"
                " around it in prune.keep, or take another backbone."
            ) from error
    return logits
