"""The page's part about unknown images: by which score they are detected, how it was chosen, and its false alarms."""

from __future__ import annotations

from edgetl.records.unknown import ScoreTrial, UnknownRecord
from edgetl.report import units
from edgetl.report.page.markup import Column, Markup, Row, table, tag
from edgetl.report.run import RunReport


def unknown(report: RunReport) -> Markup:
    """Every variant's scores; nothing of a detector."""
    measure = report.measure
    found = [(v.name, v.unknown) for v in measure.variants if v.unknown is not None]
    if not found:
        return Markup("")
    lead = (
        "With --unknown an answer says whether the image is like none that the model was made from. Without unknown"
        " images at hand the score was chosen on the validation split: by classes that were left out in turn, which the"
        " network has seen, so that a new class is harder; and by pictures made to show nothing known. Measure with"
        " unknown images of your own: edgetl eval --unknown FOLDER."
    )
    names = list(dict.fromkeys(trial.score for _, one in found for trial in one.trials))
    titles = (
        Column(header="Variant"),
        Column(header="Score"),
        *(
            Column(header=name, number=True, hint="AUROC: a class left out / a picture of nothing known")
            for name in names
        ),
        Column(header="p", number=True, hint="of the test that it does better than softmax"),
        Column(
            header="False alarms",
            number=True,
            hint="test images that are called unknown, where 5% are asked for",
        ),
    )
    rows = []
    for name, one in found:
        trials = {trial.score: trial for trial in one.trials}
        cells = (
            name,
            one.score,
            *(_areas(trials.get(score)) for score in names),
            "–" if one.p_value is None else f"{one.p_value:.2g}",
            _alarms(one),
        )
        rows.append(Row(cells=cells, css="default" if name == measure.default else ""))
    said = [tag("li", f"{name}: {one.note}.") for name, one in found]
    return Markup(
        tag("p", lead, css="lead")
        + table(titles, rows, "How variants tell unknown images")
        + tag("ul", *said, css="says")
    )


def _areas(trial: ScoreTrial | None) -> str:
    if trial is None:
        return "–"
    return f"{'–' if trial.near is None else f'{trial.near:.3f}'} / {trial.far:.3f}"


def _alarms(one: UnknownRecord) -> Markup:
    share = one.false_alarms
    if share is None:
        return tag("span", "–")
    bounds = [tag("span", units.interval(share.interval), css="range")] if share.interval else []
    return tag("span", units.percent(share.value), *bounds)
