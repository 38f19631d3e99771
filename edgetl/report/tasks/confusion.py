"""The confusion matrix as a heat map that stays readable up to a hundred classes."""

from __future__ import annotations

import math

from edgetl.report import units
from edgetl.report.page.axes import NARROW
from edgetl.report.page.svg import Drawing, shorten, text_width
from edgetl.report.run import ratio
from edgetl.tasks.classification.detail import ClassDetail

MOST_CLASSES = 100
_MOST_NAMED = 40
_MOST_NAMED_NARROW = 16
_MOST_COUNTED = 20


def shown_classes(detail: ClassDetail) -> tuple[int, ...]:
    """The classes that the heat map shows: all, or the hundred of lowest recall, in label order."""
    total = len(detail.classes)
    if total <= MOST_CLASSES:
        return tuple(range(total))
    return tuple(sorted(class_order(detail)[:MOST_CLASSES]))


def heat_map(detail: ClassDetail, width: float) -> str:
    """Rows are true classes, columns predictions; colour deepens with the share of the row.

    Labels collapse to class numbers where there is no room for names, counts to colour where there is no room
    for digits; every cell keeps its figures in a tooltip.
    """
    shown = shown_classes(detail)
    names = [detail.classes[i].label for i in shown]
    narrow = width < NARROW
    named = len(shown) <= (_MOST_NAMED_NARROW if narrow else _MOST_NAMED)
    size = 10.0 if narrow or len(shown) > 24 else 11.5
    most = 10 if narrow else 16
    texts = [shorten(n, most) for n in names] if named else [str(i + 1) for i in shown]
    left = max(text_width(t, size) for t in texts) + 24
    top = max(text_width(t, size) for t in texts) * 0.72 + 34 if named else 40.0
    side = (width - left - (30 if named and not narrow else 8)) / len(shown)
    side = min(side, 46.0)
    drawing = Drawing(width, top + side * len(shown) + 8)
    end = left + side * len(shown)
    drawing.rect(left, top, end - left, end - left, "matrix")
    drawing.text((left + end) / 2, 12, "predicted", "title", anchor="middle")
    middle = top + (end - left) / 2
    drawing.text(11, middle, "true", "title", anchor="middle", turn=-90)
    css = "tick" if size > 11 else "tick tight"
    every = 1 if named else math.ceil(len(shown) / (12 if narrow else 20))
    for i, text in enumerate(texts):
        if i and (i + 1) % every:
            continue
        at = (i + 0.5) * side
        drawing.text(left - 6, top + at + 4, text, css, anchor="end", title=names[i])
        if named:
            drawing.text(left + at + 3, top - 6, text, css, turn=-45, title=names[i])
        else:
            drawing.text(left + at, top - 6, text, css, anchor="middle", title=names[i])
    counted = len(shown) <= _MOST_COUNTED and side >= 15
    place = {number: i for i, number in enumerate(shown)}
    for row, column, count in detail.cells:
        if row in place and column in place:
            i, j, total = place[row], place[column], detail.classes[row].support
            share = ratio(count, total)
            caption = f"{names[i]} → {names[j]}: {count} of {total} ({units.percent(share)})"
            x, y = left + j * side, top + i * side
            _cell(drawing, x, y, side, count, share, row == column, caption, counted)
    images = sum(cell[2] for cell in detail.cells)
    right = sum(n for row, column, n in detail.cells if row == column)
    label = f"Confusion matrix of {len(shown)} classes on {images} images"
    return drawing.render(label, f"{units.percent(ratio(right, images))} lie on the diagonal")


def _cell(
    drawing: Drawing,
    x: float,
    y: float,
    side: float,
    images: int,
    share: float,
    hit: bool,
    caption: str,
    counted: bool,
) -> None:
    opacity = 0.18 + 0.82 * math.sqrt(share)
    gap = 1.0 if side > 8 else 0.0
    css = "hit" if hit else "miss"
    drawing.rect(
        x + gap / 2,
        y + gap / 2,
        side - gap,
        side - gap,
        css,
        title=caption,
        opacity=opacity,
        radius=2 if gap else 0,
    )
    if counted:
        drawing.text(
            x + side / 2,
            y + side / 2 + 4,
            str(images),
            "cell on" if opacity > 0.62 else "cell",
            anchor="middle",
        )


def class_order(detail: ClassDetail) -> tuple[int, ...]:
    """Class indices by recall, lowest first; classes without images come last."""
    scores = detail.classes
    return tuple(
        sorted(range(len(scores)), key=lambda i: (scores[i].support == 0, scores[i].recall, scores[i].label))
    )


def confused_pairs(detail: ClassDetail, limit: int) -> tuple[tuple[str, str, int, float], ...]:
    """The most frequent mistakes: (true label, predicted label, images, share of the true class's images)."""
    names = [c.label for c in detail.classes]
    pairs = [
        (names[i], names[j], n, ratio(n, detail.classes[i].support)) for i, j, n in detail.cells if i != j
    ]
    pairs.sort(key=lambda pair: (-pair[2], -pair[3], pair[0], pair[1]))
    return tuple(pairs[:limit])
