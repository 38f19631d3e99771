"""CIFAR-10 in five steps of two classes: what is known at the end, and what was forgotten on the way, beside plain
fine-tuning, each part of the method by itself, and training on all at once. Some ten minutes on two cores."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from edgetl import config, pipeline
from edgetl.config import Recipe
from edgetl.pipeline import Stage
from edgetl.records.train import TrainRecord
from edgetl.tasks.all import detail_of
from edgetl.tasks.classification.detail import ClassDetail
from tests.slow.test_real_sets import RealSet

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]
TRAINING, TESTED, SIDE = 200, 100, 48
"""Images a class that are learned from (and chosen by), and that are tested on; pixels per side."""
WAYS = {
    "fine-tuning": (0, 0.0),
    "own answers alone": (0, 0.5),
    "exemplars alone": (20, 0.0),
    "exemplars and own answers": (20, 0.5),
}
"""Exemplars, and the share of the loss that holds answers to what they were."""


def part(source: Path, labels: list[str], folder: Path) -> Path:
    """Some classes, each with so many images."""
    for split, count in (("train", TRAINING), ("test", TESTED)):
        for label in labels:
            (folder / split / label).mkdir(parents=True)
            for path in sorted((source / split / label).iterdir())[:count]:
                shutil.copy(path, folder / split / label)
    return folder


def recipe(source: Path) -> Recipe:
    return config.parse(
        {
            "data": {"source": str(source)},
            "preprocess": {"size": SIDE},
            "train": {"epochs": 4, "augment": "basic"},
        }
    )


def recalls(record: TrainRecord) -> dict[str, float]:
    """By class, on the test split."""
    assert record.test is not None
    detail = detail_of(record.test)
    assert isinstance(detail, ClassDetail)
    return {one.label: one.recall for one in detail.classes}


def trained(asked: Recipe, folder: Path) -> TrainRecord:
    record = pipeline.run(asked, folder, until=Stage.TRAIN).records[Stage.TRAIN]
    assert isinstance(record, TrainRecord)
    return record


def test_five_steps_of_two_classes(real_set: RealSet, tmp_path: Path) -> None:
    source = real_set("cifar10")
    labels = sorted(path.name for path in (source / "train").iterdir())
    steps = [
        part(source, labels[at : at + 2], tmp_path / f"step-{at // 2}") for at in range(0, len(labels), 2)
    ]
    bound = recalls(trained(recipe(part(source, labels, tmp_path / "all")), tmp_path / "bound"))
    print(f"\nall classes at once: {np.mean(list(bound.values())):.1%}")
    first = trained(recipe(steps[0]), tmp_path / "first")
    last, forgotten = dict[str, float](), dict[str, float]()
    for way, (exemplars, share) in WAYS.items():
        before, best, verdicts, taken = tmp_path / "first", recalls(first), list[str](), 0
        for at, added in enumerate(steps[1:], start=1):
            settings = (f"extend.exemplars={exemplars}", f"extend.distill={share}")
            folder = tmp_path / way.replace(" ", "-") / f"run-{at}"
            record = trained(config.extended(before, str(added), "step", settings), folder)
            assert record.kept is not None
            verdicts.append(record.kept.verdict.text)
            taken += record.nearest is not None and record.nearest.comparison.helped
            now = recalls(record)
            best, before = {label: max(now[label], best.get(label, 0.0)) for label in now}, folder
        last[way] = float(np.mean(list(now.values())))
        forgotten[way] = float(np.mean([best[label] - now[label] for label in labels[:-2]]))
        print(
            f"{way}: {last[way]:.1%} at the end, {forgotten[way]:.1%} forgotten; the gate: {', '.join(verdicts)};"
            f" nearest means taken in {taken} steps"
        )
    # What is forgotten is told and not judged: plain fine-tuning never knew much at once, so has little to forget.
    assert last["exemplars and own answers"] > last["fine-tuning"] + 0.1
