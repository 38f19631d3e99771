"""The part of the report that only several heads have: one part per head."""

from __future__ import annotations

from collections.abc import Callable

from edgetl.records.scores import Evaluation
from edgetl.report import units
from edgetl.report.page.markup import Markup, tag
from edgetl.tasks.multihead.detail import HeadsDetail


def page(detail: HeadsDetail, one: Callable[[Evaluation], Markup]) -> Markup:
    """Each head's own part under its name; `one` builds it."""
    return Markup("".join(tag("h3", f"Head {name}") + one(found) for name, found in detail.heads.items()))


def titles(detail: HeadsDetail) -> list[tuple[str, Evaluation]]:
    """Each head's title in a terminal, and its evaluation."""
    return [
        (f"Head {name}, {units.counted(found.images, 'image')} whose truth is known", found)
        for name, found in detail.heads.items()
    ]
