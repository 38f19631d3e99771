"""Made-up trials, and a search of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgetl.records.measured import Machine
from edgetl.records.scores import Score
from edgetl.records.search import (
    Choice,
    FinalRun,
    SearchBudget,
    SearchRecord,
    SearchTrial,
    TimedVariant,
    TrialState,
)

CHOICE = Choice(network="teacher", size=64, share=0.2, interpolation="bicubic")
MACHINE = Machine(cpu="Test CPU", cores=2, memory_bytes=2**33, system="Linux x86_64", python="3.11.0")


def trial(number: int, ms: float | None, score: float | None, **values: Any) -> SearchTrial:
    """A candidate of the teacher at 64 px that learned to its end where it has a score."""
    timed = None if ms is None else TimedVariant(precision="int8", ms=ms, threads=1, size_bytes=350_000)
    state = TrialState.OVER_BUDGET if score is None else TrialState.TRAINED
    return SearchTrial(
        **{
            "number": number,
            "choice": CHOICE,
            "state": state,
            "variant": timed,
            "score": score,
            "epochs": 0 if score is None else 8,
            "seconds": 20.0,
            **values,
        }
    )


def final(number: int | None, latency_ms: float, **values: Any) -> FinalRun:
    """What the ordinary run of a candidate measured."""
    return FinalRun(
        **{
            "trial": number,
            "choice": CHOICE,
            "variant": "int8-cpu-x86",
            "latency_ms": latency_ms,
            "size_bytes": 360_000,
            "val": Score(value=0.97, low=0.94, high=0.99),
            "test": Score(value=0.965, low=0.93, high=0.985),
            "bundle": "run/digits.edgetl",
            "problems": (),
            "seconds": 95.0,
            **values,
        }
    )


TRIALS = (
    trial(0, 0.9, 0.96, frontier=True, loss=0.21),
    trial(1, 0.5, 0.93, loss=0.34, frontier=True, choice=replace(CHOICE, size=48, depth=0.5)),
    trial(2, 0.8, 0.90, state=TrialState.STOPPED, why="worse than others after 1 epoch", epochs=1),
    trial(3, 2.0, None, why="2 ms, over 1 ms"),
    trial(4, None, None, predicted_ms=3.0, why="3 ms by the latency table, over 1 ms"),
    trial(5, None, None, state=TrialState.IMPOSSIBLE, why="It cannot be cut so far."),
)


def searched(**values: Any) -> SearchRecord:
    """A search that found what it was asked for."""
    return SearchRecord(
        **{
            "name": "digits",
            "budget": SearchBudget(latency_ms=1.0, size_mb=0.5, floor=0.95),
            "metric": "top1",
            "teacher": Score(value=0.98, low=0.95, high=0.995),
            "least_ms": 0.1,
            "least": "teacher at 32 px, 4.1% of its multiply-accumulates",
            "trials": TRIALS,
            "finals": (final(0, 0.95),),
            "holds": True,
            "reason": "teacher at 64 px is the best",
            "settings": ('prune.network = "teacher"', "distill.size = 64"),
            "sampler": "tpe",
            "workers": 1,
            "storage": "runs/digits-search/search.db",
            "study": "digits",
            "table_error": 0.04,
            "machine": MACHINE,
            "seconds": 301.0,
            **values,
        }
    )
