"""Training of detectors.

Legend: N images, A places, C classes, M objects at most per image, S the side of an image. A network's outputs are raw
maps (N, A, 4 + C), see `edgetl.models.detector`. Targets are (N, 1 + M, 8) float32. Row 0 is the picture's frame:
(scale x, scale y, offset x, offset y, -1, width, height, S). The others are objects: (x1, y1, x2, y2) in pixels of the
image, class or -1 for none, 1 for a crowd, area in square pixels of the picture or 0 for the box's, 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from edgetl.config import LOSSES_OF_BOXES, Augment, DistillLoss, Imbalance, Mix, Strategy, TrainConfig
from edgetl.errors import ConfigError, TensorError, TrainingError
from edgetl.inputs.frame import Frame, frame_of
from edgetl.models.detector import STRIDES, Detector, boxes_of, create_detector, places
from edgetl.records.scores import Evaluation
from edgetl.tasks.base import Detection, MetricSpec, labels_of
from edgetl.tasks.detection.found import Truth, in_pictures
from edgetl.tasks.detection.scores import evaluate
from edgetl.tasks.detection.task import BOXES, SCORES, DetectionTask
from edgetl.tasks.metrics import MAP
from edgetl.train.augment import BatchPart, placed_view
from edgetl.train.objective import HardLoss
from edgetl.train.tasks.assignment import detection_loss, pairwise_overlap, within
from edgetl.train.tasks.base import Targets

if TYPE_CHECKING:
    from edgetl.data.index import Sample
    from edgetl.inputs.spec import PreprocessSpec

_COLUMNS = 8
_CLASS, _CROWD, _AREA = 4, 5, 6
_SEEN = 0.25
"""An object of which a view shows less than this share is not asked for."""
_SOFT_BOX = 2.0
"""Weight of the boxes relative to that of the classes in the soft loss."""
_DEVIATION = 0.3
"""Of a drawn distance's logarithm; an overlap falls by about a quarter where all four are off by so much."""
_ROWS = 16
"""Images for which the validation loss is computed at once."""


@dataclass(frozen=True, kw_only=True)
class DetectionTraining:
    """See `TrainingTask`.

    Attributes:
        spec: `spec.labels[i]` names class i.
        mosaic: share of the views that are four pictures side by side.
    """

    spec: Detection
    mosaic: float = 0.0

    @property
    def width(self) -> int:
        """C, the number of classes."""
        return len(self.spec.labels)

    @property
    def metrics(self) -> tuple[MetricSpec, ...]:
        """COCO's."""
        return DetectionTask(spec=self.spec).metrics

    def network(self, backbone: str, weights: str | Path, *, seed: int, size: int) -> nn.Module:
        """A detector on the backbone."""
        places(size)
        return create_detector(backbone, self.width, weights, seed=seed, labels=labels_of(self.spec))

    def output_layers(self, model: nn.Module) -> tuple[str, ...]:
        """The convolutions that make the maps."""
        assert isinstance(model, Detector)
        return model.output_layers()

    def new_layers(self, model: nn.Module) -> tuple[str, ...]:
        """Neck and heads."""
        assert isinstance(model, Detector)
        return model.new_layers()

    def penalty(self, model: nn.Module) -> Tensor | None:
        """None."""
        return None

    def settled(self, targets: Targets, outputs: NDArray[Any]) -> DetectionTraining:
        """As it is: no score of boxes asks for a threshold."""
        return self

    def targets(self, samples: Sequence[Sample], spec: PreprocessSpec) -> Targets:
        """(N, 1 + M, 8) float32; see this module's head."""
        most = max((len(s.marked.objects) for s in samples if s.marked), default=0)
        rows = np.zeros((len(samples), 1 + most, _COLUMNS), dtype=np.float32)
        rows[:, :, _CLASS] = -1
        position = {label: at for at, label in enumerate(self.spec.labels)}
        for row, sample in zip(rows, samples, strict=True):
            assert sample.marked is not None
            frame = frame_of(sample.marked.size, spec)
            row[0] = (*frame.scale, *frame.offset, -1, *frame.size, spec.size)
            scale, offset = np.array(2 * frame.scale), np.array(2 * frame.offset)
            limits = np.array(2 * sample.marked.size, dtype=np.float64)
            for at, o in enumerate(sample.marked.objects, start=1):
                row[at, :4] = np.clip(o.box, 0, limits) * scale + offset
                row[at, _CLASS:7] = (position[o.label], o.crowd, o.area or 0.0)
        return rows

    def strata(self, targets: Targets) -> NDArray[Any]:
        """The rarest class of each image, C for images without objects."""
        labels = np.where(targets[:, 1:, _CROWD] > 0, -1, targets[:, 1:, _CLASS]).astype(np.int64)
        counts = np.bincount(labels[labels >= 0], minlength=self.width)
        rank = np.append(np.argsort(np.argsort(counts, kind="stable"), kind="stable"), self.width)
        rarest = rank[labels].min(axis=1, initial=self.width)
        strata: NDArray[Any] = np.append(np.argsort(counts, kind="stable"), self.width)[rarest]
        return strata

    def view(
        self,
        pixels: Tensor,
        targets: Tensor,
        policy: Augment,
        size: int,
        *,
        generator: torch.Generator,
        view_fraction: float,
        part: BatchPart | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The boxes move with the pixels; of turned ones the upright hull is taken.

        A mosaic's pictures are among those that are given: a process's own, where there are several.
        """
        images, theta = placed_view(
            pixels, policy, size, generator=generator, view_fraction=view_fraction, part=part
        )
        moved = _moved(targets, theta.to(targets.device), pixels.shape[1], size)
        if self.mosaic == 0.0 or policy is Augment.NONE:
            return images, moved
        return _mosaic(images, moved, self.mosaic, generator)

    def shares(self, targets: Tensor) -> Tensor:
        """Boxes of two pictures are not blended."""
        raise TrainingError('A detector\'s images are not blended; set train.mix = "none".')

    def hard_loss(self, config: TrainConfig | None = None, targets: Targets | None = None) -> HardLoss:
        """See `edgetl.train.tasks.assignment.detection_loss`."""
        if config is not None:
            if config.mix is not Mix.NONE:
                raise TrainingError('A detector\'s images are not blended; set train.mix = "none".')
            if config.imbalance not in (Imbalance.NONE, Imbalance.SAMPLING):
                raise TrainingError(
                    f'train.imbalance = "{config.imbalance}" is for labels; a detector takes "none" or "sampling".'
                )
            if config.strategy is not Strategy.FULL or config.layer_decay != 1.0:
                raise TrainingError(
                    'A detector learns by train.strategy = "full" and train.layer_decay = 1: its new parts first, then'
                    " all."
                )
        return _loss

    def soft_loss(
        self, kind: DistillLoss, student: Tensor, teacher: Tensor, targets: Tensor, temperature: float
    ) -> Tensor:
        """Binary cross-entropy to the teacher's scores, weighted by how far the two differ, and the loss of its boxes.

        That of boxes is weighted by the teacher's scores: one minus the overlap (BCKD, Yang et al. 2023), or for `ld`
        the squared difference of the distances' logarithms. (LD, Zheng et al. 2022, compares distributions of them;
        these heads give one number a side.) For `crosskd` the student's maps are those of the teacher's heads; see
        `edgetl.distill.cross`. All are zero where student and teacher agree. `temperature` is of labels and does not
        count here.
        """
        if kind not in LOSSES_OF_BOXES:
            losses = [loss for loss in DistillLoss if loss in LOSSES_OF_BOXES]
            raise ConfigError(f"distill.loss = {kind} is of labels; take {' or '.join(losses)}.")
        side = _side(student.shape[1])
        if student.shape[::2] != teacher.shape[::2]:
            raise TensorError(
                f"Student maps {tuple(student.shape)} and teacher maps {tuple(teacher.shape)} differ."
            )
        teacher = _resized(teacher, side)
        own, other = student[..., 4:].float(), teacher[..., 4:].float().sigmoid()
        weight = (own.sigmoid() - other).abs().detach()
        floor = F.binary_cross_entropy(other, other, reduction="none")
        classes = (weight * (F.binary_cross_entropy_with_logits(own, other, reduction="none") - floor)).sum()
        sure = other.amax(dim=-1)
        distances = [raw[..., :4].float() for raw in (student, teacher)]
        if kind is DistillLoss.LD:
            apart = (distances[0] - distances[1]).square().mean(dim=-1)
        else:
            centres, strides = (t.to(student.device) for t in places(side))
            boxes = [boxes_of(values, centres, strides) for values in distances]
            apart = 1 - _overlap(boxes[0], boxes[1])
        return (classes + _SOFT_BOX * (sure * apart).sum()) / sure.sum().clamp(min=1.0)

    def drawn_loss(
        self, outputs: Tensor, teacher: Tensor, temperature: float, generator: torch.Generator
    ) -> Tensor:
        """Objects drawn by the teacher's scores, and where there is one, its sides around the teacher's.

        Binary cross-entropy of the scores, and the logarithm of a normal density of the distances' logarithms, so that
        what places boxes counts like what names them. `temperature` is of labels and does not count here.
        """
        scores, distances = teacher[..., 4:].float().cpu().sigmoid(), teacher[..., :4].float().cpu()
        drawn = torch.bernoulli(scores, generator=generator)
        sides = distances + _DEVIATION * torch.randn(distances.shape, generator=generator)
        named = F.binary_cross_entropy_with_logits(
            outputs[..., 4:].float(), drawn.to(outputs.device), reduction="sum"
        )
        apart = (outputs[..., :4].float() - sides.to(outputs.device)) / _DEVIATION
        there = drawn.amax(dim=-1).to(outputs.device)
        return named + 0.5 * (apart.square().sum(dim=-1) * there).sum()

    def blend(self, members: Sequence[Tensor], temperature: float) -> Tensor:
        """The mean of scores, as logits, and of the logarithms of distances, at the places of the first."""
        side = _side(members[0].shape[1])
        stacked = torch.stack([_resized(member.float(), side) for member in members])
        scores = (stacked[..., 4:] / temperature).sigmoid().mean(dim=0)
        return torch.cat([stacked[..., :4].mean(dim=0), temperature * scores.logit(eps=1e-7)], dim=-1)

    def val_loss(self, targets: Targets, outputs: NDArray[Any]) -> float:
        """The loss of training, the mean over the images."""
        total = 0.0
        for start in range(0, len(targets), _ROWS):
            some = slice(start, start + _ROWS)
            rows = torch.from_numpy(targets[some])
            total += _loss(torch.from_numpy(outputs[some]), rows).item() * len(rows)
        return total / max(1, len(targets))

    def evaluate(self, targets: Targets, outputs: NDArray[Any], *, resamples: int = 1000) -> Evaluation:
        """mAP and its kin, in the pictures' own pixels."""
        task, truths = DetectionTask(spec=self.spec), [_truth(rows) for rows in targets]
        found = in_pictures(truths, task.decide(decoded(outputs)))
        return evaluate(truths, found, self.spec.labels, resamples=resamples)

    def selection(self, targets: Targets) -> str:
        """mAP."""
        return MAP.name


def decoded(outputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Raw maps (N, A, 4 + C) as the outputs of the device task."""
    raw = torch.from_numpy(outputs)
    centres, strides = places(_side(raw.shape[1]))
    boxes = boxes_of(raw[..., :4], centres, strides)
    return {BOXES: boxes.numpy(), SCORES: raw[..., 4:].sigmoid().numpy()}


def _side(count: int) -> int:
    """The side of an image that has so many places."""
    per_area = sum(1 / stride**2 for stride in STRIDES)
    return round(math.sqrt(count / per_area))


def _resized(raw: Tensor, side: int) -> Tensor:
    """Raw maps (N, A, 4 + C) of an image of any size as those of the same image at side `side`."""
    own = _side(raw.shape[1])
    if own == side:
        return raw
    rows = raw.float().transpose(1, 2)
    levels = torch.split(rows, [(own // stride) ** 2 for stride in STRIDES], dim=2)
    found = []
    for level, stride in zip(levels, STRIDES, strict=True):
        square = level.reshape(*level.shape[:2], own // stride, own // stride)
        to = (side // stride, side // stride)
        found.append(F.interpolate(square, to, mode="bilinear", align_corners=False).flatten(2))
    moved = torch.cat(found, dim=2).transpose(1, 2)
    # distances are in strides, of which an object spans as many fewer as the image is smaller
    return torch.cat([moved[..., :4] + math.log(side / own), moved[..., 4:]], dim=-1)


def _loss(outputs: Tensor, targets: Tensor) -> Tensor:
    centres, strides = (t.to(outputs.device) for t in places(_side(outputs.shape[1])))
    objects = targets[:, 1:]
    crowd = (objects[..., _CROWD] > 0) & (objects[..., _CLASS] >= 0)
    labels = torch.where(crowd, -1, objects[..., _CLASS].long())
    boxes = boxes_of(outputs[..., :4].float(), centres, strides)
    unknown = None
    if crowd.any():
        unknown = within(centres, objects[..., :4].where(crowd[..., None], torch.zeros(())))
    return detection_loss(outputs, boxes, centres, objects[..., :4], labels, unknown)


def _moved(targets: Tensor, theta: Tensor, side: int, size: int) -> Tensor:
    """Targets in pixels of pictures of `side`, in pixels of their views of `size`."""
    rows = targets.clone()
    if rows.shape[1] == 1:
        return rows
    box = rows[:, 1:, :4] * (2 / side) - 1
    corners = torch.stack([box[..., [0, 1]], box[..., [2, 1]], box[..., [2, 3]], box[..., [0, 3]]], dim=2)
    inverse = torch.linalg.inv(theta[:, :, :2])
    seen = torch.einsum("nij,nmkj->nmki", inverse, corners - theta[:, None, None, :, 2])
    hull = torch.cat([seen.amin(dim=2), seen.amax(dim=2)], dim=-1)
    inside = hull.clamp(-1, 1)
    areas = [(b[..., 2:] - b[..., :2]).prod(dim=-1) for b in (hull, inside)]
    gone = areas[1] < _SEEN * areas[0].clamp(min=1e-9)
    rows[:, 1:, :4] = (inside + 1) * (size / 2)
    rows[:, 1:, _CLASS] = torch.where(gone, -torch.ones_like(areas[0]), rows[:, 1:, _CLASS])
    return rows


def _mosaic(
    images: Tensor, targets: Tensor, share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Some of the views as four side by side, the first of which is the view itself (Bochkovskiy et al. 2020)."""
    count, size = len(images), images.shape[-1]
    chosen = torch.rand(count, generator=generator) < share
    partners = torch.stack(
        [torch.arange(count), *(torch.randperm(count, generator=generator) for _ in range(3))]
    )
    if not chosen.any() or targets.shape[1] == 1:
        return images, targets
    half = F.interpolate(images, (size // 2, size // 2), mode="area")
    tiles = [half[rows[chosen].to(images.device)] for rows in partners]
    made = torch.cat([torch.cat(tiles[:2], dim=3), torch.cat(tiles[2:], dim=3)], dim=2)
    objects = []
    for number, rows in enumerate(partners):
        own = targets[rows[chosen].to(targets.device), 1:].clone()
        corner = torch.tensor([number % 2, number // 2] * 2, device=own.device) * (size / 2)
        own[..., :4] = own[..., :4] / 2 + corner
        own[..., _AREA] /= 4
        objects.append(own)
    wide = targets.new_zeros(count, 1 + 4 * (targets.shape[1] - 1), _COLUMNS)
    wide[:, :, _CLASS] = -1
    wide[:, : targets.shape[1]] = targets
    at = chosen.to(targets.device)
    wide[at, 1:] = torch.cat(objects, dim=1)
    images = images.clone()
    images[chosen.to(images.device)] = made.to(images.dtype)
    most = max(1, int((wide[:, 1:, _CLASS] >= 0).sum(dim=1).max()))
    # objects first, so that as few rows as possible are held against all places
    order = (wide[:, 1:, _CLASS] < 0).long().argsort(dim=1, stable=True)[:, :most]
    rows = wide[:, 1:].gather(1, order[..., None].expand(-1, -1, _COLUMNS))
    return images, torch.cat([wide[:, :1], rows], dim=1)


def _overlap(first: Tensor, second: Tensor) -> Tensor:
    """(N, A, 4) twice to (N, A): the intersection over union of each with its like."""
    return pairwise_overlap(first.reshape(-1, 1, 4), second.reshape(-1, 1, 4)).reshape(first.shape[:2])


def _truth(rows: NDArray[Any]) -> Truth:
    """One image's objects in its picture's pixels."""
    scale_x, scale_y, left, top, _, width, height, _ = (float(value) for value in rows[0])
    frame = Frame(size=(round(width), round(height)), scale=(scale_x, scale_y), offset=(left, top))
    real = rows[1:][rows[1:, _CLASS] >= 0].astype(np.float64)
    boxes = (real[:, :4] - np.array(2 * frame.offset)) / np.array(2 * frame.scale)
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1)
    return Truth(
        boxes=boxes,
        labels=real[:, _CLASS].astype(np.int64),
        crowd=real[:, _CROWD] > 0,
        area=np.where(real[:, _AREA] > 0, real[:, _AREA], sides),
        frame=frame,
    )
