"""The gate's page: every check, and the images that flipped, in one self-contained file."""

from __future__ import annotations

from pathlib import Path

from edgetl import files
from edgetl.inputs.spec import PreprocessSpec
from edgetl.records.gate import BoxTurn, BoxTurns, Flip, Flips, GateReport, TurnedImage, Verdict
from edgetl.report import units
from edgetl.report.page.boxes import Mark, boxed, thumbnail
from edgetl.report.page.document import document
from edgetl.report.page.markup import (
    Column,
    Markup,
    Row,
    disclosure,
    legend,
    section,
    sentence,
    table,
    tag,
)
from edgetl.report.terminal.device import check_change, check_figure, check_limit
from edgetl.tasks.labelling import ONE_LABEL, Labelling

# Bounds the page to some hundred kilobytes.
_LOST_SHOWN, _WON_SHOWN = 48, 24
_SIDE = 128
_PICTURES_SHOWN = 18
_TURNS = {
    BoxTurn.LOST: "lost",
    BoxTurn.WON: "won",
    BoxTurn.NEW: "new wrong",
    BoxTurn.GONE: "wrong gone",
}
"""What became of a box, in words."""
_TURN_MARKS = {
    BoxTurn.LOST: ("missed", "dash"),
    BoxTurn.WON: ("right", "line"),
    BoxTurn.NEW: ("wrong", "line"),
    BoxTurn.GONE: ("gone", "dash"),
}
"""Its colour, and how the legend draws it."""

_TONES = {Verdict.PASS: "good", Verdict.FAIL: "bad", Verdict.UNSURE: "warn"}
_COLUMNS = (
    Column(header="Check"),
    Column(header="Result"),
    Column(header="Baseline", number=True),
    Column(header="Now", number=True),
    Column(header="Change", number=True),
    Column(header="Interval", number=True, wide_only=True, hint="of scores the lower end decides"),
    Column(header="Allowed", number=True),
)


def write_page(
    report: GateReport,
    path: Path,
    data: Path | None = None,
    spec: PreprocessSpec | None = None,
    labelling: Labelling = ONE_LABEL,
) -> None:
    """Write the page atomically.

    Args:
        report: what the gate found.
        path: the file.
        data: the image set that both were scored on; without it the page names the images and shows none.
        spec: the preprocessing, whose window shows numbers of more than 8 bits as the network sees them.
        labelling: how the image set is labelled.

    Raises:
        StorageError: it cannot be written.
        DataError: there is no image set at `data`.
    """
    files.write_text(path, render(report, _root(data, labelling, boxes=report.boxes is not None), spec))


def render(report: GateReport, root: Path | None = None, spec: PreprocessSpec | None = None) -> str:
    """The page as one HTML document; `root` is the folder that the flipped images' paths are relative to, `spec` as in
    `write_page`.
    """
    verdict = report.verdict
    caption = {Verdict.PASS: "passed", Verdict.FAIL: "failed", Verdict.UNSURE: "cannot tell"}[verdict]
    names = ", ".join(c.name for c in report.checks if c.judged and c.verdict is verdict)
    words = {
        Verdict.PASS: "Every judged check passed.",
        Verdict.FAIL: f"Worse than allowed: {names}.",
        Verdict.UNSURE: f"What was measured does not decide: {names}.",
    }[verdict]
    header = tag(
        "header",
        tag("p", "edgetl gate report", css="kicker"),
        tag(
            "div", tag("h1", report.current), tag("span", caption, css=f"pill {_TONES[verdict]}"), css="title"
        ),
        tag(
            "p",
            f"Variant {report.variant} on {report.target} against {report.baseline}, on {report.machine.fingerprint}.",
            css="about",
        ),
    )
    tone = "" if verdict is Verdict.PASS else f" {_TONES[verdict]}"
    box = tag("div", tag("p", tag("strong", words)), css=f"verdict{tone}", role="note")
    sentences = tag("ul", *(tag("li", sentence(text)) for text in report.sentences()), css="says")
    checks = section("checks", "Checks", table(_COLUMNS, _rows(report), "Checks"), sentences)
    return document(
        f"{report.current}: edgetl gate", [header, tag("main", box, checks, _images(report, root, spec))]
    )


def _rows(report: GateReport) -> list[Row]:
    rows = []
    for check in report.checks:
        result = tag("span", check.verdict.text, css=f"tag {_TONES[check.verdict]}")
        cells = (
            check.name,
            result if check.judged else "not judged",
            check_figure(check, check.baseline),
            check_figure(check, check.current),
            check_change(check),
            _interval(check.interval),
            check_limit(check),
        )
        rows.append(Row(cells=cells))
    return rows


def _interval(interval: tuple[float, float] | None) -> str:
    return f"{100 * interval[0]:+.1f} to {100 * interval[1]:+.1f}" if interval else ""


def _images(report: GateReport, root: Path | None, spec: PreprocessSpec | None) -> Markup:
    if report.boxes is not None:
        return turned_boxes(report.boxes, root, spec)
    if report.flips is None:
        lead = "The bundles' own scores were compared; give an image set to see which images flipped."
        return section("flips", "Images that flipped", lead=lead)
    return flipped(report.flips, root, spec)


def turned_boxes(turned: BoxTurns, root: Path | None, spec: PreprocessSpec | None) -> Markup:
    """The images whose boxes changed, with these drawn over them; arguments as of `render`."""
    title = "Boxes that changed"
    if not turned.changed:
        return section("flips", title, lead="No object was lost or won, and no wrong box is new or gone.")
    lead = (
        f"{units.counted(turned.lost, 'object')} that were found are lost, {turned.won} are found now; "
        f"{turned.new} wrong boxes are new, {turned.gone} are gone; in {units.counted(turned.changed, 'image')}. "
        "Point at a box for its class."
    )
    key = legend([(_TURNS[turn], f"k-{css}", kind) for turn, (css, kind) in _TURN_MARKS.items()])
    shown = turned.images[:_PICTURES_SHOWN]
    parts: list[str] = [
        key,
        tag("ul", *(_turned_picture(i, root, spec) for i in shown), css="flips pictures"),
    ]
    if rest := turned.images[_PICTURES_SHOWN:]:
        names = tag("ul", *(tag("li", f"{image.path}: {_turn_words(image)}") for image in rest), css="says")
        parts.append(disclosure(f"{len(rest)} more, by name", names))
    if turned.changed > len(turned.images):
        parts.append(tag("p", f"{turned.changed - len(turned.images)} more are not listed.", css="lead"))
    return section("flips", title, *parts, lead=lead)


def _turned_picture(image: TurnedImage, root: Path | None, spec: PreprocessSpec | None) -> Markup:
    marks = [
        Mark(
            box=box.box,
            css=f"box k-{_TURN_MARKS[box.turn][0]}",
            title=f"{box.label}: {_TURNS[box.turn]}",
        )
        for box in image.boxes
    ]
    words = _turn_words(image)
    path = None if root is None else root / image.path
    picture = boxed(path, (image.width, image.height), marks, f"{image.path}: {words}", spec)
    return tag("li", picture, tag("span", words), tag("span", image.path, css="path"))


def _turn_words(image: TurnedImage) -> str:
    counts = ((turn, image.count(turn)) for turn in BoxTurn)
    return ", ".join(f"{count} {_TURNS[turn]}" for turn, count in counts if count)


def flipped(
    flips: Flips,
    root: Path | None,
    spec: PreprocessSpec | None,
    titles: tuple[str, str] = ("Right before, wrong now", "Wrong before, right now"),
) -> Markup:
    """The images that flipped, lost ones before won ones under their `titles`; other arguments as of `render`."""
    lost = [flip for flip in flips.images if flip.lost]
    won = [flip for flip in flips.images if not flip.lost]
    parts: list[str] = []
    for title, count, found, most in (
        (titles[0], flips.lost, lost, _LOST_SHOWN),
        (titles[1], flips.won, won, _WON_SHOWN),
    ):
        if not count:
            continue
        parts.append(tag("h3", f"{title}: {units.counted(count, 'image')}"))
        parts.append(tag("ul", *(_picture(flip, root, spec) for flip in found[:most]), css="flips"))
        if found[most:]:
            rest = tag("ul", *(tag("li", _flip_line(flip)) for flip in found[most:]), css="says")
            parts.append(disclosure(f"{len(found) - most} more, by name", rest))
        if count > len(found):
            parts.append(tag("p", f"{units.count(count - len(found))} more are not listed.", css="lead"))
    lead = "" if parts else "No image went from right to wrong, or from wrong to right."
    return section("flips", "Images that flipped", *parts, lead=lead)


def _picture(flip: Flip, root: Path | None, spec: PreprocessSpec | None) -> Markup:
    shown = thumbnail(root / flip.path if root is not None else None, _SIDE, spec)
    picture = (
        tag("img", src=shown, alt=f"{flip.label}: {flip.path}", loading="lazy")
        if shown
        else tag("span", "no picture", css="none")
    )
    before, after = (
        tag("span", name, css="right" if name == flip.label else "wrong")
        for name in (flip.before, flip.after)
    )
    is_class = tag("span", f"{flip.label}: ")
    return tag("li", picture, is_class, before, " \u2192 ", after, tag("span", flip.path, css="path"))


def _flip_line(flip: Flip) -> str:
    return f"{flip.path}: {flip.label}, {flip.before} before, {flip.after} now"


def _root(data: Path | None, labelling: Labelling, *, boxes: bool) -> Path | None:
    if data is None:
        return None
    if boxes:
        from edgetl.data.boxes.sources import find_boxes
        from edgetl.data.boxes.truths import root_of

        found = find_boxes(data)
        return None if found is None else root_of(found)
    from edgetl.data.sources import find

    return find(str(data), labelling).root
