"""What a run notes of its validation images comes into the bundle unchanged."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from edgetl.bundle.drift import MOST
from edgetl.measure.drift import answers_of, looks_of, source_of
from edgetl.tasks.all import task_of
from edgetl.tasks.base import Classification, MultiHead, MultiLabel

COLOURS, MARKS = Classification(labels=("red", "green")), MultiLabel(labels=("dry", "cut"))


def test_looks_and_answers_of_the_same_images() -> None:
    images = MOST + 500
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 255, (images, 8, 8, 3), dtype=np.uint8)
    logits = generator.normal(size=(images, 2)).astype(np.float32)
    looks = looks_of(pixels)
    sure, named = answers_of(task_of(COLOURS), {"logits": logits})
    assert len(looks) == len(sure) == sum(named) == MOST
    assert 0.5 <= min(sure) <= max(sure) <= 1.0
    variant = SimpleNamespace(name="fp32", sureness=sure, named=named)
    record: Any = SimpleNamespace(looks=looks, variants=(variant,))
    source = source_of(record)
    assert source is not None
    assert source.looks.shape == (MOST, 7)
    assert source.answers["fp32"].named.tolist() == list(named)
    assert source.answers["fp32"].sureness.tolist() == np.float32(sure).tolist(), (
        "nothing is lost on the way through JSON"
    )
    older: Any = SimpleNamespace(looks=(), variants=())
    assert source_of(older) is None


def test_classes_of_several_heads_stand_side_by_side() -> None:
    task = task_of(MultiHead(heads={"colour": COLOURS, "marks": MARKS}))
    outputs = {
        "colour": np.array([[3.0, 0.0], [0.0, 3.0]], np.float32),
        "marks": np.array([[3.0, 3.0], [-3.0, -3.0]], np.float32),
    }
    _, named = answers_of(task, outputs)
    assert named == (1, 1, 1, 1)
