"""Which places of a detector answer for which object, and the loss of their answers.

Task-aligned assignment (Feng et al. 2021): a place is the better for an object the surer it names the class and the
better its box overlaps; the best few whose centres lie inside the object answer for it, and are taught a score that
says how well they do. The loss of boxes weighs every object alike, however many places answer for it: without that,
small objects, which few places see, are hardly learned.

Legend: N images, A places, C classes, M objects at most per image (padded).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_BEST = 10
"""Places that may answer for one object."""
_ALPHA, _BETA = 0.5, 6.0
"""Exponents of the score and of the overlap in a place's worth."""
_BOX_WEIGHT = 2.0
_TINY = 1e-9
_HELD = 4_000_000
"""Pairs of an object and a place that are looked at at once."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Assigned:
    """What each place is taught.

    Attributes:
        boxes: (N, A, 4) its object's box; arbitrary for background.
        scores: (N, A, C) the score of each class; zero for background.
        weights: (N, A) the share of one object that the place stands for; they sum to 1 per object.
        answers: (N, A) bool, whether it answers for an object.
    """

    boxes: Tensor
    scores: Tensor
    weights: Tensor
    answers: Tensor


def pairwise_overlap(first: Tensor, second: Tensor) -> Tensor:
    """(N, M, 4) and (N, A, 4) boxes to (N, M, A) intersection over union."""
    low = torch.maximum(first[:, :, None, :2], second[:, None, :, :2])
    high = torch.minimum(first[:, :, None, 2:], second[:, None, :, 2:])
    shared = (high - low).clamp(min=0).prod(dim=-1)
    own = [(boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=-1) for boxes in (first, second)]
    return shared / (own[0][:, :, None] + own[1][:, None] - shared + _TINY)


@torch.no_grad()
def assign(scores: Tensor, boxes: Tensor, centres: Tensor, objects: Tensor, labels: Tensor) -> Assigned:
    """Match places to objects, so many images at once that memory does not grow with their objects.

    Args:
        scores: (N, A, C) probabilities.
        boxes: (N, A, 4) in pixels of the input.
        centres: (A, 2) in pixels.
        objects: (N, M, 4) boxes in pixels; rows without an object are arbitrary.
        labels: (N, M) int64, -1 where there is no object.
    """
    images = max(1, _HELD // max(1, objects.shape[1] * len(centres)))
    parts = []
    for start in range(0, len(scores), images):
        some = slice(start, start + images)
        there = (labels[some] >= 0).any(dim=0).nonzero()
        most = int(there[-1]) + 1 if len(there) else min(1, labels.shape[1])
        parts.append(_assign(scores[some], boxes[some], centres, objects[some, :most], labels[some, :most]))
    return Assigned(
        boxes=torch.cat([part.boxes for part in parts]),
        scores=torch.cat([part.scores for part in parts]),
        weights=torch.cat([part.weights for part in parts]),
        answers=torch.cat([part.answers for part in parts]),
    )


def _assign(scores: Tensor, boxes: Tensor, centres: Tensor, objects: Tensor, labels: Tensor) -> Assigned:
    images, places, classes = scores.shape
    real = labels >= 0
    overlap = pairwise_overlap(objects, boxes) * real[..., None]
    index = labels.clamp(min=0)[..., None].expand(-1, -1, places)
    named = scores.transpose(1, 2).gather(1, index)
    low = centres[None, None] - objects[:, :, None, :2]
    high = objects[:, :, None, 2:] - centres[None, None]
    inside = (torch.cat([low, high], dim=-1).amin(dim=-1) > 0) & real[..., None]
    # An object that holds no centre is answered for by the nearest one.
    middle = (objects[..., :2] + objects[..., 2:]) / 2
    nearest = ((middle[:, :, None] - centres[None, None]) ** 2).sum(dim=-1).argmin(dim=-1, keepdim=True)
    lonely = real & ~inside.any(dim=-1)
    inside = inside | (F.one_hot(nearest[..., 0], places).bool() & lonely[..., None])
    worth = (named.clamp(min=_TINY) ** _ALPHA * (overlap + 1e-3) ** _BETA) * inside
    best = worth.topk(min(_BEST, places), dim=-1)
    chosen = torch.zeros_like(inside).scatter_(-1, best.indices, best.values > 0)
    # A place between several objects answers for the one that it overlaps most.
    owner = torch.where(chosen, overlap + _TINY, torch.zeros_like(overlap)).argmax(dim=1)
    answers = chosen.any(dim=1)
    chosen = chosen & (torch.arange(chosen.shape[1], device=owner.device)[None, :, None] == owner[:, None])
    worth = worth * chosen
    # The best place of an object is taught its own overlap, the others in proportion.
    peak = worth.amax(dim=-1, keepdim=True).clamp(min=1e-30)
    reach = (overlap * chosen).amax(dim=-1, keepdim=True)
    target = (worth / peak * reach.clamp(min=0.1)).amax(dim=1)
    at = torch.arange(images, device=owner.device)[:, None]
    own_label = labels.clamp(min=0)[at, owner]
    taught = F.one_hot(own_label, classes) * (target * answers)[..., None]
    counts = chosen.sum(dim=-1, keepdim=True).clamp(min=1)
    weights = (chosen / counts).sum(dim=1) * answers
    return Assigned(boxes=objects[at, owner], scores=taught, weights=weights, answers=answers)


def within(centres: Tensor, boxes: Tensor) -> Tensor:
    """(A, 2) places and (N, M, 4) boxes to (N, A) bool: whether a place lies in any of an image's boxes."""
    low = centres[None, None] > boxes[:, :, None, :2]
    high = centres[None, None] < boxes[:, :, None, 2:]
    inside: Tensor = torch.cat([low, high], dim=-1).all(dim=-1).any(dim=1)
    return inside


def detection_loss(
    raw: Tensor,
    boxes: Tensor,
    centres: Tensor,
    objects: Tensor,
    labels: Tensor,
    unknown: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of the scores and overlap of the boxes: a scalar float32, the mean over the objects.

    Args:
        raw: (N, A, 4 + C), the network's maps.
        boxes: (N, A, 4), the boxes that they stand for, in pixels.
        centres, objects, labels: as for `assign`.
        unknown: (N, A) bool, places of which nobody says what they show: they are taught nothing, unless they answer
            for an object.
    """
    logits, boxes = raw[..., 4:].float(), boxes.float()
    taught = assign(logits.sigmoid(), boxes, centres, objects, labels)
    objects_there = taught.weights.sum().clamp(min=1.0)
    answers = taught.answers
    asked = None if unknown is None else (answers | ~unknown)[..., None].float()
    scores = F.binary_cross_entropy_with_logits(logits, taught.scores.float(), weight=asked, reduction="sum")
    apart = 1 - _generalised_overlap(boxes[answers], taught.boxes[answers])
    placed: Tensor = (apart * taught.weights[answers]).sum()
    loss: Tensor = (scores / taught.scores.sum().clamp(min=1.0)) + _BOX_WEIGHT * placed / objects_there
    return loss


def _generalised_overlap(first: Tensor, second: Tensor) -> Tensor:
    """(K, 4) twice to (K,) generalised intersection over union (Rezatofighi et al. 2019), in -1..1."""
    low, high = torch.maximum(first[:, :2], second[:, :2]), torch.minimum(first[:, 2:], second[:, 2:])
    shared = (high - low).clamp(min=0).prod(dim=1)
    own = sum((boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1) for boxes in (first, second))
    union = own - shared + _TINY
    hull = (torch.maximum(first[:, 2:], second[:, 2:]) - torch.minimum(first[:, :2], second[:, :2])).prod(
        dim=1
    )
    return shared / union - (hull - union) / (hull + _TINY)
