"""Teachers: networks that must fit the labels at hand, one by itself or several as one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from edgetl.distill.views import AtSize
from edgetl.errors import WeightsError
from edgetl.inputs.image import PreprocessSpec
from edgetl.models import checkpoint
from edgetl.models.architecture import Architecture
from edgetl.models.folding import folded
from edgetl.models.renormalised import Renormalised
from edgetl.records.codec import from_json
from edgetl.train.tasks.base import TrainingTask


@dataclasses.dataclass(frozen=True, kw_only=True)
class OtherTeacher:
    """A teacher that another run made.

    Attributes:
        network: it sees images of any size that are normalised as this run's: (N, 3, S, S) to logits (N, C).
        size: side of its own input.
    """

    network: nn.Module
    size: int


class Ensemble(nn.Module):
    """Several teachers as one: outputs whose probabilities at `temperature` are the mean of the members'.

    Hinton, Vinyals, Dean (2015), section 2: the soft targets are the arithmetic mean of the members' probabilities.
    """

    def __init__(self, members: Sequence[nn.Module], temperature: float, task: TrainingTask) -> None:
        super().__init__()
        self.members, self.temperature, self.task = nn.ModuleList(members), temperature, task

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, S, S) to (N, D) float32."""
        return self.task.blend([member(images) for member in self.members], self.temperature)


def guide(network: nn.Module, size: int) -> AtSize:
    """A teacher as losses ask it: frozen, its batch norms folded, and it sees images of any size at its own.

    Args:
        network: images (N, 3, S, S) -> logits (N, C); it stays as it is.
        size: S, side of its own input.
    """
    return AtSize(folded(network, size), size)


def load_for(labels: Sequence[str], path: Path, role: str) -> tuple[nn.Module, Architecture]:
    """Load a checkpoint whose outputs must be `labels`.

    Args:
        labels: the data's classes.
        path: a .safetensors of `edgetl.models.checkpoint`.
        role: what the network is here, e.g. `teacher`; for the message.

    Raises:
        WeightsError: missing, broken, or it has other classes: another number, or, where it names them, other names
            or another order.
    """
    model, architecture = checkpoint.load(path)
    if architecture.num_classes != len(labels):
        raise WeightsError(
            f"The {role} {path} has {architecture.num_classes} classes, but the data has {len(labels)}"
            f" ({_some(labels)}). Train it again on this data."
        )
    named = checkpoint.read_metadata(path).get(checkpoint.LABELS)
    if named is not None and (own := json.loads(named)) != list(labels):
        at = next(i for i, (a, b) in enumerate(zip(own, labels, strict=True)) if a != b)
        raise WeightsError(
            f"The {role} {path} has other classes than the data, or another order: its output {at} is {own[at]!r},"
            f" the data's is {labels[at]!r}. Train it again on this data."
        )
    return model, architecture


def load_other_teacher(labels: Sequence[str], path: Path, spec: PreprocessSpec) -> OtherTeacher:
    """Load a further teacher, of any backbone and input size.

    Args:
        labels: the data's classes.
        path: `teacher.safetensors` or `student.safetensors` of a run or a fold.
        spec: this run's preprocessing, as the images come.

    Raises:
        WeightsError: missing, broken, it has other classes, or does not say which, and at what size it sees.
    """
    network, _ = load_for(labels, path, "further teacher")
    kept = checkpoint.read_metadata(path)
    if checkpoint.LABELS not in kept or checkpoint.SPEC not in kept:
        raise WeightsError(
            f"The further teacher {path} does not say its classes and its preprocessing. Take the teacher.safetensors"
            " of a run or of a fold."
        )
    own = from_json(PreprocessSpec, json.loads(kept[checkpoint.SPEC]))
    if own.window != spec.window:
        raise WeightsError(
            f"The further teacher {path} saw numbers of more than 8 bits through the window {own.window}, these images"
            f" are seen through {spec.window} (preprocess.window). Take a teacher of the same window."
        )
    if (own.mean, own.std) != (spec.mean, spec.std):
        network = Renormalised(network, own.mean, own.std, spec)
    return OtherTeacher(network=guide(network, own.size), size=own.size)


def _some(labels: Sequence[str]) -> str:
    return ", ".join(labels[:5]) + (", ..." if len(labels) > 5 else "")
