"""The page's part about a run that goes on from another: whether known classes are kept, how new ones fare."""

from __future__ import annotations

from edgetl.report import units
from edgetl.report.extension import by_novelty, figures
from edgetl.report.page.markup import Column, Markup, Row, definitions, sentence, table, tag
from edgetl.report.run import RunReport, headline


def extension(report: RunReport) -> Markup:
    """The gate's checks, and each group's figures; nothing where no run goes on."""
    kept = report.teacher.kept
    if kept is None:
        return Markup("")
    notes = [check.sentence for check in kept.checks]
    if report.teacher.nearest is not None:
        notes.append(report.teacher.nearest.note)
    checks = tag("ul", *(tag("li", sentence(note)) for note in notes), css="says")
    return Markup(
        tag(
            "p",
            "A finished run's network went on learning. It is held to what it answered before on the validation images"
            " of that run, image by image; an answer with a new class is wrong.",
            css="lead",
        )
        + checks
        + definitions(
            [
                ("New classes", ", ".join(kept.new) or "none"),
                *((f"Validation, {a}", b) for a, b in figures(kept)),
            ]
        )
        + _shipped(report)
    )


def _shipped(report: RunReport) -> Markup:
    """Known and new classes by teacher and shipped variant, on the split at the report's head."""
    kept, head = report.teacher.kept, headline(report)
    assert kept is not None
    split = "test" if head.split == "test" else "validation"
    columns = (
        Column(header=f"right answers, {split}"),
        Column(header="known classes", number=True),
        Column(header="new classes", number=True),
    )
    rows = [
        Row(
            cells=(
                name,
                *("" if share is None else units.percent(share) for share in by_novelty(kept, scores)),
            )
        )
        for name, scores in (("teacher", head.teacher), (head.shipped.name, head.student))
    ]
    return table(columns, rows, "Known and new classes")
