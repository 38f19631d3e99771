"""The page's part about which channel groups can be cut: each cut by itself, as a heat map."""

from __future__ import annotations

from edgetl.records.prune import GroupCut, GroupSensitivity, PruneSensitivity
from edgetl.report import units
from edgetl.report.page.axes import NARROW
from edgetl.report.page.markup import Markup, disclosure, figure, tag
from edgetl.report.page.svg import Drawing, shorten

_ROW, _HEAD = 20.0, 26.0
_OPEN_UP_TO = 40
_FAINTEST, _STRONGEST = 0.04, 0.92


def sensitivity(record: PruneSensitivity | None, name: str) -> Markup:
    """What each group costs by itself, by the score of that name; nothing where it was not measured."""
    if record is None or not record.groups:
        return Markup("")
    shares = ", ".join(units.percent(share, 0) for share in record.shares)
    lead = (
        f"Each group of channels cut by itself by about {shares}, its least important channels first, batch norms"
        f" measured anew, nothing trained: the change of validation {units.metric(name)} in points, from"
        f" {units.percent(record.score)} uncut. Groups that cost much can be named in prune.keep."
        " n/a: the group is too small for that share."
    )
    drawn = figure(lambda width: sensitivity_map(record, name, width), wide=760.0)
    title = f"{units.counted(len(record.groups), 'group')} cut by itself"
    shown = drawn if len(record.groups) <= _OPEN_UP_TO else disclosure(title, drawn)
    return Markup(tag("h3", "Sensitivity of the groups") + tag("p", lead, css="lead") + shown)


def sensitivity_map(record: PruneSensitivity, name: str, width: float) -> str:
    """One row per group in the network's order, One cell per share: the darker, the more of the score was lost.

    On the right stands what cutting half of the group saves, as a share of the network's multiply-accumulates.
    """
    small = width < NARROW
    names, left, right = (16, 116.0, 54.0) if small else (34, 226.0, 110.0)
    cell = (width - left - right) / len(record.shares)
    drawing = Drawing(width, _HEAD + len(record.groups) * _ROW + 4)
    most = max((record.score - c.score for g in record.groups for c in g.cuts if c), default=0.0)
    for column, share in enumerate(record.shares):
        middle = left + (column + 0.5) * cell
        drawing.text(
            middle, 16, f"{'' if small else 'without '}{units.percent(share, 0)}", "tick", anchor="middle"
        )
    drawing.text(width, 16, "saves" if small else "half saves, MACs", "tick", anchor="end")
    for row, group in enumerate(record.groups):
        top = _HEAD + row * _ROW
        caption = f"{group.name}: {units.counted(group.channels, 'channel')}"
        drawing.text(left - 8, top + 14, shorten(group.name, names), "note", anchor="end", title=caption)
        for column, cut in enumerate(group.cuts):
            _cell(drawing, group, cut, name, record.score, most, left + column * cell, top, cell)
        half = _half(record, group)
        drawing.text(width, top + 14, units.percent(half.saved) if half else "", "note", anchor="end")
    worst = [(c.score, g.name) for g in record.groups for c in g.cuts if c]
    described = (
        f"Worst: {min(worst)[1]}, {units.metric(name)} {units.percent(min(worst)[0])}"
        if worst
        else "No group can be cut"
    )
    return drawing.render(f"{units.metric_title(name)} with each group of channels cut by itself", described)


def _cell(
    drawing: Drawing,
    group: GroupSensitivity,
    cut: GroupCut | None,
    name: str,
    uncut: float,
    most: float,
    x: float,
    y: float,
    wide: float,
) -> None:
    if cut is None:
        drawing.rect(x + 1, y + 1, wide - 2, _ROW - 2, "matrix", title=f"{group.name}: too small", radius=3)
        drawing.text(x + wide / 2, y + 14, "n/a", "note", anchor="middle")
        return
    lost = max(uncut - cut.score, 0.0)
    shade = _FAINTEST + (_STRONGEST - _FAINTEST) * (lost / most if most > 0 else 0.0)
    caption = (
        f"{group.name} without {cut.removed} of {group.channels} channels: {units.metric(name)}"
        f" {units.percent(cut.score)}, saves {units.percent(cut.saved)} of the multiply-accumulates"
    )
    drawing.rect(x + 1, y + 1, wide - 2, _ROW - 2, "miss", title=caption, opacity=shade, radius=3)
    css = "cell on" if shade > 0.55 else "cell"
    drawing.text(x + wide / 2, y + 14, f"{100 * (cut.score - uncut):+.1f}", css, anchor="middle")


def _half(record: PruneSensitivity, group: GroupSensitivity) -> GroupCut | None:
    nearest = min(range(len(record.shares)), key=lambda i: abs(record.shares[i] - 0.5))
    return group.cuts[nearest]
