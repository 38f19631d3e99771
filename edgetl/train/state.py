"""What an interrupted fit needs to go on, in one file of tensors and plain values."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgetl.files import write_bytes
from edgetl.records.codec import from_json, to_json
from edgetl.records.train import EpochRecord

_SCHEMA = 2

RARELY = 20
"""A fit saves its state again once this many times as long has passed as saving took: epochs of few images are short,
and a state holds the network several times over.
"""


@dataclass(kw_only=True)
class FitState:
    """The state after an epoch.

    Attributes:
        key: what the fit was started with, name -> text; another key means another fit.
        history: finished epochs.
        model: the network's tensors; after the last epoch, those of the chosen epoch.
        optimiser: its state dict; empty after the last epoch.
        scaler: the gradient scaler's (fp16), else empty.
        average: the moving average's tensors, where there is one.
        best: tensors of the best epoch so far, where the best is chosen.
        auxiliary: the tensors of what learns together with the network; empty after the last epoch.
    """

    key: Mapping[str, str]
    history: tuple[EpochRecord, ...]
    model: dict[str, Tensor]
    optimiser: dict[str, Any]
    scaler: dict[str, Any]
    average: dict[str, Tensor]
    best: dict[str, Tensor]
    auxiliary: dict[str, Tensor] = field(default_factory=dict)


def save(state: FitState, path: Path) -> None:
    """Write atomically.

    Raises:
        StorageError: no space or permission; the file of the epoch before is still there.
    """
    buffer = io.BytesIO()
    values = {
        "schema": _SCHEMA,
        "key": dict(state.key),
        "history": json.dumps(to_json(state.history)),
        "model": state.model,
        "optimiser": state.optimiser,
        "scaler": state.scaler,
        "average": state.average,
        "best": state.best,
        "auxiliary": state.auxiliary,
    }
    torch.save(values, buffer)
    write_bytes(path, buffer.getvalue())


def load(path: Path) -> FitState | None:
    """Read a state; None where the file is missing or cannot be read (then the fit starts afresh)."""
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
        if values.pop("schema") != _SCHEMA:
            return None
        history = tuple(from_json(EpochRecord, v) for v in json.loads(values.pop("history")))
        return FitState(history=history, **values)
    except FileNotFoundError:
        return None
    except Exception:
        return None


def fingerprint(model: nn.Module, *, without: str | None = None) -> str:
    """SHA-256 of a network's tensors' names, shapes and values, as 64 hex digits.

    Args:
        model: the network.
        without: the name of a layer whose tensors do not count.
    """
    whole = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if without is not None and name.startswith(f"{without}."):
            continue
        whole.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        whole.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return whole.hexdigest()
