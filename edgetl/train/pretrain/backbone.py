"""A network as a backbone: without its head, and its last map of features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgetl.errors import ModelError
from edgetl.train.devices import device_of
from edgetl.train.watching import watching

_LARGE = 128


@contextmanager
def without_head(model: nn.Module, heads: Sequence[str]) -> Iterator[nn.Module]:
    """The network ends in its features, images (N, 3, S, S) -> (N, F), until it gets its head back.

    Args:
        model: changed in place, and back again whatever happens.
        heads: names of the layers that make the outputs.
    """
    kept = {name: model.get_submodule(name) for name in heads}
    try:
        for name in kept:
            model.set_submodule(name, nn.Identity())
        yield model
    finally:
        for name, layer in kept.items():
            model.set_submodule(name, layer)


def width_of(backbone: nn.Module, size: int) -> int:
    """F, the features of a network without its head.

    Args:
        backbone: images (N, 3, size, size) -> (N, F).
        size: side of the images.

    Raises:
        ModelError: it gives something else.
    """
    found = _probe(backbone, size)
    if found.dim() != 2:
        raise ModelError(
            f"Without its head a {type(backbone).__name__} gives {tuple(found.shape[1:])} per image, expected a row of"
            " features: it cannot be pretrained. Take another backbone."
        )
    return found.shape[1]


@dataclass(frozen=True)
class LastMap:
    """The last map of features that has places: its module's name, its channels, its side in pixels."""

    name: str
    channels: int
    side: int


def last_map(backbone: nn.Module, size: int) -> LastMap:
    """Find the last module that gives a map (N, C, H, H) of more than one place, in images that are large enough.

    In small ones the last blocks' maps have one place too, as what is pooled after them has.

    Raises:
        ModelError: no module gives a map, as in transformers.
    """
    names = [name for name, _ in backbone.named_modules() if name]
    with watching(backbone, names) as seen:
        try:
            _probe(backbone, max(size, _LARGE))
        except (RuntimeError, ValueError, AssertionError):  # it takes one size alone
            seen.clear()
            _probe(backbone, size)
    found: tuple[str, Tensor] | None = None
    for name, value in seen.items():
        if value.dim() == 4 and value.shape[2] == value.shape[3]:
            if found is None or value.shape[2] > 1 or found[1].shape[2] == 1:
                found = name, value
        elif value.dim() > 2:  # what follows is made of tokens, or has its channels last
            found = None
    if found is None:
        raise ModelError(
            f"{type(backbone).__name__} gives no maps (images, channels, height, width), from which pictures are"
            ' rebuilt; set pretrain.method = "simclr", "vicreg" or "vae".'
        )
    name, _ = found
    with watching(backbone, (name,)) as seen:
        _probe(backbone, size)
    value = seen[name]
    return LastMap(name, value.shape[1], value.shape[2])


def _probe(backbone: nn.Module, size: int) -> Tensor:
    training = [module.training for module in backbone.modules()]
    try:
        with torch.no_grad():
            found: Tensor = backbone.eval()(torch.zeros(2, 3, size, size, device=device_of(backbone)))
    finally:
        for module, mode in zip(backbone.modules(), training, strict=True):
            module.training = mode
    return found
