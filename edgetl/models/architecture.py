"""A network as data: a backbone's name and the layers in which the network differs from the fresh backbone.

Channel pruning changes tensors' shapes and a few plain integers (`out_channels`, `groups`, `num_features`,
`num_heads`, ...). Both are stored by name, so that a pruned network is rebuilt without unpickling code. So are
the residual blocks that were taken out whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, assert_never

import torch
from torch import Tensor, nn

from edgetl.errors import ModelError, WeightsError
from edgetl.models.adapters import adapt_, adapted_heads
from edgetl.models.backbones import NO_WEIGHTS, built_for, create
from edgetl.models.detector import Detector, create_detector
from edgetl.models.removed import remove_, removed

HeadKind = Literal["classifier", "adapters", "detector"]
"""What stands on the backbone; `adapters` are those of several heads."""
Extent = int | tuple[int, ...]
"""An integer, a tensor's shape, or a tuple of integers such as `normalized_shape`."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What `build` needs.

    `layers[module][name]` is the value of an integer attribute of the module (`out_channels`: 24), or the shape
    of a tensor that it owns (`weight`: (24, 16, 1, 1)); only what differs from the fresh backbone is listed.
    The module named `` is the network itself. `size` is that of the images that the network is built for, where it
    takes one size alone and that is not the library's. `widths` are the outputs of each head that has an adapter.
    `removed` are the blocks that are not there: what would come in goes on.
    """

    backbone: str
    num_classes: int
    layers: Mapping[str, Mapping[str, Extent]] = field(default_factory=dict)
    size: int | None = None
    head: HeadKind = "classifier"
    widths: tuple[int, ...] = ()
    removed: tuple[str, ...] = ()


def _fresh(of: Architecture, seed: int = 0) -> nn.Module:
    try:
        return remove_(_whole(of, seed), of.removed)
    except AttributeError as error:
        raise WeightsError(
            f"{of.backbone} has no block to be taken out as described ({error}); the file is from another version."
        ) from error


def _whole(of: Architecture, seed: int) -> nn.Module:
    match of.head:
        case "classifier":
            return create(of.backbone, of.num_classes, NO_WEIGHTS, seed=seed, size=of.size)
        case "adapters":
            network = create(of.backbone, of.num_classes, NO_WEIGHTS, seed=seed, size=of.size)
            return adapt_(network, of.widths, seed=seed)
        case "detector":
            return create_detector(of.backbone, of.num_classes, seed=seed)
        case _:
            assert_never(of.head)


def describe(model: nn.Module, backbone: str, num_classes: int, size: int | None = None) -> Architecture:
    """Compare a network with the fresh backbone, built for images of `size`.

    Raises:
        ModelError: it has other layers than the backbone, so that shapes alone do not describe it.
    """
    plain = _plain(model, backbone, num_classes, size)
    fresh = dict(_fresh(plain).named_modules())
    own = dict(model.named_modules())
    if odd := [*(fresh.keys() - own.keys()), *(own.keys() - fresh.keys())]:
        raise ModelError(
            f"The network has other layers than {backbone}: {', '.join(sorted(odd)[:5])}. Only changed channel"
            " counts can be described."
        )
    layers = {}
    for name, module in own.items():
        if type(module) is not type(fresh[name]):
            raise ModelError(
                f"Layer {name} is a {type(module).__name__}; {backbone} has a {type(fresh[name]).__name__} there."
            )
        if changed := _differences(module, fresh[name]):
            layers[name] = changed
    return replace(plain, layers=layers)


def _plain(model: nn.Module, backbone: str, num_classes: int, size: int | None) -> Architecture:
    """The fresh network of the model's kind."""
    gone = removed(model)
    if isinstance(model, Detector):
        return Architecture(backbone=backbone, num_classes=num_classes, head="detector", removed=gone)
    plain = Architecture(
        backbone=backbone, num_classes=num_classes, size=built_for(backbone, size), removed=gone
    )
    if (found := adapted_heads(model)) is not None:
        return replace(plain, head="adapters", widths=found[1].widths)
    return plain


def build(architecture: Architecture, *, seed: int = 0) -> nn.Module:
    """Rebuild the network, with random weights of the right shapes.

    Raises:
        ModelError: unknown backbone.
        WeightsError: the description does not fit the backbone.
    """
    model = _fresh(architecture, seed)
    modules = dict(model.named_modules())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, values in architecture.layers.items():
            if name not in modules:
                raise WeightsError(
                    f"{architecture.backbone} has no layer {name!r}; the file is from another version."
                )
            for key, value in values.items():
                _set(modules[name], f"{name}.{key}", key, value)
            reset = getattr(modules[name], "reset_parameters", None)
            if callable(reset):
                reset()
    return model


def _differences(module: nn.Module, fresh: nn.Module) -> dict[str, Extent]:
    changed: dict[str, Extent] = {
        key: value
        for key, value in vars(module).items()
        if _is_extent(value) and not key.startswith("_") and key in vars(fresh) and vars(fresh)[key] != value
    }
    own, first = _tensors(module), _tensors(fresh)
    if own.keys() != first.keys():
        odd = ", ".join(sorted(own.keys() ^ first.keys()))
        raise ModelError(f"A {type(module).__name__} has other tensors than the backbone's: {odd}.")
    changed.update({k: tuple(t.shape) for k, t in own.items() if t.shape != first[k].shape})
    return changed


def _set(module: nn.Module, where: str, key: str, value: Extent) -> None:
    """Give an existing integer attribute a new value, or an existing tensor a new shape."""
    if (tensor := _tensors(module).get(key)) is not None:
        if not isinstance(value, tuple):
            raise WeightsError(f"The architecture gives {where} as {value}; expected a shape.")
        _replace_tensor(module, key, tensor, value)
    elif key in vars(module) and not key.startswith("_") and _is_extent(vars(module)[key]):
        setattr(module, key, value)
    else:
        raise WeightsError(f"The architecture sets {where}, which this backbone does not have.")


def _replace_tensor(module: nn.Module, key: str, old: Tensor, shape: tuple[int, ...]) -> None:
    new = torch.empty(shape, dtype=old.dtype)
    if old.is_floating_point():
        nn.init.normal_(new, std=0.02)
    else:
        new.zero_()
    if isinstance(old, nn.Parameter):
        setattr(module, key, nn.Parameter(new, requires_grad=old.requires_grad))
    else:
        setattr(module, key, new)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {
        **dict(module.named_parameters(recurse=False)),
        **dict(module.named_buffers(recurse=False)),
    }


def _is_extent(value: object) -> bool:
    if isinstance(value, tuple):
        return bool(value) and all(type(v) is int for v in value)
    return type(value) is int
