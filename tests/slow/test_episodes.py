"""Whether episodes help with classes that are added later, on real image sets: what the trial of each run says.

Sets, seeds and size are set by EDGETL_EPISODE_SETS, EDGETL_SEEDS and EDGETL_SIZE. `make test-slow` prints the figures.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from edgetl import config
from edgetl.config import Episodes
from edgetl.data.index import build_index
from edgetl.inputs.image import PreprocessSpec
from edgetl.models import backbones
from edgetl.train import few_shot
from edgetl.train.stage import TrainInputs
from tests.slow.test_real_sets import RealSet

pytestmark = [pytest.mark.slow, pytest.mark.timeout(14400)]
SETS = os.environ.get("EDGETL_EPISODE_SETS", "flowers12,cifar10").split(",")
SEEDS = tuple(map(int, os.environ.get("EDGETL_SEEDS", "0,1,2").split(",")))
SIZE = int(os.environ.get("EDGETL_SIZE", "96"))
IMAGES = {"cifar10": 2000}
"""Training images that are used, of all."""


@pytest.mark.parametrize("method", [method for method in Episodes if method is not Episodes.NONE])
@pytest.mark.parametrize("name", SETS)
def test_episodes_on_classes_that_are_left_out(
    real_set: RealSet, name: str, method: Episodes, tmp_path: Path
) -> None:
    found = []
    for seed in SEEDS:
        data = {"source": str(real_set(name).absolute()), "max_train_images": IMAGES.get(name)}
        recipe = config.parse({"seed": seed, "data": data, "train": {"episodes": method}})
        mean, std, _ = backbones.default_preprocess(recipe.train.backbone)
        inputs = TrainInputs(
            index=build_index(recipe.data, seed=seed),
            spec=PreprocessSpec(size=SIZE, mean=mean, std=std),
            pixels_dir=tmp_path / "pixels",
            seed=seed,
        )
        out = tmp_path / f"{method}-{seed}"
        out.mkdir()
        record = few_shot.run(recipe.train, inputs, out=out)
        assert record is not None
        found.append(record)
        shots = "; ".join(
            f"{shots} per class {before:.1%} to {after:.1%}"
            for shots, (before, after) in record.shots.items()
        )
        known = record.known
        print(
            f"\n{name}, {method}, {SIZE} px, seed {seed}: {shots}; p {record.comparison.p_value:.2g};"
            f" trained classes {known.before:.1%} to {known.after:.1%}; {'taken' if record.used else 'not taken'};"
            f" {record.seconds:.0f} s",
            flush=True,
        )
    taken = [record for record in found if record.used]
    gains = [record.comparison.after - record.comparison.before for record in taken]
    print(f"{name}, {method}: taken in {len(taken)} of {len(found)} seeds")
    assert not gains or np.mean(gains) > 0
