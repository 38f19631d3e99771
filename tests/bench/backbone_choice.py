"""Does the order in which `edgetl suggest` puts backbones hold once they are fine-tuned, and what does it save?

Backbones whose weights are on this machine are ranked for 1,000 labelled images of CIFAR-10 by probe and LogME, then
each is fine-tuned with the default settings and scored on all 10,000 test images. With eight backbones or more all are
looked at in one size, else each in four, and the pairs of one size are also counted by themselves: that larger inputs
do better is no news. What is finished is kept under `.cache/bench/backbone-choice` (`EDGETL_BENCH_CACHE`), and a run
that was stopped goes on. `EDGETL_BENCH_SEEDS` names the seeds of fine-tuning (default `0`), `EDGETL_BENCH_IMAGES` the
labelled images. About an hour on two cores with three backbones.
"""

from __future__ import annotations

import itertools
import os
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy.stats import kendalltau

from edgetl import config, pipeline
from edgetl.data.build import index_of
from edgetl.files import read_json, write_json
from edgetl.models import backbones
from edgetl.pipeline import Stage
from edgetl.records.scores import value
from edgetl.records.train import TrainRecord
from edgetl.records.transfer import BackboneRanking, Candidate
from edgetl.transfer import stage
from edgetl.transfer.networks import Source
from edgetl.transfer.stage import RankingConfig
from tests.bench.claims import Claim, at_least, at_most
from tests.bench.steps import Spoken, code_sha256, kept, say
from tests.real_sets import unpacked

FAMILY, DATA, EPOCHS = "backbone-choice", "cifar10", 5
BACKBONES = (
    *backbones.SMALL,
    "mobilenetv3_small_100",
    "mobilenetv2_100",
    "regnety_004",
    "resnet18",
    "resnet34",
)
ENOUGH, ONE_SIZE, SIZES = 8, (96,), (48, 64, 96, 128)
AIM = 0.6


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """A candidate after fine-tuning: test top-1 of each seed (0..1), and the minutes of all seeds together."""

    top1: tuple[float, ...]
    minutes: float


def run() -> Iterator[Claim]:
    """Yield the claims."""
    source = unpacked(DATA)
    if source is None:
        yield Claim(name=DATA, measured=f"not measured: EDGETL_DATA names no folder with {DATA}")
        return
    there = [name for name in BACKBONES if backbones.absence(name) is None]
    sizes = ONE_SIZE if len(there) >= ENOUGH else SIZES
    images = int(os.environ.get("EDGETL_BENCH_IMAGES", "1000"))
    seeds = [int(seed) for seed in os.environ.get("EDGETL_BENCH_SEEDS", "0").split(",")]
    home = kept(FAMILY, f"{images}-{code_sha256()[:12]}")
    ranking = _ranked(home, source, images, there, sizes)
    tuned = []
    for one in ranking.candidates:
        tuned.append(_tuned(home, source, images, one, seeds))
        say(f"{one.name}: probe {one.score.value:.1%}, fine-tuned {statistics.mean(tuned[-1].top1):.2%}")
    yield from judged(ranking, tuned)


def judged(ranking: BackboneRanking, tuned: Sequence[Tuned]) -> Iterator[Claim]:
    """What the ranking was worth, by how its candidates came out, in the same order."""
    for one, own in zip(ranking.candidates, tuned, strict=True):
        top1 = " and ".join(f"{share:.2%}" for share in own.top1)
        said = f"probe {one.score.value:.1%}, LogME {one.logme:.3f}, fine-tuned {top1}, {own.minutes:.1f} min"
        yield Claim(name=one.name, measured=said)
    after = [statistics.mean(own.top1) for own in tuned]
    probes = [one.score.value for one in ranking.candidates]
    named = len({one.backbone for one in ranking.candidates})
    subject = f"{DATA}, {len(after)} candidates of {named} backbones"
    yield at_least(f"{subject}: Kendall's tau of probe and fine-tuned top-1", _tau(probes, after), AIM, "")
    evidence = _tau([one.logme for one in ranking.candidates], after)
    yield Claim(name=f"{subject}: Kendall's tau of LogME and fine-tuned top-1", measured=f"{evidence:.3g}")
    yield from _of_one_size(ranking.candidates, after)
    behind = 100 * (max(after) - after[ranking.proposed])
    yield Claim(name=f"{ranking.choice.name}, proposed: points behind the best", measured=f"{behind:.2f}")
    minutes = sum(own.minutes for own in tuned)
    spent = ranking.seconds / 60
    yield at_least(f"{subject}: minutes saved over fine-tuning all of them", minutes - spent, 0, " min")
    yield at_most(f"{subject}: seconds that the ranking took", ranking.seconds, 120, " s")


def _of_one_size(candidates: Sequence[Candidate], after: Sequence[float]) -> Iterator[Claim]:
    """How many pairs of candidates of one size stand in the order of their fine-tuned scores."""
    pairs = [
        (first.score.value - second.score.value) * (own - other)
        for (first, own), (second, other) in itertools.combinations(zip(candidates, after, strict=True), 2)
        if first.size == second.size
    ]
    right, wrong = sum(product > 0 for product in pairs), sum(product < 0 for product in pairs)
    said = f"{right} of {len(pairs)} pairs in order, {wrong} in reverse, the others tie"
    yield Claim(name=f"{DATA}: backbones of one size", measured=said)


def _tau(first: Sequence[float], second: Sequence[float]) -> float:
    """Kendall's rank correlation, tau-b: -1 to 1, ties counted for neither side."""
    return float(kendalltau(first, second).statistic)


def _recipe(source: Path, images: int, seed: int, **train: object) -> dict[str, object]:
    data = {"source": str(source), "max_train_images": images}
    return {"name": DATA, "seed": seed, "data": data, "train": {"epochs": EPOCHS, **train}}


def _ranked(
    home: Path, source: Path, images: int, names: Sequence[str], sizes: tuple[int, ...]
) -> BackboneRanking:
    path = home / "ranking.json"
    if path.exists():
        return read_json(path, BackboneRanking)
    recipe = config.parse({**_recipe(source, images, 0), "preprocess": {"crop_fraction": 1.0}})
    index = index_of(recipe.data, seed=0)
    asked = RankingConfig(sources=tuple(Source(backbone=name) for name in names), sizes=sizes)
    found = stage.run(asked, index, recipe.preprocess, source=DATA, progress=Spoken())
    write_json(path, found)
    return found


def _tuned(home: Path, source: Path, images: int, one: Candidate, seeds: Sequence[int]) -> Tuned:
    """Fine-tune a candidate for each seed, or what is kept of it."""
    top1, minutes = list[float](), 0.0
    for seed in seeds:
        path = home / f"{one.backbone.replace('/', '-')}-{one.size}-{seed}.json"
        if not path.exists():
            values = _recipe(source, images, seed, backbone=one.backbone)
            recipe = config.parse({**values, "preprocess": {"size": one.size, "crop_fraction": 1.0}})
            folder = home / "runs" / path.stem
            record: TrainRecord = pipeline.run(recipe, folder, until=Stage.TRAIN, progress=Spoken()).records[
                Stage.TRAIN
            ]
            assert record.test is not None
            write_json(path, Tuned(top1=(value(record.test, "top1"),), minutes=record.seconds / 60))
        own = read_json(path, Tuned)
        top1 += own.top1
        minutes += own.minutes
    return Tuned(top1=tuple(top1), minutes=minutes)
