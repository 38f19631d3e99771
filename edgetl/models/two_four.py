"""2:4 sparsity: two of every four weights along the input channels are zero, which tensor cores skip.

Mishra et al., "Accelerating Sparse Deep Neural Networks" (2021). The layout is TensorRT's: for every output channel
and every position of the kernel, two zeros among each four consecutive input channels.

The zeros are the mask: a layer whose weights have the pattern is one that keeps it, so no file needs another tensor.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

OF, KEPT = 4, 2
"""So many consecutive weights hold so many values at most."""


@dataclass(frozen=True, kw_only=True)
class TwoFour:
    """What `apply_` did: the layers that have the pattern, and the others with the reason."""

    layers: tuple[str, ...]
    left_out: dict[str, str]


def apply_(model: nn.Module, outputs: Sequence[str]) -> TwoFour:
    """Set the two smallest of every four weights to zero, in every layer where tensor cores can use it, in place.

    Left out are `outputs`, the parts that make the outputs, by name; grouped and depthwise convolutions; and layers
    whose input channels are no multiple of four (mostly the first). Of four equal weights the first two stay.
    """
    inside = tuple(f"{name}." for name in outputs)
    layers, left_out = [], {}
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        if f"{name}.".startswith(inside):
            left_out[name] = "output layer"
        elif why := _unfit(layer):
            left_out[name] = why
        else:
            layer.weight.data.mul_(mask(layer.weight.detach()))
            layers.append(name)
    return TwoFour(layers=tuple(layers), left_out=left_out)


def mask(weights: Tensor) -> Tensor:
    """True for the two largest magnitudes of every four.

    Args:
        weights: (O, I, ...) with I a multiple of 4.

    Returns:
        Like `weights`, bool.
    """
    quads = _quads(weights.abs())
    order = quads.argsort(dim=2, descending=True, stable=True)
    kept = torch.zeros_like(quads, dtype=torch.bool).scatter_(2, order.narrow(2, 0, KEPT), True)
    return kept.flatten(1, 2)


def is_sparse(weights: Tensor) -> bool:
    """Whether (O, I, ...) weights have the pattern; not so where they are nearly all zero, as a new layer's may be."""
    if weights.dim() < 2 or weights.shape[1] % OF or 4 * int(weights.count_nonzero()) < weights.numel():
        return False
    return bool((_quads(weights != 0).sum(2) <= KEPT).all())


def sparse_layers(model: nn.Module) -> tuple[str, ...]:
    """Names of the layers that have the pattern."""
    return tuple(
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear) and not _unfit(layer) and is_sparse(layer.weight.detach())
    )


def held(model: nn.Module) -> AbstractContextManager[None]:
    """While this lasts, zeros in the layers that have the pattern stay zero; see `hold`."""
    return hold(model.get_parameter(f"{name}.weight") for name in sparse_layers(model))


@contextmanager
def hold(weights: Iterable[nn.Parameter]) -> Iterator[None]:
    """While this lasts, zeros get no gradient, so that no optimiser moves them.

    AdamW and SGD then leave them at zero (their moments stay zero, decay scales zero); a moving average and a resumed
    state hold zeros too.
    """
    hooks = []
    for weight in weights:
        kept, needs = weight.detach() != 0, weight.requires_grad
        # a hook can only be set on a parameter that learns
        weight.requires_grad_(True)
        hooks.append(weight.register_hook(functools.partial(_only, kept)))  # type: ignore[no-untyped-call]
        weight.requires_grad_(needs)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _only(kept: Tensor, gradient: Tensor) -> Tensor:
    return gradient * kept.to(gradient.device)


def _unfit(layer: nn.Conv2d | nn.Linear) -> str:
    """Why a layer cannot have the pattern; nothing where it can."""
    if isinstance(layer, nn.Conv2d) and layer.groups > 1:
        return "depthwise" if layer.groups == layer.in_channels else "grouped"
    inputs = layer.in_channels if isinstance(layer, nn.Conv2d) else layer.in_features
    return f"{inputs} input channels, no multiple of {OF}" if inputs % OF else ""


def _quads(weights: Tensor) -> Tensor:
    """(O, I, ...) as (O, I / 4, 4, ...)."""
    return weights.reshape(weights.shape[0], -1, OF, *weights.shape[2:])
