"""A search in words and figures, the same in the terminal and on the page."""

from __future__ import annotations

from edgetl.records.search import FinalRun, SearchBudget, SearchRecord, SearchTrial, TrialState
from edgetl.report import units

OUTCOMES = {
    TrialState.TRAINED: "learned",
    TrialState.STOPPED: "stopped early",
    TrialState.OVER_BUDGET: "over the budget",
    TrialState.TOO_NARROW: "replaced by wider ones",
    TrialState.IMPOSSIBLE: "impossible",
}
"""What became of a trial."""


def cells(one: SearchTrial) -> tuple[str, ...]:
    """Number, network, size, shares of multiply-accumulates kept and of blocks out, median in ms, precision and
    threads, size of the file, score, loss, epochs."""
    variant = one.variant
    return (
        str(one.number),
        one.choice.network,
        str(one.choice.size),
        units.percent(one.choice.share),
        f"{one.choice.depth:.0%}" if one.choice.depth else "",
        "" if one.ms is None else ("" if variant else "about ") + units.significant(one.ms),
        "" if variant is None else f"{variant.kind}, {units.counted(variant.threads, 'thread')}",
        "" if variant is None else units.bytes_(variant.size_bytes),
        "" if one.score is None else units.percent(one.score),
        "" if one.loss is None else units.significant(one.loss),
        str(one.epochs or ""),
    )


def run_cells(final: FinalRun) -> tuple[str, ...]:
    """Name, variant, median in ms, size of the file, both scores, duration, and what of the budget does not hold."""
    return (
        final.name,
        final.variant,
        units.significant(final.latency_ms),
        units.bytes_(final.size_bytes),
        units.percent(final.val.value),
        "" if final.test is None else units.percent(final.test.value),
        units.duration(final.seconds),
        "; ".join(final.problems) or "holds",
    )


def is_chosen(record: SearchRecord, one: SearchTrial) -> bool:
    """Whether the last ordinary run was this candidate's."""
    return record.chosen is not None and record.chosen.trial == one.number


def remarks(record: SearchRecord, one: SearchTrial) -> tuple[str, ...]:
    """What is to be said of a trial: `chosen`, `frontier`, and what became of it where it did not learn to its end."""
    found = ["chosen"] if is_chosen(record, one) else []
    found += ["frontier"] if one.frontier else []
    return (*found, *([] if one.state is TrialState.TRAINED else [OUTCOMES[one.state]]))


def budget_words(budget: SearchBudget) -> str:
    """`3 ms, 1 MB, at least 95.0%`."""
    parts = [f"{budget.latency_ms:g} ms"]
    parts += [] if budget.size_mb is None else [f"{budget.size_mb:g} MB"]
    parts += [] if budget.floor is None else [f"at least {units.percent(budget.floor)}"]
    return ", ".join(parts)


def tally(record: SearchRecord) -> str:
    """How many trials came how far: `12 trials: 5 learned, 3 stopped early, 4 over the budget`."""
    counts = {state: sum(one.state is state for one in record.trials) for state in TrialState}
    each = ", ".join(f"{count} {OUTCOMES[state]}" for state, count in counts.items() if count)
    return units.counted(len(record.trials), "trial") + (f": {each}" if each else "")


def refused_early(record: SearchRecord) -> int:
    """Trials that were refused without a timing."""
    return sum(one.state is TrialState.OVER_BUDGET and one.variant is None for one in record.trials)
