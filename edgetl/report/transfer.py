"""A ranking of backbones in words and figures, the same in the terminal and on the page."""

from __future__ import annotations

from edgetl.records.transfer import BackboneRanking, Candidate
from edgetl.report import units


def cells(one: Candidate) -> tuple[str, ...]:
    """Backbone, size, score, its interval, LogME, median latency in ms, multiply-accumulates, parameters."""
    return (
        one.title,
        str(one.size),
        units.percent(one.score.value),
        units.interval(one.score.interval) if one.score.interval else "",
        f"{one.logme:.3f}",
        units.significant(one.latency.p50_ms),
        units.count(one.network.macs),
        units.count(one.network.parameters),
    )


def remarks(record: BackboneRanking, position: int) -> tuple[str, ...]:
    """What is to be said of a candidate: `proposed`, `frontier`, `over 5 ms`."""
    one = record.candidates[position]
    said = (
        ("proposed", position == record.proposed),
        ("frontier", one.frontier),
        (f"over {record.latency_ms or 0:g} ms", one.within_budget is False),
    )
    return tuple(text for text, applies in said if applies)
