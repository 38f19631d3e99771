"""The page's part about what the shipped variant answers: its scores, and each task's own figures."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, assert_never

from edgetl.records.scores import Evaluation
from edgetl.report import units
from edgetl.report.page.markup import Markup, tag
from edgetl.report.page.mistakes import gallery
from edgetl.report.run import RunReport, headline
from edgetl.report.tasks import classification, detection, multihead, multilabel
from edgetl.tasks.all import Detail, detail_of
from edgetl.tasks.base import Detection
from edgetl.tasks.classification.detail import ClassDetail
from edgetl.tasks.detection.detail import BoxDetail, WorstImage
from edgetl.tasks.metrics import metric
from edgetl.tasks.multihead.detail import HeadsDetail
from edgetl.tasks.multilabel.detail import TagsDetail

if TYPE_CHECKING:
    from edgetl.data.index import Sample


Pictures = Callable[[WorstImage], Path | None]


def answers(report: RunReport, folder: Path | None = None) -> Markup:
    """The shipped variant's scores, and what they are made of."""
    head = headline(report)
    where = f"{head.shipped.name} on the {'test' if head.split == 'test' else 'validation'} split"
    scores = _scored(head.student, where, head.metric, _pictures(report, head.split, folder))
    return Markup(scores + gallery(report.mistakes if folder is not None else None))


def _pictures(report: RunReport, split: Literal["test", "val"], folder: Path | None) -> Pictures:
    """Where the split's images are, by their places in it."""
    from edgetl.data.index import load
    from edgetl.errors import DataError

    samples: tuple[Sample, ...] = ()
    if folder is not None and isinstance(report.task, Detection):
        with contextlib.suppress(DataError):  # It is a picture less on the page.
            samples = load(folder / report.data.index).split(split)

    def find(worst: WorstImage) -> Path | None:
        if worst.file:
            return Path(worst.file)
        return samples[worst.image].path if worst.image < len(samples) else None

    return find


def _scored(scores: Evaluation, where: str, first: str, pictures: Pictures) -> Markup:
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
    return Markup(tag("p", lead, css="lead") + _detail(detail_of(scores), pictures))


def _detail(detail: Detail, pictures: Pictures = lambda _: None) -> Markup:
    match detail:
        case ClassDetail():
            return classification.page(detail)
        case TagsDetail():
            return multilabel.page(detail)
        case HeadsDetail():
            return multihead.page(
                detail,
                lambda one: _scored(one, "Where the truth is known", next(iter(one.scores)), pictures),
            )
        case BoxDetail():
            return detection.page(detail, pictures)
        case _:
            assert_never(detail)
