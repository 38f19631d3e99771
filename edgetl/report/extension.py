"""How known and new classes fare in an extended run, in figures that the page and the terminal share."""

from __future__ import annotations

from edgetl.records.extend import KeptRecord
from edgetl.records.gate import Verdict
from edgetl.records.scores import Evaluation
from edgetl.report import units
from edgetl.tasks.all import detail_of
from edgetl.tasks.classification.detail import ClassDetail


def figures(kept: KeptRecord) -> list[tuple[str, str]]:
    """Each group of validation images, with the share of right answers before and after; then the gate's verdict."""
    found = [
        (
            f"{group.title} ({units.count(group.images)})",
            units.percent(group.after)
            if group.before is None
            else f"{units.percent(group.before)} -> {units.percent(group.after)}",
        )
        for group in kept.groups
    ]
    return [*found, ("known classes", {Verdict.PASS: "kept"}.get(kept.verdict, kept.verdict.text))]


def by_novelty(kept: KeptRecord, scores: Evaluation) -> tuple[float | None, float | None]:
    """The share of right answers, in 0..1, for images of known and of new classes; None where there are none."""
    detail = detail_of(scores)
    assert isinstance(detail, ClassDetail)
    shares: list[float | None] = []
    for new in (False, True):
        own = [one for one in detail.classes if (one.label in kept.new) is new]
        images = sum(one.support for one in own)
        shares.append(sum(one.recall * one.support for one in own) / images if images else None)
    return shares[0], shares[1]
