"""All layers fine-tuned from ImageNet's weights, with batch norms in terms of the training images and as they came.

Validation scores decide; those on the test images are printed beside them. Sets, seeds and size are set by
EDGETL_NORM_SETS, EDGETL_SEEDS and EDGETL_SIZE. `make test-slow` prints the figures.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgetl import pipeline
from edgetl.config import Strategy
from edgetl.pipeline import Stage
from edgetl.records.scores import value
from edgetl.records.train import TrainRecord
from edgetl.train import stage
from tests.slow.test_real_sets import recipe_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]
SETS = tuple(os.environ.get("EDGETL_NORM_SETS", "magnetic_tile,flowers12,cifar10").split(","))
SEEDS = tuple(map(int, os.environ.get("EDGETL_SEEDS", "0,1,2").split(",")))
SIZE = int(os.environ.get("EDGETL_SIZE", "112"))
IMAGES = 1500
METRICS = {"magnetic_tile": "macro_f1"}


@pytest.mark.parametrize("name", SETS)
def test_norms_in_terms_of_the_images_are_the_better_start(
    real_set: Callable[[str], Path], tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, metric = real_set(name), METRICS.get(name, "top1")
    gains = []
    for seed in SEEDS:
        recipe = recipe_for(
            source, f"seed={seed}", f"preprocess.size={SIZE}", "train.strategy=full", max_train_images=IMAGES
        )
        assert recipe.train.strategy is Strategy.FULL
        found: dict[str, TrainRecord] = {}
        for what in ("rebased", "as they came"):
            with monkeypatch.context() as patch:
                if what != "rebased":
                    patch.setattr(stage, "rebase", lambda *_: None)
                outcome = pipeline.run(recipe, tmp_path / f"{what}-{seed}", until=Stage.TRAIN)
            found[what] = outcome.records[Stage.TRAIN]
        figures = []
        for what, record in found.items():
            assert record.test is not None
            undone = ", the head's alone" if record.epochs[-1].kept_start else ""
            figures.append(
                f"{what} {100 * value(record.val, metric):.1f}% on validation,"
                f" {100 * value(record.test, metric):.1f}% on test{undone}"
            )
        print(f"\n{name}, {SIZE} px, seed {seed}, {metric}: {'; '.join(figures)}", flush=True)
        after, before = (value(record.val, metric) for record in found.values())
        gains.append(100 * (after - before))
    print(f"{name}: {np.mean(gains):+.1f} points on validation images, mean of {len(SEEDS)} seeds")
    assert np.mean(gains) > -1
