"""Is a small student with a larger one behind it as often right as the larger one alone, in 0.6 of its time?

Two students of 1,500 labelled images of CIFAR-10, of 48 px and of 96 px, become a cascade by 4,000 of the test images:
half of them choose the threshold, the others judge. The students are kept under `.cache/bench/cascade`
(`EDGETL_BENCH_CACHE`); `EDGETL_BENCH_BUNDLES=small.edgetl,large.edgetl` names two others of the same classes. Under 40
minutes on two cores.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from edgetl import pipeline
from edgetl.cascade import stage
from edgetl.cascade.stage import CascadeConfig
from edgetl.cascade.threshold import is_worse
from edgetl.distill.stage import CHECKPOINT
from edgetl.pipeline import Stage
from edgetl.process import usable_cores
from edgetl.records.cascade import CascadeRecord
from tests.bench.claims import Claim, at_most
from tests.bench.headline import recipe_for
from tests.bench.steps import Spoken, kept, say
from tests.real_sets import unpacked

FAMILY, DATA = "cascade", "cifar10"
TRAINED, PER_CLASS = 1500, 400
AIM = 0.6
UNLABELLED = {"unlabelled": "train", "unlabelled_share": 0.75}
LARGE: dict[str, dict[str, object]] = {
    "prune": {"enabled": False},
    "distill": {"size": 96, "epochs": 4, **UNLABELLED},
}
SMALL: dict[str, dict[str, object]] = {
    "prune": {"target_macs": 0.35, "steps": 2, "max_drop": 0.3},
    "distill": {"size": 48, "epochs": 16, **UNLABELLED},
}
"""Both also learn what their teachers say of the other training images, whose labels nobody sees. The larger student is
one of the small one's: the nearer that comes to it, the fewer images are handed on."""


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
    large = _student("large", source, home, LARGE)
    teachers = [str(home / "large" / Stage.DISTILL / CHECKPOINT)]
    small = {**SMALL, "distill": {**SMALL["distill"], "teachers": teachers}}
    return _student("small", source, home, small), large


def _student(name: str, source: Path, home: Path, own: Mapping[str, Mapping[str, object]]) -> Path:
    say(f"the {name} student")
    settings = {
        "data": {"max_train_images": TRAINED},
        "preprocess": {"size": 96, "crop_fraction": 1.0},
        "train": {"epochs": 4},
        **own,
    }
    bundle = pipeline.run(recipe_for(source, settings, 0), home / name, progress=Spoken()).bundle
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
