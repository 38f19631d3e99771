"""How many exposures of one tile `data check` finds across a random split, and how fast it looks at CIFAR-10."""

from __future__ import annotations

import os
import random
import re
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgetl import config
from edgetl.data.audit import audit
from edgetl.data.index import build_index

pytestmark = pytest.mark.slow

GAP = 30
"""Frame numbers of one tile's exposures are at most so far apart."""


@dataclass
class Share:
    """Of the scored things that have an exposure in a split before theirs, those that were pointed out."""

    found: int
    all: int

    def __str__(self) -> str:
        return f"{self.found} of {self.all} ({self.found / self.all:.0%})"


def tiles(root: Path) -> dict[Path, int]:
    """Each image's tile, by the frame numbers in the names."""
    frames: defaultdict[str, list[tuple[int, Path]]] = defaultdict(list)
    for path in root.rglob("*.jpg"):
        number = re.search(r"_num_(\d+)", path.name)
        assert number is not None
        frames[path.parent.name].append((int(number[1]), path))
    found: dict[Path, int] = {}
    for several in frames.values():
        before, current = -GAP - 1, len(found)
        for number, path in sorted(several):
            if number - before > GAP:
                current = len(found)  # a number that no earlier tile has
            found[path], before = current, number
    return found


def test_exposures_across_a_random_split(real_set: Callable[[str], Path], tmp_path: Path) -> None:
    tile = tiles(real_set("magnetic_tile"))
    paths = sorted(tile)
    random.Random(0).shuffle(paths)
    scored = len(paths) * 3 // 20
    splits = (
        dict.fromkeys(paths, 0)
        | dict.fromkeys(paths[:scored], 2)
        | dict.fromkeys(paths[scored : 2 * scored], 1)
    )
    names = ("train", "val", "test")
    rows = [f"{path},{path.parent.name},{names[split]}" for path, split in splits.items()]
    (tmp_path / "tiles.csv").write_text("\n".join(["path,label,split", *rows]))
    index = build_index(config.parse({"data": {"source": str(tmp_path / "tiles.csv")}}).data)
    near = audit(index).near_duplicates
    stated = {index.root / pair.second: index.root / pair.first for pair in near}
    first: dict[int, int] = {}
    for path, split in splits.items():
        first[tile[path]] = min(split, first.get(tile[path], 2))
    leaked = [path for path, split in splits.items() if split > first[tile[path]]]
    right = [path for path in leaked if path in stated and tile[stated[path]] == tile[path]]
    images = Share(len(right), len(leaked))
    groups = Share(len({tile[path] for path in right}), len({tile[path] for path in leaked}))
    print(f"images with an exposure in another split that are pointed out: {images}")
    print(f"tiles across splits of which one pair at least is pointed out: {groups}")
    assert images.found > images.all * 0.4
    assert groups.found > groups.all * 0.5


def test_cifar10_is_checked_in_a_minute(real_set: Callable[[str], Path]) -> None:
    started, before = time.monotonic(), os.times()
    report = audit(build_index(config.parse({"data": {"source": str(real_set("cifar10"))}}).data))
    used = sum(os.times()[:2]) - sum(before[:2])
    print(f"60,000 images: {time.monotonic() - started:.0f} s, {used:.0f} s of processor time")
    assert report.images == 60_000
    assert used < 120  # a minute on two cores; the clock would depend on what else runs
