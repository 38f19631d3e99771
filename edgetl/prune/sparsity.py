"""Training towards sparse channels before the first cut: what is to go is near zero when it goes.

A channel's norm is taken over all weights that come and go with it in its group (DepGraph, Fang et al., CVPR 2023,
section 3.4): the filters that make it, its norms' factors, the weights that read it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgetl.prune.graph import ChannelGraph
from edgetl.prune.surgery import is_consumer
from edgetl.train.objective import Batch, Need, Objective

_STEEPNESS = 4.0
"""Alpha of DepGraph's equation 7: the least important channel of a group is pulled 2^4 times as hard as the most."""
_NEAR_ZERO = 0.1
_TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class Slices:
    """A parameter's part in a group: slice `index[i]` along `dim` belongs to the group's channel `channel[i]`."""

    parameter: str
    dim: int
    index: Tensor
    channel: Tensor


@dataclass(frozen=True, kw_only=True)
class Coupled:
    """A group's channels as the weights that come and go together."""

    name: str
    channels: int
    slices: tuple[Slices, ...]


def coupled(graph: ChannelGraph) -> tuple[Coupled, ...]:
    """The groups of a traced network, by the names of its parameters. Biases are left out, as from weight decay."""
    names = {module: name for name, module in graph.model.named_modules()}
    groups = []
    for group in graph.groups:
        slices = []
        for item in group.members:
            weight = getattr(item.dep.target.module, "weight", None)
            if item.dep.target.module not in names or not isinstance(weight, nn.Parameter):
                continue
            slices.append(
                Slices(
                    parameter=f"{names[item.dep.target.module]}.weight",
                    dim=1 if is_consumer(item.dep) else 0,
                    index=torch.tensor(item.idxs),
                    channel=torch.tensor(item.root_idxs),
                )
            )
        groups.append(Coupled(name=group.name, channels=group.channels, slices=tuple(slices)))
    return tuple(groups)


def penalty(model: nn.Module, groups: tuple[Coupled, ...]) -> Tensor:
    """Sum over groups and channels of gamma * sqrt(K) * ||w||_2, a scalar float32.

    w are the K weights of a channel. gamma = 2^(4 (N_max - N) / (N_max - N_min)) with N the channel's norm among
    its group's, held constant in the gradient: the less important a channel, the harder it is pulled (Fang et al.,
    DepGraph, CVPR 2023, equation 7). DepGraph takes squared norms, whose pull fades as a channel shrinks; the
    group lasso's norm and its factor sqrt(K) (Yuan & Lin 2006) pull on to zero, and alike on channels of few
    and of many weights.
    """
    parameters = dict(model.named_parameters())
    total = torch.zeros((), device=next(iter(parameters.values())).device)
    for group in groups:
        norms, count = _norms(parameters, group)
        fixed = norms.detach()
        spread = (fixed.max() - fixed.min()).clamp_min(_TINY)
        gamma = 2.0 ** (_STEEPNESS * (fixed.max() - fixed) / spread)
        total = total + count**0.5 * (gamma * norms).sum()
    return total


@dataclass(frozen=True, kw_only=True)
class GroupLasso:
    """An objective plus `strength` times the `penalty` over the model's groups."""

    objective: Objective
    groups: tuple[Coupled, ...]
    strength: float

    @property
    def modules(self) -> nn.Module | None:
        """As the objective."""
        return self.objective.modules

    @property
    def needs(self) -> frozenset[Need]:
        """As the objective."""
        return self.objective.needs

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Both together."""
        return self.objective.loss(model, batch) + self.strength * penalty(model, self.groups)


def near_zero(model: nn.Module, groups: tuple[Coupled, ...]) -> float:
    """Share of all channels whose norm is below a tenth of their group's largest, in 0..1."""
    parameters, few, channels = dict(model.named_parameters()), 0, 0
    with torch.no_grad():
        for group in groups:
            norms, _ = _norms(parameters, group)
            few += int((norms < _NEAR_ZERO * norms.max()).sum())
            channels += group.channels
    return few / max(channels, 1)


def _norms(parameters: dict[str, nn.Parameter], group: Coupled) -> tuple[Tensor, float]:
    """L2 norm of each channel over all its weights, (C,) float32, and how many weights a channel has."""
    device = parameters[group.slices[0].parameter].device
    squares, count = torch.zeros(group.channels, device=device), 0
    for part in group.slices:
        weight = parameters[part.parameter]
        rest = [d for d in range(weight.dim()) if d != part.dim]
        sums = weight.float().square().sum(rest) if rest else weight.float().square()
        squares = squares.index_add(0, part.channel.to(device), sums[part.index.to(device)])
        count += weight.numel() // weight.shape[part.dim] * len(part.index)
    # the tiny addend keeps the gradient of a channel that is all zero finite
    return (squares + _TINY).sqrt(), count / group.channels
