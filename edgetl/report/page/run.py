"""The page: one self-contained file with inline style, SVG and a script that sorts tables, no request to anywhere."""

from __future__ import annotations

from pathlib import Path

from edgetl import files
from edgetl.records.scores import score
from edgetl.records.variants import MeasureRecord
from edgetl.report import units
from edgetl.report.page.document import document
from edgetl.report.page.markup import Markup, meter, section, sentence, tag, warning_box
from edgetl.report.page.script import sorting
from edgetl.report.page.sections import SECTIONS
from edgetl.report.run import Headline, RunReport, headline, in_doubt

JSON_NAME = "report.json"
HTML_NAME = "report.html"


def render(report: RunReport, folder: Path | None = None) -> str:
    """The report as one HTML document.

    Args:
        report: what the run found.
        folder: the run's, whose index says where its images are; without it none is shown.

    Raises:
        ValueError: `measure.default` names no variant, or the metric is unknown.
    """
    head = headline(report)
    parts = [(anchor, title, build(report, folder)) for anchor, title, build in SECTIONS]
    parts = [part for part in parts if part[2]]
    body = [
        _header(report, head, [(anchor, title) for anchor, title, _ in parts]),
        tag(
            "main",
            _cards(report, head),
            _verdict(report),
            warning_box(report.warnings),
            *(_part(p) for p in parts),
        ),
        _footer(report),
        sorting(),
    ]
    return document(f"{report.name}: edgetl report", body)


def _part(part: tuple[str, str, Markup]) -> Markup:
    anchor, title, content = part
    return section(anchor, title, content)


def _header(report: RunReport, head: Headline, links: list[tuple[str, str]]) -> Markup:
    met = report.measure.floor_met
    pill = tag(
        "span",
        "accuracy floor met" if met else "accuracy floor not met",
        css="pill good" if met else "pill bad",
    )
    images = units.counted(report.data.images(), "image")
    taught = f"{units.counted(len(report.data.labels), 'class')} on {images}"
    about = f"{report.teacher.backbone} was taught {taught}; {head.shipped.name} ships"
    if head.latency_ratio > 1:
        about += (
            f", with {units.times(head.latency_ratio)} lower median latency than the teacher in eager torch"
        )
        if doubt := in_doubt(report.measure):
            about += f" (in doubt, as {doubt})"
    return tag(
        "header",
        tag("p", "edgetl run report", css="kicker"),
        tag("div", tag("h1", report.name), pill, css="title"),
        tag("p", f"{about}.", css="about"),
        tag(
            "nav",
            *(tag("a", title, href=f"#{anchor}") for anchor, title in links),
            aria_label="Parts of the report",
        ),
    )


def _cards(report: RunReport, head: Headline) -> Markup:
    measure, shipped = report.measure, head.shipped
    threads = shipped.latency.threads
    split = "test" if head.split == "test" else "validation"
    ships = tag(
        "article",
        tag("h2", "Ships"),
        tag("p", shipped.name, css="value"),
        tag("p", f"{shipped.precision} for {shipped.target}, {units.bytes_(shipped.size_bytes)}"),
        tag(
            "p",
            f"{units.significant(shipped.latency.throughput)} images per second, batch {shipped.latency.batch}",
        ),
        tag("p", f"one of {units.counted(len(measure.variants), 'variant')} in {report.bundle.path}"),
        css="card",
    )
    before, after = (score(e, head.metric) for e in (head.teacher, head.student))
    intervals = " and ".join(units.interval(s.interval) for s in (before, after) if s.interval)
    accuracy = tag(
        "article",
        tag(
            "h2",
            f"{units.metric_title(head.metric)} on {split}, {units.counted(head.student.images, 'image')}",
        ),
        tag(
            "p",
            units.percent(after.value),
            Markup(" "),
            tag("small", units.points(head.points)),
            css="value",
        ),
        _pair(
            ("teacher", before.value, units.percent(before.value)),
            ("shipped", after.value, units.percent(after.value)),
            1.0,
        ),
        tag("p", f"95% intervals {intervals}" if intervals else ""),
        css="card",
    )
    eager, now = measure.teacher_latency.p50_ms, shipped.latency.p50_ms
    caption = f"batch 1, {units.counted(threads, 'thread')}, one process"
    if measure.teacher_latency.threads != threads:
        caption = (
            f"batch 1, one process, each with the threads that it is faster with: {threads}, the teacher "
            f"{measure.teacher_latency.threads}"
        )
    if head.latency_interval:
        low, high = head.latency_interval
        caption += f"; 95% interval {units.times(low, 3)} to {units.times(high, 3)}"
    latency = tag(
        "article",
        tag("h2", "Median latency against eager torch"),
        tag("p", *_change(head.latency_ratio, "lower", "higher"), css="value"),
        _doubt(measure),
        _pair(
            ("teacher", eager, units.milliseconds(eager)),
            ("shipped", now, units.milliseconds(now)),
            max(eager, now),
        ),
        tag("p", caption),
        css="card",
    )
    whole, small = measure.teacher_size_bytes, shipped.size_bytes
    packed = units.counted(len(report.bundle.variants), "variant")
    size = tag(
        "article",
        tag("h2", "Size on disk"),
        tag("p", *_change(head.size_ratio, "smaller", "larger"), css="value"),
        _pair(
            ("teacher", whole, units.bytes_(whole)),
            ("shipped", small, units.bytes_(small)),
            max(whole, small),
        ),
        tag("p", f"the bundle with {packed} is {units.bytes_(report.bundle.size_bytes)}"),
        css="card",
    )
    return tag("div", ships, accuracy, latency, size, css="cards")


def _doubt(measure: MeasureRecord) -> Markup:
    """Said beside the ratio, where the machine did something else too."""
    doubt = in_doubt(measure)
    if not doubt:
        return Markup("")
    return tag("p", tag("span", "in doubt", css="tag warn"), f" {sentence(doubt)}", css="doubt")


def _change(ratio: float, better: str, worse: str) -> tuple[str, ...]:
    if ratio >= 1:
        return units.times(ratio), Markup(" "), tag("small", better)
    return units.times(1 / ratio if ratio else 0.0), Markup(" "), tag("small", worse)


def _pair(first: tuple[str, float, str], second: tuple[str, float, str], whole: float) -> Markup:
    cells: list[str] = []
    for (name, value, text), css in ((first, "old"), (second, "")):
        cells += [tag("span", name), meter(value / whole if whole else 0.0, css), tag("b", text)]
    return tag("div", *cells, css="pair")


def _verdict(report: RunReport) -> Markup:
    measure = report.measure
    metric = units.metric_title(measure.metric)
    met = "met" if measure.floor_met else "not met"
    word = f"{metric} floor {units.percent(measure.floor)} on validation is {met}: "
    text = tag("p", tag("strong", word), sentence(measure.reason))
    return tag("div", text, css="verdict" if measure.floor_met else "verdict bad", role="note")


def _footer(report: RunReport) -> Markup:
    made = f", {report.created}" if report.created else ""
    return tag(
        "footer", f"Written by edgetl{made}. The same figures, with every raw sample, are in report.json."
    )


def write_report(report: RunReport, folder: Path) -> tuple[Path, Path]:
    """Write `report.json` and `report.html` into `folder`, each atomically, and return their paths.

    Raises:
        StorageError: they cannot be written.
    """

    page = render(report, folder)
    json_path, html_path = folder / JSON_NAME, folder / HTML_NAME
    files.write_json(json_path, report)
    files.write_text(html_path, page)
    return json_path, html_path
