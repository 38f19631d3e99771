"""Channels taken out of a copy of a network, and the same network with them masked, which says what is right."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from edgetl.prune.groups import ChannelGroup

_TOLERANCE, _TOLERANCE_GPU = 1e-3, 2e-2
"""Largest difference of a cut network's logits from a masked one's, relative to the largest logit (TF32 on GPUs)."""


def is_consumer(dependency: Any) -> bool:
    """Whether a group's member reads the channels (its inputs are cut) and does not carry them on."""
    import torch_pruning as tp

    return dependency.handler in (tp.prune_conv_in_channels, tp.prune_linear_in_channels)


def without(
    model: nn.Module, groups: Iterable[ChannelGroup], removed: Mapping[str, Sequence[int]]
) -> nn.Module:
    """A copy of the network without the channels; nothing is checked.

    Each layer is cut once, so that what one group takes from a layer does not shift what another one takes.

    Args:
        model: the network that was traced.
        groups: its channel groups.
        removed: group -> indices.

    Raises:
        Exception: whatever a layer's cut raises, where the group is not what it seemed.
    """
    work = copy.deepcopy(model)
    for place in _places(model, groups, removed):
        place.cut(work)
    return work


def masked(
    model: nn.Module, groups: Iterable[ChannelGroup], removed: Mapping[str, Sequence[int]]
) -> nn.Module:
    """A copy of the network in which nothing reads the channels (group -> indices), nor norms them with others."""
    work = copy.deepcopy(model)
    modules = dict(work.named_modules())
    for place in _places(model, groups, removed):
        layer = modules.get(place.name)
        if is_consumer(place.dependency):
            assert layer is not None
            layer.weight.data[:, place.channels] = 0.0
        elif isinstance(layer, nn.LayerNorm):
            _norm_the_rest(layer, place)
    return work


def mismatch(expected: Tensor, logits: Tensor) -> str:
    """Why a cut network's logits are not those of the masked one; nothing where they are."""
    if logits.shape != expected.shape:
        return f"it gives logits of shape {tuple(logits.shape)}, expected {tuple(expected.shape)}"
    difference = float((logits - expected).abs().max() / expected.abs().max().clamp_min(1e-6))
    if difference <= (_TOLERANCE if logits.device.type == "cpu" else _TOLERANCE_GPU):
        return ""
    return (
        f"its logits differ by {difference:.2g} from those of the same network with the removed channels masked,"
        " so the cut would be silently wrong"
    )


@dataclass(frozen=True)
class _Place:
    """One side of one layer, or a parameter, and all channels that it loses."""

    name: str
    dependency: Any
    channels: list[int]

    def cut(self, model: nn.Module) -> None:
        parent, _, leaf = self.name.rpartition(".")
        old = getattr(model.get_submodule(parent), leaf) if self.name else model
        new = self.on(old)
        if isinstance(old, nn.Parameter):
            setattr(model.get_submodule(parent), leaf, new)

    def on(self, layer: Any) -> Any:
        handler = self.dependency.handler
        # torch-pruning keeps the dimension with the function that cuts
        handler.__self__.pruning_dim = self.dependency.target.pruning_dim
        return handler(layer, self.channels)


def _places(
    model: nn.Module, groups: Iterable[ChannelGroup], removed: Mapping[str, Sequence[int]]
) -> Iterator[_Place]:
    names: dict[Any, str] = {module: name for name, module in model.named_modules()}
    names |= {parameter: name for name, parameter in model.named_parameters()}
    found: dict[tuple[str, Any], tuple[Any, set[int]]] = {}
    for group in groups:
        gone = set(removed.get(group.name, ()))
        for item in group.members if gone else ():
            layer = item.dep.target.module
            if layer in names:
                _, channels = found.setdefault((names[layer], item.dep.handler), (item.dep, set()))
                channels.update(i for i, root in zip(item.idxs, item.root_idxs, strict=True) if root in gone)
    for (name, _), (dependency, channels) in found.items():
        yield _Place(name, dependency, sorted(channels))


def _norm_the_rest(layer: nn.LayerNorm, place: _Place) -> None:
    """Let a layer norm see only the channels that stay, and give zero for the others."""
    small = place.on(copy.deepcopy(layer))
    gone = set(place.channels)
    kept = torch.tensor([i for i in range(layer.normalized_shape[-1]) if i not in gone])

    def norm(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        images, index = inputs[0], kept.to(output.device)
        # channels come first where a norm of images swaps the dimensions itself
        channel = 1 if images.dim() == 4 and type(layer).__name__.startswith("LayerNorm2d") else -1
        return torch.zeros_like(output).index_copy_(
            channel, index, small(images.index_select(channel, index))
        )

    layer.register_forward_hook(norm)
