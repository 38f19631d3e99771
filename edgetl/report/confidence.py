"""How sure answers are, in words that the page and the terminal share."""

from __future__ import annotations

from edgetl.records.confidence import OutputConfidence
from edgetl.records.variants import MeasureRecord
from edgetl.report import units
from edgetl.tasks.base import LOGITS


def has_heads(measure: MeasureRecord) -> bool:
    """Whether temperatures are of heads, which have names."""
    return any(one.output != LOGITS for variant in measure.variants for one in variant.confidence)


def notes(measure: MeasureRecord) -> list[str]:
    """Why temperatures are what they are, where it must be said; one sentence each, of equal ones the first."""
    found = dict[str, str]()
    for variant in measure.variants:
        for one in variant.confidence:
            if one.note:
                who = variant.name if one.output == LOGITS else f"{variant.name}, {one.output}"
                found.setdefault(one.note, f"{who}: {one.note}.")
    return list(found.values())


def changes(one: OutputConfidence) -> tuple[str, str, str]:
    """Calibration error, loss and Brier score, at temperature 1 and with the temperature where it is another."""
    before, after = one.before, one.after
    if before is None or after is None:
        return ("-", "-", "-")
    written = (
        (units.percent(before.error), units.percent(after.error)),
        (f"{before.loss:.3f}", f"{after.loss:.3f}"),
        (f"{before.brier:.3f}", f"{after.brier:.3f}"),
    )
    error, loss, brier = (
        first if one.temperature == 1.0 else f"{first} -> {second}" for first, second in written
    )
    return error, loss, brier
