"""Does `edgetl search` find better models than random search and a grid of pruning ratios do in the same time?

On flowers12 the default recipe is run first. Its student's latency times 0.75 is the budget of three searches of equal
minutes: by TPE with its first guesses and corrections, at random, and a grid, for which the teacher is pruned to even
shares and run to the end in order, the largest share first, until one holds the budget. All share one teacher, whose
training takes none of the minutes. Scores: top-1 on the test images, by which nothing is chosen. What is finished is
kept under `.cache/bench/search` (`EDGETL_BENCH_CACHE`), and a search that was stopped goes on. `EDGETL_BENCH_MINUTES`
sets the minutes of each (default 60), `EDGETL_BENCH_SEEDS` the seeds (default `0`). About three hours per seed on two
cores.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgetl import config, pipeline
from edgetl.config import MacsTarget, Recipe
from edgetl.data.index import build_index
from edgetl.data.suggest import look, suggest
from edgetl.files import read_json, write_json
from edgetl.records.search import SearchRecord
from edgetl.report.run import headline
from edgetl.search import stage
from edgetl.search.settings import RECORD, SearchConfig
from edgetl.search.teachers import RUN
from edgetl.search.trials import LATER, link_stages
from tests.bench.claims import Claim, at_least, at_most
from tests.bench.steps import Spoken, code_sha256, kept, named_seeds, say
from tests.real_sets import unpacked

FAMILY, DATA, SHARE = "search", "flowers12", 0.75
SAMPLERS = ("tpe", "random")
GRID = (0.3, 0.2, 0.14, 0.1, 0.07, 0.05)


@dataclass(frozen=True, kw_only=True)
class Student:
    """A model: test top-1 (0..1) with the lower end of its 95% interval, median milliseconds, minutes of its making
    from the teacher on, candidates that were tried, and whether it holds the budget."""

    top1: float
    low: float
    ms: float
    minutes: float
    tried: int
    holds: bool


def run() -> Iterator[Claim]:
    """Yield the claims."""
    source = unpacked(DATA)
    if source is None:
        yield Claim(name=DATA, measured=f"not measured: EDGETL_DATA names no folder with {DATA}")
        return
    minutes = float(os.environ.get("EDGETL_BENCH_MINUTES", "60"))
    found: dict[str, list[Student]] = {}
    for seed in named_seeds("0"):
        home = kept(FAMILY, f"{seed}-{minutes:g}-{code_sha256()[:12]}")
        recipe = _recipe(source, seed)
        taught = home / "default"
        default = _ordinary(recipe, taught, float("inf"))
        found.setdefault("default", []).append(default)
        budget = SHARE * default.ms
        for sampler in SAMPLERS:
            link_stages(taught, home / sampler / RUN)
            found.setdefault(sampler, []).append(_searched(recipe, home / sampler, sampler, budget, minutes))
        found.setdefault("grid", []).append(_grid(recipe, home / "grid", budget, taught))
        for name, students in found.items():
            say(f"seed {seed}, {name}: {_figures(students[-1:])}")
    yield from judged(found)


def judged(found: dict[str, list[Student]]) -> Iterator[Claim]:
    """What the searches came to beside the default recipe, and beside one another."""
    for name, students in found.items():
        yield Claim(name=name, measured=_figures(students))
    default, tpe = found["default"], found["tpe"]
    ratio = statistics.mean(one.ms / own.ms for one, own in zip(tpe, default, strict=True))
    yield at_most("searched: latency over the default student's", ratio, SHARE, "x")
    noise = statistics.mean(one.top1 - one.low for one in default)
    yield at_least(
        "searched: test top-1 over the default student's, points", _gain(tpe, default), -100 * noise, ""
    )
    for other in ("random", "grid"):
        yield at_least(f"searched: test top-1 over {other}, points", _gain(tpe, found[other]), 0.0, "")


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


def _recipe(source: Path, seed: int) -> Recipe:
    """What `edgetl init` would write."""
    values: dict[str, dict[str, object]] = {"data": {"source": str(source)}}
    for item in suggest(look(build_index(config.DataConfig(source=str(source))))):
        section, _, key = item.key.partition(".")
        values.setdefault(section, {})[key] = item.value
    return config.parse({"name": DATA, "seed": seed, **values})


def _ordinary(recipe: Recipe, folder: Path, budget_ms: float) -> Student:
    path = folder / "student.json"
    if not path.exists():
        report = pipeline.run(recipe, folder, progress=Spoken()).report
        assert report is not None
        shipped = headline(report).shipped
        assert shipped.test is not None
        test, ms = shipped.test.scores["top1"], shipped.latency.p50_ms
        student = Student(
            top1=test.value,
            low=test.low or 0.0,
            ms=ms,
            minutes=sum(s for stage, s in report.stage_seconds.items() if stage in LATER) / 60,
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
    if chosen is None or chosen.test is None:
        return Student(
            top1=0.0, low=0.0, ms=0.0, minutes=record.seconds / 60, tried=len(record.trials), holds=False
        )
    return Student(
        top1=chosen.test.value,
        low=chosen.test.low or 0.0,
        ms=chosen.latency_ms,
        minutes=record.seconds / 60,
        tried=len(record.trials),
        holds=record.holds,
    )


def _grid(recipe: Recipe, folder: Path, budget_ms: float, taught: Path) -> Student:
    """The teacher pruned to even shares, the largest first, until one is fast enough; the last where none is."""
    minutes, student = 0.0, None
    for tried, share in enumerate(GRID, start=1):
        prune = recipe.prune.model_copy(update={"target": MacsTarget(share=share)})
        link_stages(taught, folder / f"{share:g}")
        own = _ordinary(recipe.model_copy(update={"prune": prune}), folder / f"{share:g}", budget_ms)
        minutes += own.minutes
        student = Student(
            top1=own.top1, low=own.low, ms=own.ms, minutes=minutes, tried=tried, holds=own.holds
        )
        if own.ms <= budget_ms:
            break
    assert student is not None
    return student
