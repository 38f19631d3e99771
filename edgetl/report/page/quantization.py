"""The page's part about quantization: the variants, how accuracy was won back, and what each layer costs."""

from __future__ import annotations

import math

from edgetl.records.variants import LayerSensitivity, QuantizeRecord
from edgetl.report import units
from edgetl.report.page.axes import NARROW
from edgetl.report.page.markup import (
    HALF,
    Column,
    Markup,
    Row,
    columns,
    definitions,
    disclosure,
    figure,
    html,
    table,
    tag,
)
from edgetl.report.page.svg import Drawing, Scale, shorten
from edgetl.report.run import quantized_cells

_SHOWN = 16
_ROW = 20.0
_FAINTEST = 1e-8


def quantized(record: QuantizeRecord, *, adapted: bool) -> Markup:
    """All that the page shows of a quantize record.

    Args:
        record: of quantization.
        adapted: half of the calibration images were to be of the domain that the teacher was adapted to.
    """
    drawn = "of the training split and of the target" if adapted else "of the training split"
    metric = units.metric(record.metric)
    listed = definitions(
        [
            ("Range estimator", record.method),
            ("Calibration images", f"{record.calibration_images} {drawn}"),
            ("Calibration set", record.calibration),
            ("Calibration key", tag("code", record.calibration_key)),
            (f"Validation {metric} in float", units.percent(record.float_score)),
            ("Floor", units.percent(record.floor)),
        ]
    )
    parts = [
        tag("div", tag("h3", "Quantization"), listed, _notes(record)),
        tag("div", _variants(record, metric)),
    ]
    return Markup(columns(*parts) + _sensitivity(record.sensitivity))


def _notes(record: QuantizeRecord) -> Markup:
    return tag("ul", *(tag("li", note) for note in record.notes)) if record.notes else Markup("")


def _variants(record: QuantizeRecord, metric: str) -> Markup:
    heads = (
        Column(header="Variant"),
        Column(header="Size", number=True),
        Column(header="Recovery"),
        Column(header=f"Val {metric}", number=True),
        Column(header="In INT8", number=True, hint="quantized nodes"),
        Column(header="In float", number=True, hint="nodes that cost time in float"),
    )
    rows = [Row(cells=quantized_cells(v)) for v in record.variants]
    tries = tuple(f"{a.target}, {a.name}: {units.percent(a.score)}" for a in record.attempts)
    extra = [disclosure("What was tried", tag("ul", *(tag("li", t) for t in tries)))] if tries else []
    for v in record.variants:
        if v.left_in_float:
            items = tag("ul", *(tag("li", tag("code", node)) for node in v.left_in_float))
            kept = units.counted(len(v.left_in_float), "node")
            extra.append(disclosure(f"{v.name}: {kept} left in float", items))
    return Markup(table(heads, rows, "Quantized variants") + "".join(html(e) for e in extra))


def _sensitivity(layers: tuple[LayerSensitivity, ...]) -> Markup:
    if not layers:
        return Markup("")
    lead = (
        "What quantizing a single layer costs, from one pass over a few images: the power of its noise at the logits"
        " over theirs (to first order), and the power of its output over that of its noise. The worst come first."
    )
    divergence = tag(
        "div",
        tag("h3", "Divergence of the logits"),
        figure(lambda width: divergence_bars(layers, width), wide=HALF),
    )
    noise = tag(
        "div", tag("h3", "Signal to noise, dB"), figure(lambda width: sqnr_bars(layers, width), wide=HALF)
    )
    return Markup(
        tag("h3", "Sensitivity of the layers") + tag("p", lead, css="lead") + columns(divergence, noise)
    )


def divergence_bars(layers: tuple[LayerSensitivity, ...], width: float) -> str:
    """One bar per layer, by the logarithm of its divergence."""
    shown = layers[:_SHOWN]
    values = [max(layer.divergence, _FAINTEST) for layer in shown]
    low = 10.0 ** math.floor(math.log10(min(values)) - 0.5)
    scale = Scale(low=low, high=max(*values, low * 10), start=0.0, end=1.0, log=True)
    caption = [f"{layer.divergence:.2g}" for layer in shown]
    return _bars("Divergence of the logits by layer", shown, [scale(v) for v in values], caption, width)


def sqnr_bars(layers: tuple[LayerSensitivity, ...], width: float) -> str:
    """One bar per layer, by its signal-to-quantization-noise ratio; the same order as the divergence's."""
    shown = layers[:_SHOWN]
    scale = Scale(low=0.0, high=max(max(layer.sqnr_db for layer in shown), 1.0), start=0.0, end=1.0)
    caption = [f"{layer.sqnr_db:.1f} dB" for layer in shown]
    return _bars(
        "Signal to quantization noise by layer", shown, [scale(x.sqnr_db) for x in shown], caption, width
    )


def _bars(
    title: str, layers: tuple[LayerSensitivity, ...], shares: list[float], caption: list[str], width: float
) -> str:
    small = width < NARROW
    names, left, right = (20, 136.0, 56.0) if small else (30, 196.0, 60.0)
    drawing = Drawing(width, len(layers) * _ROW + 8)
    for row, (layer, share, text) in enumerate(zip(layers, shares, caption, strict=True)):
        top = row * _ROW + 4
        full = f"{layer.name} ({layer.operator}): {text}"
        drawing.text(left - 8, top + 13, shorten(layer.name, names), "note", anchor="end", title=full)
        length = max(share * (width - left - right), 1.0)
        drawing.rect(left, top + 2, length, _ROW - 6, "s0 dot", title=full, radius=2)
        drawing.text(left + length + 6, top + 13, text, "note")
    return drawing.render(title, f"Worst: {layers[0].name}, {caption[0]}")
