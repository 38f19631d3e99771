"""Loading networks that must fit the labels at hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from edgetl.errors import WeightsError
from edgetl.models import checkpoint
from edgetl.models.architecture import Architecture


def load_for(labels: Sequence[str], path: Path, role: str) -> tuple[nn.Module, Architecture]:
    """Load a checkpoint whose outputs must be `labels`.

    Args:
        labels: the data's classes.
        path: a .safetensors of `edgetl.models.checkpoint`.
        role: what the network is here, e.g. `teacher`; for the message.

    Raises:
        WeightsError: missing, broken, or it has another number of classes.
    """
    model, architecture = checkpoint.load(path)
    if architecture.num_classes != len(labels):
        raise WeightsError(
            f"The {role} {path} has {architecture.num_classes} classes, but the data has {len(labels)}"
            f" ({', '.join(labels[:5])}{', ...' if len(labels) > 5 else ''}). Train it again on this data."
        )
    return model, architecture
