"""Learning the features of a larger backbone."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetl.errors import ModelError, TensorError
from edgetl.inputs.spec import PreprocessSpec
from edgetl.models import backbones, checkpoint
from edgetl.models.detector import Detector
from edgetl.models.renormalised import Renormalised
from edgetl.models.size import OWN_SIZE, check_takes
from edgetl.records.codec import from_json
from edgetl.train.objective import Batch, Need
from edgetl.train.pretrain.backbone import width_of


def feature_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean squared distance of features of length 1: 2 - 2 cos, in 0..4.

    As the regression of Romero et al., "FitNets: Hints for Thin Deep Nets" (ICLR 2015), equation 3, between the last
    features, without their lengths, which the classifier of another task need not keep.

    Args:
        student, teacher: (N, G).

    Returns:
        A scalar float32.

    Raises:
        TensorError: the shapes differ.
    """
    if student.dim() != 2 or student.shape != teacher.shape:
        raise TensorError(
            f"The student's features {tuple(student.shape)} and the teacher's {tuple(teacher.shape)} must be equal in"
            " shape (images, width)."
        )
    own, others = (F.normalize(features.float(), dim=1) for features in (student, teacher))
    return (own - others).square().sum(1).mean()


class Follow:
    """A linear layer on the backbone's features follows the features of a frozen teacher, which sees the same views."""

    needs = frozenset({Need.IMAGES})

    def __init__(self, width: int, teacher: nn.Module, size: int, *, seed: int) -> None:
        """Freeze the teacher and make the layer.

        Args:
            width: F, the features of the backbone.
            teacher: images (N, 3, S, S), normalised as the backbone's, -> (N, G).
            size: S.
            seed: of the layer's first weights.
        """
        self._teacher = teacher.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._layer = nn.Linear(width, width_of(teacher, size))

    @property
    def modules(self) -> nn.Module | None:
        """The layer."""
        return self._layer

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """See `feature_distance`; the model gives features of images (N, 3, S, S)."""
        images = batch.images
        if next(self._teacher.parameters()).device != images.device:
            self._teacher.to(images.device)
        with torch.no_grad():
            wanted = self._teacher(images)
        return feature_distance(self._layer(model(images)), wanted)


def teacher_of(name: str, spec: PreprocessSpec) -> nn.Module:
    """The teacher without its head, for images that are normalised by `spec`.

    Args:
        name: of a backbone, whose pretrained weights are taken, or a checkpoint of edgetl.
        spec: of the images.

    Raises:
        ModelError: unknown backbone, a detector, or it does not take images of this size.
        WeightsError: the weights cannot be had.
    """
    mean, std = spec.mean, spec.std
    if Path(name).is_file():
        model, architecture = checkpoint.load(Path(name))
        if isinstance(model, Detector):
            raise ModelError(
                f"pretrain.teacher: {name} is a detector, whose maps are no features of the whole picture."
            )
        kept = checkpoint.read_metadata(Path(name))
        if checkpoint.SPEC in kept:
            own = from_json(PreprocessSpec, json.loads(kept[checkpoint.SPEC]))
            mean, std = own.mean, own.std
        called = architecture.backbone
    else:
        model = backbones.create(name, 1, backbones.PRETRAINED, size=spec.size)
        (mean, std, _), called = backbones.default_preprocess(name), name
    check_takes(model, spec.size, called, OWN_SIZE)
    for head in backbones.classifier_names(model):
        model.set_submodule(head, nn.Identity())
    if (mean, std) == (spec.mean, spec.std):
        return model
    return Renormalised(model, mean, std, spec)
