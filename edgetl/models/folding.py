"""Batch norms folded into the convolutions before them: a network that only evaluates need not pass over maps twice."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

_TOLERANCE = 1e-3
"""Of a folded network's logits, relative to the largest of the whole one's; rounding by itself gives about 1e-6."""


def folded(network: nn.Module, size: int) -> nn.Module:
    """A frozen copy in evaluation mode, in which every batch norm that is the only reader of a convolution is merged.

    Names of modules stay. Which norm reads which convolution is seen in a pass over two images, and the copy must give
    the logits of the whole network there; where it does not, as with a convolution that is read twice, the copy is of
    the whole network.

    Args:
        network: images (N, 3, S, S) float32 -> logits (N, C), on any device; it stays as it is.
        size: S.
    """
    whole = copy.deepcopy(network).eval().requires_grad_(False)
    smaller = copy.deepcopy(whole)
    device = next(network.parameters()).device
    probe = torch.linspace(-2, 2, 2 * 3 * size * size, device=device).view(2, 3, size, size)
    with torch.no_grad():
        pairs = _pairs(smaller, probe)
        for convolution, name, norm in pairs:
            convolution.weight, convolution.bias = fuse_conv_bn_weights(
                convolution.weight,
                convolution.bias,
                norm.running_mean,
                norm.running_var,
                norm.eps,
                norm.weight,
                norm.bias,
            )
            smaller.set_submodule(name, _after(norm))
        smaller.requires_grad_(False)
        wanted, found = whole(probe), smaller(probe)
    same = bool(((found - wanted).abs() <= _TOLERANCE * wanted.abs().max()).all())
    return smaller if same else whole


def _pairs(network: nn.Module, probe: Tensor) -> list[tuple[nn.Conv2d, str, Any]]:
    """Convolutions and the norms that were given what they made, with the norms' names; each ran once."""
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    runs: dict[nn.Module, int] = {}
    found: list[tuple[nn.Conv2d, str, Any]] = []

    def note(module: nn.Module, _: object, output: Tensor) -> None:
        runs[module] = runs.get(module, 0) + 1
        made[id(output)] = (module, output)  # type: ignore[assignment]

    def read(module: nn.Module, arguments: tuple[Tensor, ...], name: str) -> None:
        runs[module] = runs.get(module, 0) + 1
        if id(arguments[0]) in made:
            found.append((made[id(arguments[0])][0], name, module))

    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(note))
        elif _folds(module):
            hooks.append(module.register_forward_pre_hook(lambda m, args, name=name: read(m, args, name)))
    try:
        network(probe)
    finally:
        for hook in hooks:
            hook.remove()
    return [pair for pair in found if runs[pair[0]] == runs[pair[2]] == 1]


def _folds(module: nn.Module) -> bool:
    from timm.layers.norm_act import BatchNormAct2d

    known = type(module) in (nn.BatchNorm2d, BatchNormAct2d)
    return known and module.running_mean is not None


def _after(norm: Any) -> nn.Module:
    """What a norm does to its own result: timm's apply the activation."""
    if type(norm) is nn.BatchNorm2d:
        return nn.Identity()
    return nn.Sequential(OrderedDict(drop=norm.drop, act=norm.act))
