"""The page's part about what the shipped variant answers: its scores, and each task's own figures."""

from __future__ import annotations

from typing import assert_never

from edgetl.records.scores import Evaluation
from edgetl.report import units
from edgetl.report.page.markup import Markup, tag
from edgetl.report.run import RunReport, headline
from edgetl.report.tasks import classification, detection, multihead, multilabel
from edgetl.tasks.all import Detail, detail_of
from edgetl.tasks.classification.detail import ClassDetail
from edgetl.tasks.detection.detail import BoxDetail
from edgetl.tasks.metrics import metric
from edgetl.tasks.multihead.detail import HeadsDetail
from edgetl.tasks.multilabel.detail import TagsDetail


def answers(report: RunReport) -> Markup:
    """The shipped variant's scores, and what they are made of."""
    head = headline(report)
    where = f"{head.shipped.name} on the {'test' if head.split == 'test' else 'validation'} split"
    return _scored(head.student, where, head.metric)


def _scored(scores: Evaluation, where: str, first: str) -> Markup:
    """Scores in a sentence, the interval of the `first` with them, then the task's own part."""
    figures = []
    for name, found in scores.scores.items():
        if found.interval is not None or name == first:
            bounds = (
                f" (95% interval {units.interval(found.interval)})"
                if name == first and found.interval
                else ""
            )
            figures.append(f"{metric(name).title} {units.percent(found.value)}{bounds}")
    lead = f"{where}: {units.counted(scores.images, 'image')}, {', '.join(figures)}."
    return Markup(tag("p", lead, css="lead") + _detail(detail_of(scores)))


def _detail(detail: Detail) -> Markup:
    match detail:
        case ClassDetail():
            return classification.page(detail)
        case TagsDetail():
            return multilabel.page(detail)
        case HeadsDetail():
            return multihead.page(
                detail, lambda one: _scored(one, "Where the truth is known", next(iter(one.scores)))
            )
        case BoxDetail():
            return detection.page(detail)
        case _:
            assert_never(detail)
