"""How much each channel matters: one score a channel of every group, lower goes first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never

import torch
from torch import Tensor, nn

from edgetl.config import Importance
from edgetl.errors import ModelError, UncuttableError
from edgetl.models.memory import kept_contiguous
from edgetl.prune.graph import ChannelGraph
from edgetl.prune.groups import ChannelGroup
from edgetl.prune.surgery import is_consumer
from edgetl.train.cores import own_cores
from edgetl.train.devices import device_of
from edgetl.train.tasks.base import TrainingTask


@dataclass(frozen=True, kw_only=True)
class ImportanceScores:
    """Scores of all groups.

    `channels[group]` is (C,) float64 on the CPU. `additive`: they estimate the rise of the loss, so that they can
    be summed, compared between groups and set against what a cut saves; else they only rank channels, on a scale
    that is common to the groups. `blocks[block]` is the same estimate for a block that goes whole.
    """

    channels: dict[str, Tensor]
    additive: bool
    blocks: dict[str, float] = field(default_factory=dict)


Scorer = Callable[[ChannelGraph], ImportanceScores]

_TINY = 1e-30


def scorer(
    kind: Importance,
    *,
    images: Callable[[], Iterable[Tensor]],
    teacher: nn.Module,
    task: TrainingTask,
    temperature: float,
    seed: int,
) -> Scorer:
    """The scorer that `kind` names.

    Args:
        kind: the importance.
        images: yields batches (n, 3, H, W) float32 of training images, the same ones at each call; used by `taylor`.
        teacher: (n, 3, H, W) images to the task's outputs (n, D), in evaluation mode; used by `taylor`.
        task: gives the loss; used by `taylor`.
        temperature: of the teacher's probabilities; used by `taylor`.
        seed: of everything drawn.

    The scorer raises ModelError where the network has nothing that the importance ranks by (`bn_scale`).
    """

    def compute(graph: ChannelGraph) -> ImportanceScores:
        match kind:
            case Importance.MAGNITUDE:
                return magnitude(graph)
            case Importance.BN_SCALE:
                return bn_scale(graph)
            case Importance.FPGM:
                return fpgm(graph)
            case Importance.LAMP:
                return lamp(graph)
            case Importance.TAYLOR:
                with own_cores(device_of(graph.model)):
                    return taylor(graph, images(), teacher, task, temperature=temperature, seed=seed)
            case Importance.RANDOM:
                return random(graph, seed=seed)
            case _:
                assert_never(kind)

    return compute


def magnitude(graph: ChannelGraph) -> ImportanceScores:
    """Mean L2 norm of a channel's weights over the group's layers, divided by the group's mean.

    Li et al., "Pruning Filters for Efficient ConvNets" (ICLR 2017), over groups as in DepGraph (CVPR 2023).
    """
    import torch_pruning as tp

    importance = tp.importance.GroupMagnitudeImportance(p=2, group_reduction="mean", normalizer="mean")
    return ImportanceScores(
        channels={g.name: importance(g.members).detach().cpu().double() for g in graph.groups},
        additive=False,
    )


def bn_scale(graph: ChannelGraph) -> ImportanceScores:
    """Mean factor |gamma| of a channel's batch norms, over the mean factor of all the network's channels.

    One threshold for all layers, as the factors of all layers compete: Liu et al., "Learning Efficient
    Convolutional Networks through Network Slimming" (ICCV 2017), section 3. The mean over the group's batch norms
    stands for the one that the paper's layers have. A group without any (see `without_batch_norm`) is ranked by
    `magnitude`, whose mean is 1 as well.

    Raises:
        ModelError: no group has a batch norm.
    """
    import torch_pruning as tp

    importance = tp.importance.BNScaleImportance(group_reduction="mean", normalizer=None)
    lacking = set(without_batch_norm(graph))
    factors = {
        g.name: importance(g.members).detach().cpu().double() for g in graph.groups if g.name not in lacking
    }
    if not factors:
        raise ModelError(
            f"{type(graph.model).__name__} has no batch norm in any channel group, so prune.importance = bn_scale"
            " cannot rank its channels. Take magnitude or taylor."
        )
    mean = torch.cat(list(factors.values())).mean().clamp_min(_TINY)
    others = magnitude(graph).channels if lacking else {}
    return ImportanceScores(
        channels={
            g.name: factors[g.name] / mean if g.name in factors else others[g.name] for g in graph.groups
        },
        additive=False,
    )


def without_batch_norm(graph: ChannelGraph) -> tuple[str, ...]:
    """Names of the groups that no batch norm with factors spans."""
    return tuple(
        g.name for g in graph.groups if not any(_scales(item.dep.target.module) for item in g.members)
    )


def fpgm(graph: ChannelGraph) -> ImportanceScores:
    """Sum of a channel's distances to all other channels of its group, divided by the group's mean.

    g(x) = sum over j of ||x - f_j||_2: the filter with the smallest sum is nearest to the geometric median, so that
    the others can stand for it. He et al., "Filter Pruning via Geometric Median for Deep Convolutional Neural
    Networks Acceleration" (CVPR 2019), equations 4 and 5. A channel's filter f is (K,): all the weights that make it,
    in every layer of the group (an expansion's and its depthwise convolution's), end to end. The paper cuts all
    layers by the same share; the division makes groups comparable.
    """
    channels = {}
    for group in graph.groups:
        filters = _filters(group)
        distances = torch.cdist(filters, filters).sum(1)
        channels[group.name] = distances / distances.mean().clamp_min(_TINY)
    return ImportanceScores(channels=channels, additive=False)


def lamp(graph: ChannelGraph) -> ImportanceScores:
    """A channel's squared L2 norm over the sum of those of its group that are not smaller.

    score(u) = W[u]^2 / sum over v >= u of W[v]^2, in ascending order: the distortion that a layer takes when u goes
    as well, relative to what remains, so that one threshold serves all layers; each group's largest scores 1. Lee et
    al., "Layer-adaptive Sparsity for the Magnitude-based Pruning" (ICLR 2021), equation 1, with a channel's squared
    norm (the mean over the group's layers) in place of a weight's square.
    """
    import torch_pruning as tp

    # its own LAMP subtracts float32 sums, and divides zero by zero where no weight is left
    importance = tp.importance.GroupMagnitudeImportance(p=2, group_reduction="mean", normalizer=_adaptive)
    return ImportanceScores(
        channels={g.name: importance(g.members).detach().cpu() for g in graph.groups}, additive=False
    )


def random(graph: ChannelGraph, *, seed: int) -> ImportanceScores:
    """Uniform random scores: what any other importance must beat."""
    generator = torch.Generator().manual_seed(seed)
    return ImportanceScores(
        channels={
            g.name: torch.rand(g.channels, generator=generator, dtype=torch.float64) for g in graph.groups
        },
        additive=False,
    )


def taylor(
    graph: ChannelGraph,
    images: Iterable[Tensor],
    teacher: nn.Module,
    task: TrainingTask,
    *,
    temperature: float,
    seed: int,
) -> ImportanceScores:
    """Mean squared first-order Taylor estimate of what the distillation loss loses with a channel.

    For each image: the sum of input times gradient over all places where the channel is read (all layers of the
    group, all positions), squared; the mean over images. The loss is that with answers drawn from the teacher's
    softened probabilities (`TrainingTask.drawn_loss`), so that the mean square is the diagonal of the Fisher
    information: the curvature of the divergence from the teacher, which is informative where its gradient is zero
    (before the first cut). Inputs are taken without their mean over the batch, since the norms' statistics, measured
    anew after a cut, take up a constant.

    Molchanov et al., "Importance Estimation for Neural Network Pruning" (CVPR 2019), equation 8; Theis et al.,
    "Faster gaze prediction with dense networks and Fisher pruning" (2018); summed over coupled layers as in Liu
    et al., "Group Fisher Pruning for Practical Network Compression" (ICML 2021).

    A block that may go whole is judged by the same estimate: what it adds to its input, times the gradient there,
    summed over channels and places, squared, the mean over images.

    Args:
        graph: the traced network; its parameters' gradients are not touched.
        images: batches (n, 3, H, W) float32.
        teacher: gives the outputs (n, D) that the network is to follow.
        task: gives the loss.
        temperature: of the teacher's and the network's outputs.
        seed: of the drawn answers.
    """
    model = graph.model
    totals = [torch.zeros(g.channels, dtype=torch.float64) for g in graph.groups]
    blocks = {block.name: 0.0 for block in graph.blocks}
    count = 0
    names = {module: name for name, module in model.named_modules()}
    read = {name for group in graph.groups for name in group.inputs}
    generator = torch.Generator().manual_seed(seed)
    reads: list[_Read] = []
    added: list[_Added] = []
    hooks = [
        module.register_forward_pre_hook(lambda module, args, name=name: _watch(module, args, name, reads))
        for module, name in names.items()
        if name in read
    ]
    hooks += [
        module.register_forward_hook(
            lambda module, args, output, name=name: _watch_block(module, args, output, name, added)
        )
        for module, name in names.items()
        if name in blocks
    ]
    trained = [p for p in model.parameters() if p.requires_grad]
    kept_contiguous(model.eval().requires_grad_(False))
    device = next(model.parameters()).device
    try:
        for batch in images:
            batch = batch.to(device, memory_format=torch.channels_last).requires_grad_()
            outputs = model(batch)
            with torch.no_grad():
                asked = teacher(batch)
            loss = task.drawn_loss(outputs, asked, temperature, generator)
            places = [*(r.values for r in reads), *(a.output for a in added)]
            gradients = torch.autograd.grad(loss, places, allow_unused=True)
            shares = _shares(reads, gradients[: len(reads)], len(batch))
            for each, gradient in zip(added, gradients[len(reads) :], strict=True):
                blocks[each.block] += _block_effect(each, gradient, len(batch))
            reads.clear()
            added.clear()
            count += len(batch)
            for total, group in zip(totals, graph.groups, strict=True):
                total += _effect(group, shares, names).square().sum(0)
    finally:
        reads.clear()
        added.clear()
        for hook in hooks:
            hook.remove()
        for parameter in trained:
            parameter.requires_grad_(True)
    return ImportanceScores(
        channels={g.name: total / max(count, 1) for g, total in zip(graph.groups, totals, strict=True)},
        additive=True,
        blocks={name: total / max(count, 1) for name, total in blocks.items()},
    )


def _scales(module: object) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine


def _filters(group: ChannelGroup) -> Tensor:
    """(C, K) float64 on the CPU: for each channel the weights that make it, over the layers of the group."""
    parts = []
    for item in group.members:
        module = item.dep.target.module
        if not isinstance(module, nn.Conv2d | nn.Linear) or is_consumer(item.dep):
            continue
        # a layer may hold several rows per channel, in any order
        order = torch.argsort(torch.tensor(item.root_idxs), stable=True)
        rows = module.weight.detach().cpu().double().flatten(1)[torch.tensor(item.idxs)[order]]
        parts.append(rows.reshape(group.channels, -1))
    return torch.cat(parts, dim=1)


def _adaptive(squares: Tensor) -> Tensor:
    """Each value over the sum of those that are not smaller: (C,) float64."""
    ordered, order = squares.double().sort(stable=True)
    remaining = ordered.flip(0).cumsum(0).flip(0)
    return torch.empty_like(ordered).index_copy_(0, order, ordered / remaining.clamp_min(_TINY))


@dataclass(frozen=True)
class _Read:
    """One layer's input in one pass; `channel` is the dimension of its channels."""

    layer: str
    values: Tensor
    channel: int


def _watch(module: nn.Module, args: tuple[Any, ...], name: str, reads: list[_Read]) -> tuple[Any, ...] | None:
    """Keep a layer's input, so that its gradient can be asked for."""
    if not args[0].requires_grad:
        return None
    # a view of its own, so that the gradient is that through this layer and not through others that read the same
    seen = args[0].view_as(args[0])
    reads.append(_Read(name, seen, 1 if isinstance(module, nn.Conv2d) else seen.dim() - 1))
    return (seen, *args[1:])


@dataclass(frozen=True)
class _Added:
    """What one block added to its input in one pass, and its output; `channel` is the dimension of its channels."""

    block: str
    output: Tensor
    change: Tensor
    channel: int


def _watch_block(
    module: nn.Module, args: tuple[Any, ...], output: Tensor, name: str, added: list[_Added]
) -> Tensor:
    """Keep what a block adds, so that the gradient behind it can be asked for."""
    seen = output.view_as(output)
    images = seen.dim() == 4 and any(isinstance(part, nn.Conv2d) for part in module.modules())
    added.append(_Added(name, seen, (output - args[0]).detach(), 1 if images else seen.dim() - 1))
    return seen


def _block_effect(each: _Added, gradient: Tensor | None, images: int) -> float:
    """The squared first-order effect of a block on the loss, summed over images; constants are taken up by norms.

    Raises:
        UncuttableError: what it gives cannot be split by image.
    """
    if gradient is None:
        return 0.0
    around = [d for d in range(each.change.dim()) if d != each.channel]
    product = ((each.change - each.change.mean(around, keepdim=True)) * gradient).double()
    if len(product) % images:
        raise UncuttableError(
            f"Blocks cannot be ranked: {each.block} gives {tuple(product.shape)} for {images} images. Set"
            " prune.depth = 0."
        )
    return float(product.reshape(images, -1).sum(1).square().sum())


def _shares(reads: Sequence[_Read], gradients: Sequence[Tensor | None], images: int) -> dict[str, Tensor]:
    """Centred input times gradient, summed over places: (n, channels) for each layer, n `images`.

    Where a network lays parts of an image (windows, patches) along the batch axis, they are summed up too.

    Raises:
        UncuttableError: a layer's inputs cannot be split by image.
    """
    shares: dict[str, Tensor] = {}
    for read, gradient in zip(reads, gradients, strict=True):
        if gradient is None:
            continue
        values = read.values.detach()
        around = [d for d in range(values.dim()) if d != read.channel]
        product = (values - values.mean(around, keepdim=True)) * gradient
        # (n, channels, places): a sum over no dimension would sum over all
        effect = product.movedim(read.channel, 1).flatten(2).sum(2) if product.dim() > 2 else product
        if len(effect) % images:
            raise UncuttableError(
                f"Channels cannot be ranked by prune.importance = taylor: {read.layer} gets {tuple(values.shape)} for"
                f" {images} images. Take magnitude."
            )
        if len(effect) != images:
            effect = effect.reshape(images, -1, effect.shape[1]).sum(1)
        shares[read.layer] = shares[read.layer] + effect if read.layer in shares else effect
    return shares


def _effect(group: ChannelGroup, shares: dict[str, Tensor], names: dict[nn.Module, str]) -> Tensor:
    """First-order effect of each channel on the loss of each image: (n, C) float64 on the CPU."""
    parts = []
    for item in group.members:
        name = names.get(item.dep.target.module, "")
        if is_consumer(item.dep) and name in shares:
            share = shares[name].double().cpu()
            part = torch.zeros(len(share), group.channels, dtype=torch.float64)
            parts.append(part.index_add_(1, torch.tensor(item.root_idxs), share[:, item.idxs]))
    return torch.stack(parts).sum(0) if parts else torch.zeros(1, group.channels, dtype=torch.float64)
