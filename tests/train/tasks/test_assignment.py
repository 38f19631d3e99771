from __future__ import annotations

import pytest
import torch

from edgetl.models.detector import boxes_of, places
from edgetl.train.tasks import assignment
from edgetl.train.tasks.assignment import Assigned, assign, detection_loss


def crowded(count: int) -> tuple[torch.Tensor, ...]:
    """Maps of three pictures of 64 pixels with up to `count` objects, as `assign` and `detection_loss` take them."""
    generator = torch.Generator().manual_seed(0)
    centres, strides = places(64)
    raw = torch.randn(3, len(centres), 6, generator=generator)
    boxes = boxes_of(raw[..., :4], centres, strides)
    low = torch.rand(3, count, 2, generator=generator) * 50
    objects = torch.cat([low, low + 4 + torch.rand(3, count, 2, generator=generator) * 10], dim=-1)
    labels = torch.randint(0, 2, (3, count), generator=generator)
    labels[1, count // 4 :] = -1
    labels[2] = -1
    return raw, boxes, centres, objects, labels


def test_pictures_are_matched_the_same_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    raw, boxes, centres, objects, labels = crowded(40)

    def matched() -> Assigned:
        return assign(raw[..., 4:].sigmoid(), boxes, centres, objects, labels)

    together = matched()
    monkeypatch.setattr(assignment, "_HELD", 1)
    alone = matched()
    for name in ("scores", "weights", "answers"):
        assert torch.equal(getattr(together, name), getattr(alone, name)), name
    assert torch.equal(together.boxes[together.answers], alone.boxes[alone.answers])
    assert not together.answers[2].any()


def test_a_picture_with_2000_boxes_is_learned_from() -> None:
    raw, _, centres, objects, labels = crowded(2000)
    raw.requires_grad_()
    boxes = boxes_of(raw[..., :4], centres, places(64)[1])
    loss = detection_loss(raw, boxes, centres, objects, labels)
    loss.backward()  # type: ignore[no-untyped-call]
    assert raw.grad is not None
    assert raw.grad.isfinite().all()
    assert 0.0 < loss.item() < 1e3
