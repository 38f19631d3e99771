"""Two runs or bundles as a page: one self-contained file without a script."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgetl import files
from edgetl.comparison.record import Comparison, Difference
from edgetl.inputs.spec import PreprocessSpec
from edgetl.report.comparison import better_of, facts, latencies, paired, scores, summary, timing
from edgetl.report.page.charts import cumulative, series_class
from edgetl.report.page.document import document
from edgetl.report.page.gate import flipped, turned_boxes
from edgetl.report.page.markup import Column, Markup, Row, figure, legend, section, sentence, table, tag


def write_page(record: Comparison, path: Path, spec: PreprocessSpec | None = None) -> None:
    """Write the page atomically; `spec`'s window shows numbers of more than 8 bits as the network sees them.

    Raises:
        StorageError: it cannot be written.
    """
    files.write_text(path, render(record, spec))


def render(record: Comparison, spec: PreprocessSpec | None = None) -> str:
    """The page as one HTML document; `spec` as in `write_page`."""
    first, second = record.first, record.second
    header = tag(
        "header",
        tag("p", "edgetl comparison", css="kicker"),
        tag("h1", f"{first.name} and {second.name}"),
        tag("p", f"{first.path} beside {second.path}.", css="about"),
    )
    tone = {first.name: " bad", second.name: ""}.get(better_of(record), " warn")
    box = tag("div", tag("p", summary(record)), css=f"verdict{tone}", role="note")
    notes = tag("div", tag("h2", "Mind this"), _listed(record.notes), css="warnings", role="note")
    parts = [
        box,
        notes if record.notes else Markup(""),
        _settings(record),
        _metrics(record),
        _images(record, spec),
        _latency(record),
    ]
    return document(f"{first.name} and {second.name}: edgetl comparison", [header, tag("main", *parts)])


def _listed(sentences: Sequence[str]) -> Markup:
    return tag("ul", *(tag("li", sentence(one)) for one in sentences))


def _settings(record: Comparison) -> Markup:
    parts: list[str] = []
    if record.settings is None:
        parts.append(
            tag("p", "A bundle does not hold its recipe: compare run folders to see settings.", css="lead")
        )
    elif not record.settings:
        parts.append(tag("p", "No setting differs.", css="lead"))
    else:
        parts.append(_differences("Setting", record.settings, record))
    known = {one.key for one in record.settings or ()}
    if origins := [one for one in record.origins if one.key not in known]:
        parts += [tag("h3", "Where they come from"), _differences("Made from", origins, record)]
    return section("settings", "What differs", *parts)


def _differences(title: str, found: Sequence[Difference], record: Comparison) -> Markup:
    columns = (Column(header=title), Column(header=record.first.name), Column(header=record.second.name))
    return table(columns, [Row(cells=(one.key, one.first, one.second)) for one in found], title)


def _metrics(record: Comparison) -> Markup:
    names = record.first.name, record.second.name
    columns = (
        Column(header="Metric"),
        *(Column(header=name, number=True) for name in names),
        Column(header="Change", number=True, hint="points"),
        Column(header="Interval", number=True, hint="of the change, from the same images"),
        Column(header="Level", number=True),
    )
    lead = (
        "Both answered the same images, so the changes are paired: the first with Tango's interval and McNemar's exact"
        " test, the others as a gate judges them, where the lower end of a 90% interval decides with 95% certainty."
        " Of recall and the like the class that fell most is shown."
    )
    rows = [Row(cells=cells) for cells in paired(record)]
    said = tag("ul", *(tag("li", sentence(check.sentence)) for check in record.checks), css="says")
    own = (Column(header="Score"), *(Column(header=name, number=True) for name in names))
    return section(
        "metrics",
        "Metrics",
        table(columns, rows, "Paired metrics"),
        tag("h3", "As a gate with its usual limits would say"),
        said,
        tag("h3", "Every score, each with its own 95% interval"),
        table(own, [Row(cells=cells) for cells in scores(record)], "Scores"),
        lead=lead,
    )


def _images(record: Comparison, spec: PreprocessSpec | None) -> Markup:
    root = Path(record.images.root)
    if record.boxes is not None:
        return turned_boxes(record.boxes, root, spec)
    if record.flips is None:
        return Markup("")
    first, second = record.first.name, record.second.name
    titles = f"Right in {first}, wrong in {second}", f"Wrong in {first}, right in {second}"
    return flipped(record.flips, root, spec, titles)


def _latency(record: Comparison) -> Markup:
    names = record.first.name, record.second.name
    columns = (
        Column(header=""),
        *(Column(header=name, number=True) for name in names),
        Column(header="Change", number=True),
    )
    series = [
        (name, series_class(at), one)
        for at, (name, one) in enumerate(zip(names, latencies(record), strict=True))
        if one is not None and len(one.samples_ms) > 1
    ]
    parts: list[str] = []
    if series:
        drawn = figure(
            lambda width: cumulative(series, width), "Further left is faster; a steep line is steady."
        )
        parts = [legend([(name, css, "line") for name, css, _ in series]), drawn]
    elif any(one is not None for one in latencies(record)):
        parts = [tag("p", "Bundles hold no raw samples: no distribution can be drawn.", css="lead")]
    return section(
        "latency",
        "Size and latency",
        *parts,
        table(columns, [Row(cells=cells) for cells in facts(record)], "Size and latency"),
        lead=timing(record),
    )
