"""The page's parts in order: anchor, title, and what builds the part (empty text leaves it out).

What builds it gets the run's folder too, for pictures of its images; None where the page stands by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgetl.report.page import making, variants
from edgetl.report.page.adaptation import adaptation
from edgetl.report.page.answers import answers
from edgetl.report.page.confidence import confidence
from edgetl.report.page.doubts import doubts
from edgetl.report.page.extension import extension
from edgetl.report.page.layers import layers
from edgetl.report.page.markup import Markup
from edgetl.report.page.precision import answer_curves
from edgetl.report.page.pretraining import pretraining
from edgetl.report.page.unknown import unknown
from edgetl.report.page.waterfall import waterfall
from edgetl.report.run import RunReport

Build = Callable[[RunReport, Path | None], Markup]


def _of_records(build: Callable[[RunReport], Markup]) -> Build:
    """What needs the records and no picture."""
    return lambda report, _: build(report)


SECTIONS: tuple[tuple[str, str, Build], ...] = (
    ("variants", "Accuracy against latency", _of_records(variants.variants)),
    ("waterfall", "Stage by stage", _of_records(waterfall)),
    ("classes", "Shipped variant by class", answers),
    ("curves", "Precision, recall and sure answers", _of_records(answer_curves)),
    ("confidence", "How sure", _of_records(confidence)),
    ("unknown", "Unknown images", _of_records(unknown)),
    ("latency", "Latency distribution", _of_records(variants.latency)),
    ("layers", "Latency by layer", _of_records(layers)),
    ("extension", "Known and new classes", _of_records(extension)),
    ("pretraining", "Pretraining", _of_records(pretraining)),
    ("training", "Training", _of_records(making.training)),
    ("adaptation", "Adaptation", _of_records(adaptation)),
    ("pruning", "Pruning", _of_records(making.pruning)),
    ("deployment", "Export and quantization", _of_records(making.deployment)),
    ("labels", "Labels to look at", doubts),
    ("data", "Data", _of_records(making.data)),
    ("provenance", "Machine and provenance", _of_records(making.provenance)),
    ("recipe", "Recipe", _of_records(making.recipe)),
)
