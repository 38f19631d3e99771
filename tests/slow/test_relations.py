"""Trees of classes on real images: whether a loss by the tree makes mistakes less severe, and its price in top-1."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgetl import config, pipeline
from edgetl.config import RelationLoss
from edgetl.data.index import build_index
from edgetl.data.pixels import open_pixels
from edgetl.inputs.image import PreprocessSpec
from edgetl.models import backbones, checkpoint
from edgetl.pipeline import Stage
from edgetl.statistics import PairedComparison, compare_paired
from edgetl.tasks.relations import Tree, distances
from edgetl.train.evaluate import predict_outputs
from edgetl.train.features import compute, head_of
from edgetl.train.sets import PixelSet
from tests.slow.test_real_sets import RealSet

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]
SIZE, EPOCHS, SEEDS = 96, 6, (0, 1, 2)
TREES = {
    "flowers12": {  # by family and order
        "asters": ("colts-foot", "daisy", "dandelion", "sunflower"),
        "crowfoots": ("buttercup", "windflower"),
        "two seed leaves": ("asters", "crowfoots", "pansy"),
        "lilies": ("fritillary", "tigerlily"),
        "asparagus family": ("bluebell", "lily-valley"),
        "asparagus order": ("asparagus family", "iris"),
        "one seed leaf": ("lilies", "asparagus order"),
        "flower": ("two seed leaves", "one seed leaf"),
    },
    "cifar10": {
        "pet": ("cat", "dog"),
        "hoofed": ("deer", "horse"),
        "mammal": ("pet", "hoofed"),
        "animal": ("mammal", "bird", "frog"),
        "road": ("automobile", "truck"),
        "vehicle": ("road", "airplane", "ship"),
        "thing": ("animal", "vehicle"),
    },
}
IMAGES = {"flowers12": None, "cifar10": 5000}
"""Training images that are used, of all."""
SPREAD = {"flowers12": 0.05, "cifar10": 0.0}
"""How much the mean severity moves by chance: of `flowers12` about twenty mistakes a seed are weighed."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A teacher's answers on the test split: (N,) whether each is right, and how far it is from the truth."""

    right: NDArray[np.bool_]
    apart: NDArray[np.float64]

    @property
    def severity(self) -> float:
        """The mean distance of the mistakes."""
        return float(self.apart[~self.right].mean())


def taught(
    source: Path, tree: Path, loss: RelationLoss, seed: int, folder: Path, images: int | None
) -> Found:
    """A head on the backbone's features, trained by a loss, and what it answers."""
    recipe = config.parse(
        {
            "seed": seed,
            "data": {"source": str(source), "max_train_images": images},
            "labels": {"tree": str(tree), "loss": loss},
            "preprocess": {"size": SIZE},
            "train": {"strategy": "head", "epochs": EPOCHS},
        }
    )
    record = pipeline.run(recipe, folder, until=Stage.TRAIN).records[Stage.TRAIN]
    model, _ = checkpoint.load(folder / record.checkpoint)
    index, own = build_index(recipe.data, seed=seed), pipeline.resolve(recipe).preprocess
    spec = PreprocessSpec(size=SIZE, mean=own.mean, std=own.std)
    test = index.split("test")
    truths = np.array([sample.label for sample in test])
    data = PixelSet(open_pixels(test, spec, folder.parent), truths, spec)
    # All these networks have one backbone, whose features are computed once.
    layers = backbones.classifier_names(model)[:1]
    features = compute(model, layers, data, folder.parent)
    answers = predict_outputs(head_of(model, layers, SIZE), features).argmax(axis=1)
    parents = {child: group for group, children in TREES[source.name].items() for child in children}
    apart = distances(Tree(parents=parents), index.labels)[truths, answers]
    found = Found(right=answers == truths, apart=apart)
    assert record.test.scores["label_distance"].value == pytest.approx(apart.mean())
    return found


def compared(source: Path, folder: Path, seeds: tuple[int, ...] = SEEDS) -> dict[RelationLoss, list[Found]]:
    """Teachers of each loss and seed, with their figures printed."""
    tree = folder / "tree.csv"
    rows = [f"{group},{child}" for group, children in TREES[source.name].items() for child in children]
    tree.write_text("\n".join(("parent,child", *rows)) + "\n", encoding="utf-8")
    found = {
        loss: [
            taught(source, tree, loss, seed, folder / f"{loss}-{seed}", IMAGES[source.name]) for seed in seeds
        ]
        for loss in RelationLoss
    }
    for loss, teachers in found.items():
        shown = ", ".join(f"{t.right.mean():.1%} and {t.severity:.3f}" for t in teachers)
        print(f"\n{source.name}, {loss}: top-1 and severity of mistakes {shown}", end="")
        if loss is not RelationLoss.PLAIN:
            paired = [against_plain(found, loss, at) for at in range(len(seeds))]
            print(f"; top-1 {', '.join(f'{p.difference:+.1%} (p {p.p_value:.2f})' for p in paired)}", end="")
    print(f"\nseeds {seeds}, {SIZE} px, {EPOCHS} epochs of the head")
    return found


def against_plain(found: dict[RelationLoss, list[Found]], loss: RelationLoss, at: int) -> PairedComparison:
    """A teacher image by image beside the plain one of its seed."""
    return compare_paired(found[RelationLoss.PLAIN][at].right, found[loss][at].right)


@pytest.mark.parametrize("name", TREES)
def test_mistakes_are_less_severe(real_set: RealSet, name: str, tmp_path: Path) -> None:
    found = compared(real_set(name).absolute(), tmp_path)
    severity = {loss: np.mean([t.severity for t in teachers]) for loss, teachers in found.items()}
    top1 = {loss: np.mean([t.right.mean() for t in teachers]) for loss, teachers in found.items()}
    plain, soft, hierarchical = RelationLoss
    # Soft labels pay for it in top-1; steps down the tree do not beyond chance, and win less.
    assert severity[soft] < severity[plain]
    assert top1[soft] > top1[plain] - 0.03
    assert severity[hierarchical] < severity[plain] + SPREAD[name]
    assert min(against_plain(found, hierarchical, at).p_value for at in range(len(SEEDS))) > 0.01
