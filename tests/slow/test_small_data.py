"""How well the default recipe learns from few images, on real sets. `make test-slow` prints the figures."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgetl import config, pipeline
from edgetl.config import Strategy
from edgetl.data.index import build_index
from edgetl.pipeline import Stage
from edgetl.process import tune
from edgetl.records.scores import score, value
from edgetl.records.train import TrainRecord
from tests.slow import plain
from tests.slow.test_real_sets import recipe_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]
RealSet = Callable[[str], Path]
SEEDS = (0, 1, 2)


def teacher(recipe: config.Recipe, folder: Path) -> TrainRecord:
    record: TrainRecord = pipeline.run(recipe, folder, until=Stage.TRAIN).records[Stage.TRAIN]
    return record


def test_the_default_recipe_beats_a_plain_loop_on_magnetic_tile(real_set: RealSet, tmp_path: Path) -> None:
    tune()
    source = real_set("magnetic_tile")
    base = recipe_for(source)
    index = build_index(base.data)
    ours: list[float] = []
    other: list[float] = []
    print("\nseed | ours: test macro-F1, top-1, minutes | plain loop: test macro-F1, top-1, minutes")
    for seed in SEEDS:
        started = time.monotonic()
        record = teacher(base.model_copy(update={"seed": seed}), tmp_path / f"seed-{seed}")
        assert record.test is not None
        between = time.monotonic()
        beside = plain.fine_tune(
            base.train.backbone,
            index,
            size=base.preprocess.size,
            epochs=1 + base.train.epochs,
            batch_size=base.train.batch_size,
            seed=seed,
        )
        ended = time.monotonic()
        ours.append(value(record.test, "macro_f1"))
        other.append(value(beside, "macro_f1"))
        print(
            f"{seed} | {value(record.test, 'macro_f1'):.3f}, {value(record.test, 'top1'):.1%},"
            f" {(between - started) / 60:.1f}"
            f" | {value(beside, 'macro_f1'):.3f}, {value(beside, 'top1'):.1%}, {(ended - between) / 60:.1f}",
            flush=True,
        )
    print(
        f"mean (deviation) | {statistics.mean(ours):.3f} ({statistics.stdev(ours):.3f})"
        f" | {statistics.mean(other):.3f} ({statistics.stdev(other):.3f})"
    )
    assert statistics.mean(ours) > statistics.mean(other) + statistics.stdev(other)


@pytest.mark.parametrize("per_class", [50, 500])
def test_strategies_side_by_side_on_cifar10(real_set: RealSet, tmp_path: Path, per_class: int) -> None:
    base = recipe_for(real_set("cifar10"), max_train_images=10 * per_class)
    print(f"\n{per_class} images per class | test top-1 (95% interval) | minutes")
    scores = {}
    for strategy in (Strategy.HEAD, Strategy.GRADUAL, Strategy.FULL):
        recipe = base.model_copy(
            update={"train": base.train.model_copy(update={"strategy": strategy, "epochs": 6})}
        )
        started = time.monotonic()
        test = teacher(recipe, tmp_path / "run").test
        assert test is not None
        low, high = score(test, "top1").interval
        scores[strategy] = value(test, "top1")
        print(
            f"{strategy} | {scores[strategy]:.1%} ({low:.1%} to {high:.1%})"
            f" | {(time.monotonic() - started) / 60:.1f}",
            flush=True,
        )
    assert max(scores.values()) > 0.5
    assert scores[Strategy.FULL] > scores[Strategy.HEAD]


FEW = os.environ.get(
    "EDGETL_FEW",
    "flowers12:60 flowers12:150 office_caltech10/amazon:200 office_caltech10/caltech10:200",
)
"""Sets, and how many of their images."""
WAYS = ((Strategy.HEAD, 224), (Strategy.FULL, 160), (Strategy.FULL, 224))
"""What learns and the size; the last is what `edgetl init` writes for few photographs."""


def test_few_photographs_teach_all_layers_best_at_the_size_of_pretraining(
    real_set: RealSet, tmp_path: Path
) -> None:
    """Validation images decide; the test images are shown beside them."""
    found: dict[tuple[Strategy, int], list[float]] = {way: [] for way in WAYS}
    for number, one in enumerate(FEW.split()):
        place, _, images = one.partition(":")
        name, _, folder = place.partition("/")
        source = real_set(name) / folder
        for way in WAYS:
            changes = (f"train.strategy={way[0]}", f"preprocess.size={way[1]}")
            recipe = recipe_for(source, *changes, max_train_images=int(images), val_fraction=0.45)
            started = time.monotonic()
            record = teacher(recipe, tmp_path / f"{number}-{way[0]}-{way[1]}")
            assert record.test is not None
            found[way].append(value(record.val, "top1"))
            minutes, test = (time.monotonic() - started) / 60, value(record.test, "top1")
            print(
                f"{place}, {images} images, {way[0]} at {way[1]} px: {found[way][-1]:.1%} of the validation images,"
                f" {test:.1%} of the test images, {minutes:.1f} minutes",
                flush=True,
            )
    means = {way: statistics.mean(shares) for way, shares in found.items()}
    for way, mean in means.items():
        print(f"{way[0]} at {way[1]} px: {mean:.1%} of the validation images in the mean")
    assert max(means, key=means.__getitem__) == WAYS[-1]
