"""Does the order in which `edgetl suggest` puts backbones hold once they are fine-tuned, and what does it save?

On each of three sets, ten backbones of one size that need no download: EfficientNet-Lite0, 1 and 2 with the weights of
their packages, each of them after fine-tuning on either of the other two sets, and Lite0 that learned from one other
set alone. They are ranked by probe and LogME, then all layers of each are fine-tuned and scored on the test images by
the ranking's metric. Many come out alike, so it also says how many of the pairs that the test images tell apart (a
paired test at 5%, first seed) stand in the right order, and the tau that the fine-tuned networks' own validation scores
reach. What is finished is kept under `.cache/bench/backbone-choice` (`EDGETL_BENCH_CACHE`), and a run that was stopped
goes on. `EDGETL_BENCH_SEEDS` names the seeds of fine-tuning (default `0`), `EDGETL_BENCH_SETS` the sets that are ranked
for (default all), `EDGETL_BENCH_IMAGES` the labelled images at most. About an hour on one core.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

from edgetl import config, pipeline
from edgetl.data import index as indexes
from edgetl.data.build import index_of
from edgetl.data.pixels import open_pixels
from edgetl.files import read_json, write_json
from edgetl.inputs.spec import PreprocessSpec
from edgetl.models import backbones, checkpoint
from edgetl.pipeline import Stage
from edgetl.records.codec import from_json
from edgetl.records.scores import value
from edgetl.records.train import TrainRecord
from edgetl.records.transfer import BackboneRanking
from edgetl.train.compare import compare
from edgetl.train.evaluate import predict_outputs
from edgetl.train.tasks.all import training_task
from edgetl.transfer import stage
from edgetl.transfer.networks import Source
from edgetl.transfer.stage import RankingConfig
from tests.bench.claims import Claim, at_least, at_most
from tests.bench.steps import Spoken, code_sha256, kept, named_seeds, say
from tests.real_sets import unpacked

FAMILY = "backbone-choice"
SETS = ("cifar10", "flowers12", "magnetic_tile")
BACKBONES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
SIZE, EPOCHS, ALONE_EPOCHS = 64, 8, 20
HEAD_EPOCHS = 1
"""A head that learned for longer is often kept as it is, and then ten backbones are three."""
TESTED = 1000
"""Test images of a set at most."""
AIM = 0.6


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """A candidate after fine-tuning.

    Attributes:
        origin: where its weights came from.
        scores: on the test images by the ranking's metric, of each seed (0..1).
        val: the same on the validation images, by which epochs were chosen.
        minutes: of all seeds together.
    """

    origin: str
    scores: tuple[float, ...]
    val: tuple[float, ...]
    minutes: float


def run() -> Iterator[Claim]:
    """Yield the claims."""
    absent = {name: reason for name in BACKBONES if (reason := backbones.absence(name)) is not None}
    folders = {name: unpacked(name) for name in SETS}
    for name in absent or [name for name, folder in folders.items() if folder is None]:
        reason = absent.get(name, f"EDGETL_DATA names no folder with {name}")
        yield Claim(name=name, measured=f"not measured: {reason}")
        return
    images, seeds = int(os.environ.get("EDGETL_BENCH_IMAGES", "600")), named_seeds("0")
    study = _Study(
        home=kept(FAMILY, f"{images}-{code_sha256()[:12]}").absolute(),
        tables={name: folder for name, folder in folders.items() if folder is not None},
        images=images,
    )
    for name in os.environ.get("EDGETL_BENCH_SETS", ",".join(SETS)).split(","):
        ranking = study.ranked(name)
        tuned = [
            study.tuned(name, Source(backbone=one.backbone, weights=one.weights), ranking.metric, seeds)
            for one in ranking.candidates
        ]
        yield from judged(ranking, tuned, study.distinct(name, ranking, seeds[0]))


def judged(
    ranking: BackboneRanking, tuned: Sequence[Tuned], distinct: Sequence[tuple[int, int]]
) -> Iterator[Claim]:
    """What the ranking was worth.

    Args:
        ranking: the candidates, the first ranked first.
        tuned: how they came out, in the same order.
        distinct: places of two of which the first came out better, beyond what chance does.
    """
    subject, metric = f"{ranking.source}, {len(tuned)} backbones", ranking.metric
    for one, own in zip(ranking.candidates, tuned, strict=True):
        scores = " and ".join(f"{share:.2%}" for share in own.scores)
        said = (
            f"probe {one.score.value:.1%}, LogME {one.logme:.3f}, fine-tuned {scores}, {own.minutes:.1f} min"
        )
        yield Claim(name=f"{ranking.source}: {one.backbone}, {own.origin}", measured=said)
    after = [statistics.mean(own.scores) for own in tuned]
    probes = [one.score.value for one in ranking.candidates]
    yield at_least(f"{subject}: Kendall's tau of probe and fine-tuned {metric}", _tau(probes, after), AIM, "")
    evidence = _tau([one.logme for one in ranking.candidates], after)
    yield Claim(name=f"{subject}: Kendall's tau of LogME and fine-tuned {metric}", measured=f"{evidence:.3g}")
    known = _tau([statistics.mean(own.val) for own in tuned], after)
    yield Claim(
        name=f"{subject}: Kendall's tau of the fine-tuned networks' own validation and test {metric}",
        measured=f"{known:.3g}",
    )
    right = sum(probes[better] > probes[worse] for better, worse in distinct)
    pairs = len(tuned) * (len(tuned) - 1) // 2
    yield Claim(
        name=f"{subject}: of the pairs that the test images tell apart, in the probe's order",
        measured=f"{right} of {len(distinct)} ({pairs} pairs)",
    )
    behind = 100 * (max(after) - after[ranking.proposed])
    yield Claim(name=f"{subject}: points of the proposed one behind the best", measured=f"{behind:.2f}")
    minutes = sum(own.minutes for own in tuned)
    spent = ranking.seconds / 60
    yield at_least(f"{subject}: minutes saved over fine-tuning all of them", minutes - spent, 0, " min")
    yield at_most(f"{subject}: seconds that the ranking took", ranking.seconds, 120, " s")


def _tau(first: Sequence[float], second: Sequence[float]) -> float:
    """Kendall's rank correlation, tau-b: -1 to 1, ties counted for neither side."""
    return float(kendalltau(first, second).statistic)


@dataclass(frozen=True, kw_only=True)
class _Study:
    """What is trained and ranked, and where it is kept.

    Attributes:
        home: the folder.
        tables: each set's folder.
        images: labelled images of a set at most.
    """

    home: Path
    tables: dict[str, Path]
    images: int

    def ranked(self, name: str) -> BackboneRanking:
        """The ten backbones of a set, as `edgetl suggest` ranks them."""
        path = self.home / f"{name}.json"
        if not path.exists():
            others = [other for other in SETS if other != name]
            sources = [Source(backbone=backbone) for backbone in BACKBONES]
            for other, first in itertools.product(others, tuple(sources)):
                sources.append(Source(backbone=first.backbone, weights=str(self._run(other, first, 0)[0])))
            alone = Source(backbone=BACKBONES[0], weights=backbones.NO_WEIGHTS)
            sources.append(Source(backbone=BACKBONES[0], weights=str(self._run(others[0], alone, 0)[0])))
            recipe = self._recipe(name, 0, alone)
            asked = RankingConfig(sources=tuple(sources), sizes=(SIZE,), images=self.images)
            index = index_of(recipe.data, seed=0)
            write_json(path, stage.run(asked, index, recipe.preprocess, source=name, progress=Spoken()))
        return read_json(path, BackboneRanking)

    def tuned(self, name: str, source: Source, metric: str, seeds: Sequence[int]) -> Tuned:
        """Fine-tune a backbone for each seed, or what is kept of it."""
        scores, val, minutes = list[float](), list[float](), 0.0
        for seed in seeds:
            _, record = self._run(name, source, seed)
            assert record.test is not None
            scores.append(value(record.test, metric))
            val.append(value(record.val, metric))
            minutes += record.seconds / 60
        say(f"{name}: {source.backbone}, {self._origin(source)}: {statistics.mean(scores):.2%}")
        return Tuned(origin=self._origin(source), scores=tuple(scores), val=tuple(val), minutes=minutes)

    def distinct(self, name: str, ranking: BackboneRanking, seed: int) -> list[tuple[int, int]]:
        """Places in the ranking of two candidates of which the first came out better by a paired test at 5%."""
        sources = [Source(backbone=one.backbone, weights=one.weights) for one in ranking.candidates]
        runs = [self._run(name, source, seed)[0] for source in sources]
        index = indexes.load(runs[0].parents[1] / "data" / "index.json")
        spec = from_json(PreprocessSpec, json.loads(checkpoint.read_metadata(runs[0])[checkpoint.SPEC]))
        task, samples = training_task(index.task), index.split("test")
        pixels = np.asarray(open_pixels(samples, spec, runs[0].parents[1] / "data" / "pixels"))
        outputs = [predict_outputs(checkpoint.load(run)[0], (pixels, spec)) for run in runs]
        targets = task.targets(samples, spec)
        return [
            (better, worse)
            for better, worse in itertools.permutations(range(len(runs)), 2)
            if compare(task, ranking.metric, targets, outputs[worse], outputs[better], seed=seed).helped
        ]

    def _origin(self, source: Source) -> str:
        """What its weights learned from: `pretrained`, `none`, or another set, and that after which of these."""
        if source.weights in (backbones.PRETRAINED, backbones.NO_WEIGHTS):
            return source.weights
        return Path(source.weights).relative_to(self.home).parts[0].rpartition("-")[0]

    def _run(self, name: str, source: Source, seed: int) -> tuple[Path, TrainRecord]:
        """A backbone's checkpoint after fine-tuning on a set, and the record."""
        folder = self.home / f"{name}-{source.backbone}-{self._origin(source)}-{seed}"
        path = folder / "trained.json"
        if not path.exists():
            recipe = self._recipe(name, seed, source)
            record: TrainRecord = pipeline.run(recipe, folder, until=Stage.TRAIN, progress=Spoken()).records[
                Stage.TRAIN
            ]
            write_json(path, record)
        record = read_json(path, TrainRecord)
        return folder / record.checkpoint, record

    def _recipe(self, name: str, seed: int, source: Source) -> config.Recipe:
        epochs = ALONE_EPOCHS if source.weights == backbones.NO_WEIGHTS else EPOCHS
        return config.parse(
            {
                "name": name,
                "seed": seed,
                "data": {"source": str(self._table(name)), "max_train_images": self.images},
                "preprocess": {"size": SIZE, "crop_fraction": 1.0},
                "train": {
                    "backbone": source.backbone,
                    "weights": source.weights,
                    "head_epochs": HEAD_EPOCHS,
                    "epochs": epochs,
                },
            }
        )

    def _table(self, name: str) -> Path:
        """The set's folder, or of a large set a table with an even draw of its images."""
        limits = {"train": 2 * self.images, "test": TESTED}
        found = {split: sorted(self.tables[name].glob(f"{split}/*/*")) for split in limits}
        if len(found["train"]) <= limits["train"]:
            return self.tables[name]
        rows = [
            f"{image.absolute()},{image.parent.name},{split}"
            for split, images in found.items()
            for image in images[:: max(1, len(images) // limits[split])]
        ]
        path = self.home / f"{name}.csv"
        path.write_text("\n".join(["path,label,split", *rows, ""]), encoding="utf-8")
        return path
