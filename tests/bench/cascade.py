"""Is a small student with a larger one behind it as often right as the larger one alone, in 0.6 of its time?

The small one is the student of `headline` on `cifar10`, 64 px and cut; the larger one has the teacher's network,
EfficientNet-Lite2 at 96 px, whole, and learned from the same teacher and the same images. Of 4,000 test images half
choose the threshold and the others judge. The students are kept (`EDGETL_BENCH_CACHE`);
`EDGETL_BENCH_BUNDLES=small.edgetl,large.edgetl` names two others of the same classes. A quarter of an hour on two cores
after `headline`, whose run it goes on with, and an hour and a half without. `EDGETL_BENCH_SEEDS` names the seed.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

from edgetl import pipeline
from edgetl.cascade import stage
from edgetl.cascade.stage import CascadeConfig
from edgetl.cascade.threshold import is_worse
from edgetl.config import Recipe
from edgetl.process import usable_cores
from edgetl.records.cascade import CascadeRecord
from edgetl.search.trials import link_stages
from tests.bench.claims import Claim, at_most
from tests.bench.headline import SETS, Settings, folder_of, recipe_for
from tests.bench.steps import Spoken, kept, named_seeds, say
from tests.real_sets import unpacked

FAMILY, DATA = "cascade", "cifar10"
PER_CLASS = 400
AIM = 0.6
LARGE: Settings = {
    "prune": {"enabled": False},
    "distill": {"size": 96, "epochs": 2, "unlabelled": "train", "unlabelled_share": 0.75},
}


def run() -> Iterator[Claim]:
    """Yield the claims."""
    source = unpacked(DATA)
    if source is None:
        yield Claim(name=DATA, measured=f"not measured: EDGETL_DATA names no folder with {DATA}")
        return
    home = kept(FAMILY)
    named = os.environ.get("EDGETL_BENCH_BUNDLES")
    small, large = map(Path, named.split(",")) if named else _students(source, home)
    data = _images(source, home)
    for threads in dict.fromkeys((usable_cores(), 1)):
        out = home / "both.edgetl"
        out.unlink(missing_ok=True)
        asked = CascadeConfig(small=small, large=large, data=data, out=out, threads=threads, runs=2000)
        record = stage.run(asked, progress=Spoken())
        if threads == usable_cores():
            yield from judged(record)
        yield from timed(record)


def judged(record: CascadeRecord) -> Iterator[Claim]:
    """How often a cascade was right."""
    found = record.cascade
    top1 = ", ".join(
        f"{name} {score.value:.2%}"
        for name, score in (("small", found.small.top1), ("large", found.large.top1), ("cascade", found.top1))
    )
    yield Claim(name=f"{DATA}, {found.judged_on} images: top-1", measured=top1)
    yield Claim(
        name="not worse than the larger one (McNemar's exact test)",
        measured=f"{found.lost} lost, {found.won} won, p = {found.p_value:.2g}",
        aim="p >= 0.05, or more won",
        holds=not is_worse(found),
    )
    yield Claim(name="handed on", measured=f"{found.handed_on:.1%}")


def timed(record: CascadeRecord) -> Iterator[Claim]:
    """How long a cascade took."""
    ours, alone = record.latency, record.cascade.large_latency
    where = "1 thread" if ours.threads == 1 else f"{ours.threads} threads"
    yield at_most(f"{where}: mean latency over the larger one's", ours.mean_ms / alone.mean_ms, AIM, "x")
    yield Claim(
        name=f"{where}: mean and p99 latency",
        measured=f"{ours.mean_ms:.3g} and {ours.p99_ms:.3g} ms; the larger one's {alone.mean_ms:.3g} and"
        f" {alone.p99_ms:.3g} ms",
    )


def _students(source: Path, home: Path) -> tuple[Path, Path]:
    """The bundles of the small student and the larger one; trained where they are not kept."""
    seed, shared = named_seeds("0")[0], SETS[DATA]
    own, whole = folder_of(DATA, seed), home / f"large-{seed}"
    small = _student("small", recipe_for(source, shared, seed), own)
    link_stages(own, whole)  # the same teacher
    return small, _student("large", recipe_for(source, {**shared, **LARGE}, seed), whole)


def _student(name: str, recipe: Recipe, folder: Path) -> Path:
    say(f"the {name} student")
    bundle = pipeline.run(recipe, folder, progress=Spoken()).bundle
    assert bundle is not None
    return bundle


def _images(source: Path, home: Path) -> Path:
    """A table of the test images that choose and judge."""
    path = home / "images.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("path", "label"))
        for folder in sorted((source / "test").iterdir()):
            table.writerows((image, folder.name) for image in sorted(folder.iterdir())[:PER_CLASS])
    return path
