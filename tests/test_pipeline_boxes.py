"""A detector goes the whole way: boxes, one network, pruned, taught, quantized, one bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgetl import pipeline
from edgetl.bundle.archive import open_bundle
from edgetl.config import Recipe
from edgetl.tasks.base import Detection
from tests.data.boxes.sets import SHAPES, write_boxes
from tests.test_pipeline import tiny_recipe


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_boxes(tmp_path_factory.mktemp("boxes"), {"train": 24, "val": 8, "test": 8}, side=64)


def recipe_for(source: Path, **changes: dict[str, object]) -> Recipe:
    sections: dict[str, dict[str, object]] = {
        "preprocess": {"size": 64, "resize": "pad"},
        "prune": {"target_macs": 0.7, "importance_images": 16},
        "distill": {"epochs": 1},
    }
    return tiny_recipe(source, **{**sections, **changes})


@pytest.fixture(scope="module")
def finished(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> pipeline.Outcome:
    return pipeline.run(recipe_for(shapes), tmp_path_factory.mktemp("runs") / "tiny")


def test_boxes_become_a_bundle_with_a_threshold(finished: pipeline.Outcome) -> None:
    assert finished.bundle is not None
    task = open_bundle(finished.bundle).manifest.task
    assert isinstance(task, Detection)
    assert task.labels == SHAPES
