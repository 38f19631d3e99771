"""What a student may follow besides the logits: the teacher's feature maps, where it looks, how images relate.

The losses are pure functions; a small value means that the student resembles the teacher. Gradients are the caller's
business: the teacher's features come without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetl.config import DistillFeatures
from edgetl.errors import ModelError, TensorError
from edgetl.train.blocks import blocks
from edgetl.train.tasks.base import TrainingTask
from edgetl.train.watching import watching

_TINY = 1e-12


def fitnets(student: Tensor, teacher: Tensor) -> Tensor:
    """Half the mean squared difference of the student's projected feature map from the teacher's.

    1/2 * mean over images, channels and positions of (student - teacher)^2; no temperature.
    Romero et al., "FitNets: Hints for Thin Deep Nets" (ICLR 2015), equation 3, with the mean in place of the norm, so
    that the weight does not depend on the map's size.

    Args:
        student: (N, C, H, W), after a learnt projector.
        teacher: (N, C, H, W).

    Returns:
        A scalar float32.

    Raises:
        TensorError: the shapes differ.
    """
    if student.shape != teacher.shape:
        raise TensorError(
            f"The student's features {tuple(student.shape)} and the teacher's {tuple(teacher.shape)} must be equal in"
            " shape; a projector has the teacher's channels."
        )
    return 0.5 * F.mse_loss(student.float(), teacher.float())


def attention(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance of the maps of where a network looks.

    A map is Q = sum over channels of A^2, as a vector over positions divided by its L2 norm; the loss is the mean over
    images of ||Q_student - Q_teacher||^2, in 0..2; no temperature. Channels may differ, positions may not.
    Zagoruyko, Komodakis, "Paying More Attention to Attention" (ICLR 2017), equation 2 with p = 2, squared.

    Args:
        student: (N, C, H, W).
        teacher: (N, D, H, W).

    Returns:
        A scalar float32.

    Raises:
        TensorError: images or positions differ.
    """
    if student.shape[::2] != teacher.shape[::2] or student.shape[2:] != teacher.shape[2:]:
        raise TensorError(
            f"The student's features {tuple(student.shape)} and the teacher's {tuple(teacher.shape)} must be of the"
            " same images and positions."
        )
    return (_attention_map(student) - _attention_map(teacher)).square().sum(1).mean()


def relational(student: Tensor, teacher: Tensor, *, distance: float = 1.0, angle: float = 2.0) -> Tensor:
    """How images lie to one another: distances of pairs, and angles of triplets.

    distance * Huber(d_student, d_teacher) + angle * Huber(a_student, a_teacher), means over the pairs and triplets of
    different images. d_ij = ||f_i - f_j|| / its mean over the pairs; a_ijk is the cosine of the angle at j between i
    and k; Huber has delta 1; no temperature. The widths of the features may differ.
    Park et al., "Relational Knowledge Distillation" (CVPR 2019), equations 3 to 9. The angles count twice as much as
    the distances, as there.

    Args:
        student: (N, D).
        teacher: (N, E).

    Returns:
        A scalar float32; without three images there are no angles, without two there is nothing (0).

    Raises:
        TensorError: they are not matrices of the same images.
    """
    if student.dim() != 2 or teacher.dim() != 2 or len(student) != len(teacher):
        raise TensorError(
            f"The student's features {tuple(student.shape)} and the teacher's {tuple(teacher.shape)} must be"
            " (images, width) of the same images."
        )
    student, teacher, n = student.float(), teacher.float(), len(student)
    value = student.sum() * 0.0
    if n > 1:
        pairs = ~torch.eye(n, dtype=torch.bool, device=student.device)
        value = value + distance * F.smooth_l1_loss(_distances(student, pairs), _distances(teacher, pairs))
    if n > 2:
        triplets = pairs[:, :, None] & pairs[:, None, :] & pairs[None, :, :]
        value = value + angle * F.smooth_l1_loss(_angles(student)[triplets], _angles(teacher)[triplets])
    return value


def _attention_map(features: Tensor) -> Tensor:
    return F.normalize(features.float().square().sum(1).flatten(1), dim=1)


def _distances(features: Tensor, pairs: Tensor) -> Tensor:
    """Euclidean distances of the pairs, divided by their mean: (N * (N - 1),)."""
    squared = (features[:, None] - features[None, :]).square().sum(2)[pairs]
    found = squared.clamp_min(_TINY).sqrt()
    return found / found.mean()


def _angles(features: Tensor) -> Tensor:
    """Cosines of the angle at the first image between the other two: (N, N, N)."""
    directions = F.normalize(features[None, :] - features[:, None], dim=2)
    return directions @ directions.transpose(1, 2)


# --- where the features come from --------------------------------------------------------------------------------


@dataclass(frozen=True)
class StageEnd:
    """The last block of a network at one resolution: the module's name, its channels, its side in pixels."""

    name: str
    channels: int
    side: int


def stage_ends(network: nn.Module, task: TrainingTask, size: int, name: str) -> tuple[StageEnd, ...]:
    """The last block at each resolution, from the stem to the head.

    Args:
        network: takes images (N, 3, size, size).
        task: what it was made for.
        size: side of its input.
        name: what the message calls it.

    Raises:
        ModelError: its blocks give no feature maps (N, C, H, H), as those of transformers.
    """
    modules = dict(network.named_modules())
    names = [
        found for block in blocks(network, task)[:-1] if (found := _module_of(block)) in modules and found
    ]
    seen: dict[int, StageEnd] = {}
    mode, probe = network.training, torch.zeros(1, 3, size, size, device=next(network.parameters()).device)
    with torch.no_grad(), watching(network.eval(), names) as outputs:
        network(probe)
    network.train(mode)
    for module, output in outputs.items():
        if output.dim() == 4 and output.shape[2] == output.shape[3]:
            seen.pop(output.shape[2], None)
            seen[output.shape[2]] = StageEnd(module, output.shape[1], output.shape[2])
    if not seen:
        raise ModelError(
            f"{name} gives no feature maps (images, channels, height, width) at the ends of its blocks, which"
            " distill.features = fitnets and attention need; relational needs none."
        )
    return tuple(seen.values())


class Features(nn.Module):
    """The feature loss between two networks, with the projectors that learn with the student and are thrown away.

    Attributes:
        weight: of the loss.
        student_names: the student's modules to watch.
        teacher_names: the teacher's, as they are called in the guide.
    """

    def __init__(
        self,
        kind: DistillFeatures,
        *,
        task: TrainingTask,
        student: nn.Module,
        teacher: nn.Module,
        sizes: tuple[int, int],
        prefix: str,
        weight: float,
        seed: int,
    ) -> None:
        """Pair the stages of `student` and `teacher` from the head on.

        Args:
            kind: the loss; not `none`.
            task: what both were made for.
            student: the student.
            teacher: the teacher.
            sizes: sides of the student's and the teacher's input.
            prefix: what the teacher is called in the guide, with a dot at the end.
            weight: of the loss.
            seed: of the projectors' first weights.

        Raises:
            ModelError: one of them gives no feature maps.
        """
        super().__init__()
        self.kind, self.weight = kind, weight
        self.projectors = nn.ModuleList()
        self.student_names: tuple[str, ...]
        self.teacher_names: tuple[str, ...]
        if kind is DistillFeatures.RELATIONAL:
            self.student_names = (f">{task.output_layers(student)[0]}",)
            self.teacher_names = (f">{prefix}{task.output_layers(teacher)[0]}",)
            return
        own, theirs = (
            stage_ends(student, task, sizes[0], "The student"),
            stage_ends(teacher, task, sizes[1], "The teacher"),
        )
        count = min(len(own), len(theirs))
        own, theirs = own[-count:], theirs[-count:]
        self.student_names = tuple(end.name for end in own)
        self.teacher_names = tuple(prefix + end.name for end in theirs)
        if kind is DistillFeatures.FITNETS:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.projectors.extend(
                    nn.Conv2d(mine.channels, other.channels, 1)
                    for mine, other in zip(own, theirs, strict=True)
                )

    def forward(self, own: dict[str, Tensor], theirs: dict[str, Tensor]) -> Tensor:
        """The weighted loss, a mean over the stages, from what `watching` gathered of both."""
        pairs = [
            (own[mine], theirs[other].detach())
            for mine, other in zip(self.student_names, self.teacher_names, strict=True)
        ]
        match self.kind:
            case DistillFeatures.RELATIONAL:
                [(mine, other)] = pairs
                return self.weight * relational(_flat(mine), _flat(other))
            case DistillFeatures.ATTENTION:
                values = [attention(*_of_one_side(mine, other)) for mine, other in pairs]
            case DistillFeatures.FITNETS:
                values = [
                    fitnets(*_of_one_side(projector(mine), other))
                    for projector, (mine, other) in zip(self.projectors, pairs, strict=True)
                ]
            case DistillFeatures.NONE:
                raise AssertionError("no loss was asked for")
            case _:
                assert_never(self.kind)
        return self.weight * torch.stack(values).mean()


def _of_one_side(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps at the smaller one's side, by adaptive average pooling."""
    side = min(student.shape[-1], teacher.shape[-1])
    return F.adaptive_avg_pool2d(student, side), F.adaptive_avg_pool2d(teacher, side)


def _flat(features: Tensor) -> Tensor:
    """What goes into the output layer as (N, D): the mean over positions of a map."""
    return features.mean((2, 3)) if features.dim() == 4 else features.flatten(1)


def _module_of(block: Sequence[str]) -> str:
    """The innermost module that holds all parameters of a block; `` where that is the network."""
    paths = [name.split(".")[:-1] for name in block]
    shared = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared)
