"""How a network follows a teacher: in pruning's recovery, in distillation and in quantization-aware training alike."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from edgetl.config import (
    Augment,
    ClassificationConfig,
    DistillConfig,
    DistillLoss,
    LabelsConfig,
    TaskConfig,
    TrainPrecision,
)
from edgetl.distill.cross import CrossHeads
from edgetl.distill.features import Features, watching
from edgetl.distill.views import at_size
from edgetl.tasks.base import TaskSpec
from edgetl.train.objective import Batch, HardLoss, Need, hard, penalised
from edgetl.train.tasks.all import training_task
from edgetl.train.tasks.base import TrainingTask


@dataclass(frozen=True, kw_only=True)
class Guide:
    """Whom a network follows, and how.

    Attributes:
        teacher: its checkpoint.
        teacher_size: side of the teacher's input.
        batch_size: images per step.
        weight_decay: of matrices and filters.
        precision: arithmetic.
        temperature: of the soft targets.
        soft_weight: share of the soft loss, in 0..1; the rest is the loss with the labels.
        loss: the soft loss.
        augment: the training view.
        class_balance: draw every class equally often.
        settings: the recipe's, of the task.
        labels: the recipe's, of the relation of its classes.
    """

    teacher: Path
    teacher_size: int
    batch_size: int
    weight_decay: float
    precision: TrainPrecision
    temperature: float
    soft_weight: float
    loss: DistillLoss
    augment: Augment
    class_balance: bool = False
    settings: TaskConfig = field(default_factory=ClassificationConfig)
    labels: LabelsConfig = field(default_factory=LabelsConfig)

    def task_for(self, spec: TaskSpec) -> TrainingTask:
        """The training code of a task, by these settings."""
        return training_task(spec, self.settings, self.labels)

    def under(self, config: DistillConfig) -> Guide:
        """With the settings that `config` names."""
        return replace(
            self,
            temperature=config.temperature,
            soft_weight=config.soft_weight,
            loss=config.loss,
            augment=config.augment,
        )

    def objective(
        self,
        teacher: nn.Module,
        task: TrainingTask,
        *,
        student_size: int,
        features: Features | None = None,
        cross: CrossHeads | None = None,
    ) -> Distillation:
        """What a student of input side `student_size` learns from `teacher` and the labels."""
        return Distillation(
            teacher=teacher,
            task=task,
            temperature=self.temperature,
            soft_weight=self.soft_weight,
            student_size=student_size,
            soft=self.loss,
            features=features,
            cross=cross,
        )


class Distillation:
    """soft_weight * soft loss + (1 - soft_weight) * the loss with the labels, and the loss between features.

    The teacher sees the same augmented images as the student (consistent teaching: Beyer et al., "Knowledge
    distillation: A good teacher is patient and consistent", CVPR 2022), in evaluation mode and without gradients. It
    follows the images to their device. A student of another input size sees them at its own. Unlabelled images take
    part in the soft loss and in that between features; the loss with the labels is the mean over the labelled ones, of
    which there must be one.
    """

    def __init__(
        self,
        *,
        teacher: nn.Module,
        task: TrainingTask,
        temperature: float,
        soft_weight: float,
        student_size: int,
        soft: DistillLoss = DistillLoss.HINTON,
        hard_loss: HardLoss | None = None,
        features: Features | None = None,
        cross: CrossHeads | None = None,
    ) -> None:
        """Freeze the teacher.

        Args:
            teacher: (N, 3, H, W) images to the task's outputs (N, D); set to evaluation mode and frozen here.
            task: gives the losses.
            temperature: of the soft loss, above 0.
            soft_weight: share of the soft loss, 0..1; at 0, without `features`, the teacher is not run.
            student_size: side of the student's input.
            soft: the soft loss.
            hard_loss: the loss with the labels, where it is not the task's plain one.
            features: a loss between features, added to the others; its projectors are on the images' device.
            cross: makes the outputs that the soft loss sees; the student's own where None.
        """
        self.teacher = teacher.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.task, self.temperature, self.soft_weight = task, temperature, soft_weight
        self.student_size, self.soft, self.features = student_size, soft, features
        self.cross = cross
        self.hard_loss = task.hard_loss() if hard_loss is None else hard_loss

    @property
    def modules(self) -> nn.Module | None:
        """The projectors of the loss between features, and a loss with the labels that learns."""
        found = [part for part in (self.features, self.cross, self.hard_loss) if isinstance(part, nn.Module)]
        return found[0] if len(found) == 1 else nn.ModuleList(found) if found else None

    @property
    def needs(self) -> frozenset[Need]:
        """The images, which the teacher looks at too; and their labels, where the soft loss asks for them."""
        return frozenset({Need.IMAGES, Need.LABELS} if self.soft is DistillLoss.DKD else {Need.IMAGES})

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """See the class; the task's penalty is added."""
        return penalised(self._taught(model, batch), self.task.penalty(model))

    def _taught(self, model: nn.Module, batch: Batch) -> Tensor:
        features, images = self.features, batch.images
        names = (
            *(features.student_names if features else ()),
            *(self.cross.student_names if self.cross else ()),
        )
        with watching(model, names) as own:
            outputs = model(at_size(images, self.student_size))
        value = hard(self.hard_loss, outputs, batch)
        if self.soft_weight == 0.0 and features is None:
            return value
        if next(self.teacher.parameters()).device != images.device:
            self.teacher.to(images.device)
        with torch.no_grad(), watching(self.teacher, features.teacher_names if features else ()) as theirs:
            guide = self.teacher(images)
        seen = outputs if self.cross is None else self.cross(own)
        soft = self.task.soft_loss(self.soft, seen, guide, batch.targets, self.temperature)
        value = self.soft_weight * soft + (1 - self.soft_weight) * value
        return value + features(own, theirs) if features else value
