"""Which parameters learn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import nn

from edgetl.errors import TrainingError
from edgetl.models.norms import batch_norms

Trainable = Callable[[nn.Module], Iterable[nn.Parameter]]
"""Picks the parameters that learn, e.g. `edgetl.models.backbones.head_parameters`."""


def freeze(model: nn.Module, trainable: Trainable | None) -> list[nn.Parameter]:
    """Let only the chosen parameters learn (all where None), and return them.

    Raises:
        TrainingError: none is chosen.
    """
    if trainable is not None:
        chosen = {id(p) for p in trainable(model)}
        for parameter in model.parameters():
            parameter.requires_grad_(id(parameter) in chosen)
    else:
        model.requires_grad_(True)
    learning = [p for p in model.parameters() if p.requires_grad]
    if not learning:
        raise TrainingError("No parameter is left to learn.")
    return learning


def train_mode(model: nn.Module, partly_frozen: bool) -> None:
    """Training mode, except in parts in which nothing learns."""
    model.train()
    if not partly_frozen:
        return
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            module.eval()


def frozen_norms(model: nn.Module, phases: Sequence[Trainable | None]) -> tuple[str, ...]:
    """Names of the batch norms whose statistics no phase of training moves. All parameters may learn afterwards.

    Args:
        model: the network.
        phases: what learns in each (all where None).
    """
    if None in phases:
        return ()
    names, moved = batch_norms(model), set[str]()
    for trainable in phases:
        freeze(model, trainable)
        train_mode(model, partly_frozen=True)
        moved |= {name for name, norm in names.items() if norm.training}
    model.requires_grad_(True).eval()
    return tuple(name for name in names if name not in moved)
