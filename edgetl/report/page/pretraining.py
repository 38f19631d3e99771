"""The page's part about what the backbone learned before it saw the data, and whether that helped."""

from __future__ import annotations

from edgetl.records.lineage import lineage_words
from edgetl.records.train import TRAINING, PairedComparison, PretrainRecord
from edgetl.report import units
from edgetl.report.page.curves import LOSSES, Line, score_lines, training_curves
from edgetl.report.page.markup import HALF, Markup, columns, definitions, figure, legend, tag
from edgetl.report.run import RunReport
from edgetl.tasks.metrics import metric


def pretraining(report: RunReport) -> Markup:
    """Losses and scores by epoch, and what was compared; nothing where nothing was learned first."""
    record, start = report.pretrain, report.teacher.start
    if record is None or start is None:
        return Markup("")
    judged = start.judge == TRAINING
    facts = definitions(
        [
            ("Method", "labels of other classes" if record.kind == "source" else record.kind),
            ("Learned from", _images(record)),
            ("Backbone", record.backbone),
            ("Learned in this order", lineage_words(report.teacher.lineage)),
            *(_compared("Trained teacher", start.comparison) if judged else ()),
            *_compared("Linear probe", record.probe),
            ("Judged by", "training from both starts" if judged else "nothing: used in any case"),
            ("The teacher begins with it", "yes" if start.used else "no"),
            ("Time", units.duration(record.seconds)),
            *([("Time of the other training", units.duration(start.other_seconds))] if judged else []),
        ]
    )
    return Markup(tag("p", start.note, css="lead") + _curves(record) + facts)


def _compared(what: str, found: PairedComparison) -> list[tuple[str, str]]:
    low, high = (units.points(100 * end) for end in found.interval)
    scores = f"{units.percent(found.before)} -> {units.percent(found.after)}"
    return [
        (f"{what}, {units.metric(found.metric)} on validation", scores),
        (f"{what}, difference", f"{low} to {high} (90% interval), p = {found.p_value:.2g}"),
    ]


def _images(record: PretrainRecord) -> str:
    of = f" of {units.counted(len(record.classes), 'class')}" if record.classes else ""
    beside = (
        f"; {units.count(record.held_out)} in the validation or test split, or near-copies, were left out"
        if record.held_out
        else ""
    )
    return f"{units.counted(record.images, 'image')}{of} in {record.name}{beside}"


def _curves(record: PretrainRecord) -> Markup:
    if not record.epochs:
        return Markup("")
    own = record.kind == "source"
    scores = score_lines([metric(name) for name in list(record.epochs[0].val.scores)[:2]])
    losses = LOSSES if own else LOSSES[:1]
    titles = ("Validation scores on the source", "Loss") if own else ("Linear probe on validation", "Loss")

    def drawn(title: str, lines: tuple[Line, ...], share: bool) -> Markup:
        return tag(
            "div",
            tag("h3", title),
            legend([(line.name, line.css, "line") for line in lines]),
            figure(lambda width: training_curves(record.epochs, lines, title, share, width), wide=HALF),
        )

    return columns(drawn(titles[1], losses, False), drawn(titles[0], scores, True))
