"""The page's part about what the shipped variant answers: its scores, and each task's own figures."""

from __future__ import annotations

from edgetl.report import units
from edgetl.report.page.markup import Markup, tag
from edgetl.report.run import RunReport, headline
from edgetl.report.tasks import classification
from edgetl.tasks.all import Detail, detail_of
from edgetl.tasks.metrics import metric


def answers(report: RunReport) -> Markup:
    """The shipped variant's scores, and what they are made of."""
    head = headline(report)
    scores = head.student
    figures = []
    for name, score in scores.scores.items():
        if score.interval is not None:
            bounds = f" (95% interval {units.interval(score.interval)})" if name == head.metric else ""
            figures.append(f"{metric(name).title} {units.percent(score.value)}{bounds}")
    lead = (
        f"{head.shipped.name} on the {'test' if head.split == 'test' else 'validation'} split: "
        f"{units.counted(scores.images, 'image')}, {', '.join(figures)}."
    )
    return Markup(tag("p", lead, css="lead") + _detail(detail_of(scores)))


def _detail(detail: Detail) -> Markup:
    return classification.page(detail)
