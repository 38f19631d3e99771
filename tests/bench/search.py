"""Does `edgetl search` find better models than random search and a grid of pruning ratios do in the same time?

On `flowers12`, and on 1,500 labelled images of `cifar10` at 64 px, the recipe that `edgetl init` writes is run first.
Its student's latency times 0.75 is the budget of three searches of equal minutes: by TPE with its first guesses and
corrections, at random, and a grid, for which the teacher is pruned to even shares and run to the end in order, the
largest share first, until one holds the budget or the minutes are over. Where minutes are left, that share is run again
with as many of the recipe's epochs of distillation as fit, at most as many as a search takes. All share one teacher,
whose training takes none of the minutes. Latencies are compared side by side. Scores: top-1 on the test images, by
which nothing is chosen; paired tests on them say whether the searched model is worse than the others. Last, what share
of the machine's INT8 peak both reach on one thread.

What is finished is kept under `.cache/bench/search` (`EDGETL_BENCH_CACHE`), and a search that was stopped goes on.
`EDGETL_BENCH_SETS` names the sets (default both), `EDGETL_BENCH_MINUTES` the minutes of each search (default 60),
`EDGETL_BENCH_SEEDS` the seeds (default `0`). About three hours per set and seed on two cores.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import edgetl
from edgetl import config, pipeline
from edgetl.bench import stage as benching
from edgetl.bench.scenarios import BenchOptions
from edgetl.bench.threads import numbers_of
from edgetl.bundle.archive import open_bundle
from edgetl.bundle.manifest import Precision
from edgetl.config import MacsTarget, Recipe
from edgetl.data.index import build_index
from edgetl.data.suggest import look, suggest
from edgetl.files import read_json, write_json
from edgetl.measure.stopwatch import share_of
from edgetl.measure.timing import TimedFile, times_of
from edgetl.pipeline import Stage
from edgetl.process import usable_cores
from edgetl.processor import computes
from edgetl.records.search import SearchRecord
from edgetl.report.run import RunReport, headline
from edgetl.search import stage
from edgetl.search.settings import RECORD, SearchConfig
from edgetl.search.teachers import RUN
from edgetl.search.trials import LATER, link_stages
from edgetl.statistics import compare_paired
from tests.bench.claims import Claim, at_least, at_most
from tests.bench.steps import Spoken, code_sha256, kept, named_seeds, say
from tests.real_sets import unpacked

FAMILY, SHARE, LEVEL = "search", 0.75, 0.05
_ROUNDS = 12
SETS: dict[str, dict[str, dict[str, object]]] = {
    "flowers12": {},
    "cifar10": {"data": {"max_train_images": 1500}, "preprocess": {"size": 64}},
}
SAMPLERS = ("tpe", "random")
GRID = (0.4, 0.3, 0.2, 0.1)
"""Around the share of 0.3 that the recipe of both sets aims for and, within its `prune.max_drop`, may not reach."""
ANY_DROP = 0.99
"""As in a search: pruning goes to the share whatever it costs, and `bundle.max_drop` decides what may ship."""


@dataclass(frozen=True, kw_only=True)
class Student:
    """A model: its bundle and variant, test top-1 (0..1), median milliseconds, minutes of its making from the teacher
    on and of what went before, candidates that were tried, and whether it holds the budget and the floor."""

    bundle: str
    variant: str
    top1: float
    ms: float
    minutes: float
    before: float
    tried: int
    holds: bool


def run() -> Iterator[Claim]:
    """Yield the claims."""
    for name in os.environ.get("EDGETL_BENCH_SETS", ",".join(SETS)).split(","):
        source = unpacked(name)
        if source is None:
            yield Claim(name=name, measured=f"not measured: EDGETL_DATA names no folder with {name}")
        else:
            yield from _searches(name, source)


def _searches(data: str, source: Path) -> Iterator[Claim]:
    minutes = float(os.environ.get("EDGETL_BENCH_MINUTES", "60"))
    found: dict[str, list[Student]] = {}
    for seed in named_seeds("0"):
        home = kept(FAMILY, f"{data}-{seed}-{minutes:g}-{code_sha256()[:12]}")
        recipe = _recipe(data, source, seed)
        taught = home / "default"
        default = _ordinary(recipe, taught, float("inf"))
        found.setdefault("default", []).append(default)
        say(f"{data}, seed {seed}, default: {_figures([default])}")
        budget = SHARE * default.ms
        for sampler in SAMPLERS:
            link_stages(taught, home / sampler / RUN)
            found.setdefault(sampler, []).append(_searched(recipe, home / sampler, sampler, budget, minutes))
            say(f"{data}, seed {seed}, {sampler}: {_figures(found[sampler][-1:])}")
        found.setdefault("grid", []).append(_grid(recipe, home / "grid", budget, taught, minutes))
        say(f"{data}, seed {seed}, grid: {_figures(found['grid'][-1:])}")
    ratios = []
    for at, seed in enumerate(named_seeds("0")):
        each = {name: students[at] for name, students in found.items() if students[at].bundle}
        default, tpe = each.pop("default"), each.get("tpe")
        over = {name: latency_ratio(default, one) for name, one in each.items()}
        for name, ratio in over.items():
            yield Claim(name=f"{data}, seed {seed}: latency of {name} over default", measured=f"{ratio:.2f}x")
        if tpe is None:
            continue
        ratios.append(over["tpe"])
        others = {"default": default} | {name: one for name, one in each.items() if name != "tpe"}
        for name, other in others.items():
            yield _paired(f"{data}, seed {seed}: not worse than {name}", source, other, tpe)
        yield _shares(f"{data}, seed {seed}", default, tpe)
    yield from judged(data, found, ratios)


def judged(data: str, found: dict[str, list[Student]], ratios: Sequence[float]) -> Iterator[Claim]:
    """What the searches came to beside the default recipe, and beside one another.

    Args:
        data: the set's name.
        found: students by how they were found, one a seed.
        ratios: latency of the searched one over the default one's, timed side by side.
    """
    for name, students in found.items():
        yield Claim(name=f"{data}, {name}", measured=_figures(students))
    default, tpe = found["default"], found["tpe"]
    if ratios:
        ratio = statistics.mean(ratios)
        yield at_most(f"{data}: latency over the default student's, side by side", ratio, SHARE, "x")
    for other in ("random", "grid"):
        yield at_least(f"{data}: test top-1 over {other}, points", _gain(tpe, found[other]), 0.0, "")
    whole = statistics.mean(own.before + one.minutes for one, own in zip(tpe, default, strict=True))
    yield at_most(f"{data}: teacher and search", whole, 60, " min")


def latency_ratio(default: Student, searched: Student) -> float:
    """The searched model's latency over the default student's: both take turns in one process, each with its better
    number of threads."""
    numbers = numbers_of(usable_cores())
    files = {}
    for name, one in (("default", default), ("searched", searched)):
        bundle = open_bundle(Path(one.bundle))
        size = bundle.manifest.preprocess.size
        files[name] = TimedFile(
            content=bundle.model(one.variant),
            size=size,
            threads=numbers,
            format=bundle.variant(one.variant).format,
        )
    timed = times_of(files, warm_rounds=1, rounds=_ROUNDS)
    own = min(timed["default"].values(), key=statistics.median)
    return min(share_of(samples, own, _ROUNDS) for samples in timed["searched"].values())


def _paired(name: str, source: Path, other: Student, searched: Student) -> Claim:
    """Whether the searched model is worse on the test images than another."""
    found = compare_paired(*(_right(one, source) for one in (other, searched)))
    return Claim(
        name=f"{name} (McNemar's exact test)",
        measured=f"{found.only_first} lost, {found.only_second} won, p = {found.p_value:.2g}",
        aim=f"p >= {LEVEL:g}, or more won",
        holds=found.p_value >= LEVEL or found.only_second > found.only_first,
    )


def _right(student: Student, source: Path) -> NDArray[np.bool_]:
    """(N,) which test images it answers right."""
    images = sorted((source / "test").glob("*/*"))
    with edgetl.load(student.bundle, variant=student.variant) as session:
        return np.array([session.predict(image).label == image.parent.name for image in images])


def _shares(name: str, default: Student, searched: Student) -> Claim:
    """What share of the machine's INT8 peak the two reach on one thread, in their fastest INT8 variant."""
    own, other = (_share(Path(one.bundle)) for one in (default, searched))
    return Claim(
        name=f"{name}: share of the INT8 peak, one thread",
        measured=f"default {own:.2%}, searched {other:.2%} ({other / own:.2f}x)",
        aim=">= 2x",
        holds=other >= 2 * own,
    )


def _share(bundle: Path) -> float:
    manifest = open_bundle(bundle).manifest
    fitting = [v for v in manifest.variants if v.precision is Precision.INT8 and computes(v.target)]
    variant = min(fitting, key=lambda v: v.latency.p50_ms if v.latency else float("inf"))
    inputs = benching.BenchInputs(bundle=bundle, variant=variant.name)
    record = benching.run(BenchOptions(threads=1, end_to_end=False), inputs, against_peaks=True)
    assert record.roofline is not None
    return record.roofline.of_peak


def _gain(first: Sequence[Student], second: Sequence[Student]) -> float:
    """Points of test top-1; a model that does not hold the budget counts as none."""
    return 100 * (_mean(first) - _mean(second))


def _mean(students: Sequence[Student]) -> float:
    return statistics.mean(one.top1 if one.holds else 0.0 for one in students)


def _figures(students: Sequence[Student]) -> str:
    each = (
        f"{one.top1:.2%} in {one.ms:.3f} ms, {one.tried} tried in {one.minutes:.0f} min"
        f"{'' if one.holds else ', over the budget or below the floor'}"
        for one in students
    )
    return "; ".join(each)


def _recipe(data: str, source: Path, seed: int) -> Recipe:
    """What `edgetl init` would write, and the set's own settings."""
    values = {"data": {"source": str(source)}}
    for section, own in SETS[data].items():
        values.setdefault(section, {}).update(own)
    for item in suggest(look(build_index(config.DataConfig.model_validate(values["data"])))):
        section, _, key = item.key.partition(".")
        values.setdefault(section, {}).setdefault(key, item.value)
    return config.parse({"name": data, "seed": seed, **values})


def _ordinary(recipe: Recipe, folder: Path, budget_ms: float) -> Student:
    path = folder / "student.json"
    if not path.exists():
        outcome = pipeline.run(recipe, folder, progress=Spoken())
        report = outcome.report
        assert report is not None
        shipped = headline(report).shipped
        assert shipped.test is not None
        ms, seconds = shipped.latency.p50_ms, report.stage_seconds
        student = Student(
            bundle=str(outcome.bundle),
            variant=shipped.name,
            top1=shipped.test.scores["top1"].value,
            ms=ms,
            minutes=sum(s for stage, s in seconds.items() if stage in LATER) / 60,
            before=sum(s for stage, s in seconds.items() if stage not in LATER) / 60,
            tried=1,
            holds=report.measure.floor_met and ms <= budget_ms,
        )
        write_json(path, student)
    return read_json(path, Student)


def _searched(recipe: Recipe, folder: Path, sampler: str, budget_ms: float, minutes: float) -> Student:
    if not (folder / "done").exists():
        asked = SearchConfig(latency_ms=budget_ms, minutes=minutes, sampler=sampler, anyway=True)
        stage.run(asked, recipe, folder, progress=Spoken())
        (folder / "done").touch()
    record = read_json(folder / RECORD, SearchRecord)
    chosen = record.chosen
    none = chosen is None or chosen.test is None
    return Student(
        bundle="" if chosen is None else str(folder / chosen.bundle),
        variant="" if chosen is None else chosen.variant,
        top1=0.0 if none else chosen.test.value,
        ms=0.0 if chosen is None else chosen.latency_ms,
        minutes=record.seconds / 60,
        before=0.0,
        tried=len(record.trials),
        holds=record.holds,
    )


def _grid(recipe: Recipe, folder: Path, budget_ms: float, taught: Path, minutes: float) -> Student:
    """The teacher pruned to even shares, the largest first, until one is fast enough or the time is over; then the
    last, or the same with a longer distillation where its score on the validation split is no lower."""
    spent, tried = 0.0, 0

    def ran(share: float, times: int) -> tuple[Student, RunReport]:
        nonlocal spent, tried
        own = folder / f"{share:g}-{times}"
        prune = recipe.prune.model_copy(update={"target": MacsTarget(share=share), "max_drop": ANY_DROP})
        distill = recipe.distill.model_copy(update={"epochs": times * recipe.distill.epochs})
        link_stages(taught, own)
        student = _ordinary(recipe.model_copy(update={"prune": prune, "distill": distill}), own, budget_ms)
        spent, tried = spent + student.minutes, tried + 1
        return student, read_json(own / "report.json", RunReport)

    for share in GRID:
        student, report = ran(share, 1)
        if student.ms <= budget_ms or spent >= minutes:
            break
    again, epochs = student.minutes, report.stage_seconds[Stage.DISTILL] / 60
    times = min(stage.LONGEST, 1 + int((minutes - spent - again) / epochs))
    if student.ms <= budget_ms and times > 1:
        longer, its_report = ran(share, times)
        if longer.ms <= budget_ms and _val(its_report) >= _val(report):
            student = longer
    return replace(student, minutes=spent, before=0.0, tried=tried)


def _val(report: RunReport) -> float:
    """Top-1 on the validation split of what ships."""
    return headline(report).shipped.val.scores["top1"].value
