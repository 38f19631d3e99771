"""Real sets without some of their classes, which a model then meets as unknown, or learns on the device from few
pictures; and the runs on what is left, one per set and session."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

from edgetl import pipeline
from edgetl.pipeline import Outcome
from tests.slow.test_real_sets import RealSet, recipe_for


@dataclass(frozen=True, kw_only=True)
class Part:
    """Of a set: a folder in it, the classes that are left out, which were drawn, and settings of its data."""

    folder: str = "."
    classes: tuple[str, ...]
    data: Mapping[str, object] = field(default_factory=dict)


SETS = {
    "flowers12": Part(classes=("buttercup", "colts-foot", "dandelion", "sunflower", "tigerlily")),
    "office_caltech10": Part(
        folder="caltech10",
        classes=("bike", "headphones", "laptop", "mug", "projector"),
        data={"test_fraction": 0.4},
    ),
    "cifar10": Part(classes=("bird", "cat", "frog", "ship", "truck"), data={"max_train_images": 5000}),
}


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A run on a set without some classes.

    Attributes:
        known: the set without them.
        unknown: a folder with them, SPLIT/CLASS or CLASS.
        classes: they, in the order of their names.
        folder: of the run.
        outcome: of the run.
    """

    known: Path
    unknown: Path
    classes: tuple[str, ...]
    folder: Path
    outcome: Outcome

    @property
    def bundle(self) -> Path:
        """What shipped."""
        assert self.outcome.bundle is not None
        return self.outcome.bundle


Runs = Callable[[str], LeftOut]


def runs(real_set: RealSet, factory: pytest.TempPathFactory) -> Runs:
    """A function from a set's name to its run, as `edgetl init` would have it, which is made once."""

    @cache
    def made(name: str) -> LeftOut:
        part, folder = SETS[name], factory.mktemp(name)
        source = real_set(name) / part.folder
        known, unknown = folder / "known" / source.name, folder / "unknown"
        for classes in sorted(
            path for path in source.glob("**/*") if path.is_dir() and any(path.glob("*.jpg"))
        ):
            home = unknown if classes.name in part.classes else known
            shutil.copytree(classes, home / classes.relative_to(source))
        outcome = pipeline.run(recipe_for(known, **part.data), folder / "run")
        return LeftOut(
            known=known, unknown=unknown, classes=part.classes, folder=folder / "run", outcome=outcome
        )

    return made
