"""The page's parts in order: anchor, title, and what builds the part (empty text leaves it out)."""

from __future__ import annotations

from collections.abc import Callable

from edgetl.report.page import making, variants
from edgetl.report.page.answers import answers
from edgetl.report.page.markup import Markup
from edgetl.report.run import RunReport

SECTIONS: tuple[tuple[str, str, Callable[[RunReport], Markup]], ...] = (
    ("variants", "Accuracy against latency", variants.variants),
    ("classes", "Shipped variant by class", answers),
    ("latency", "Latency distribution", variants.latency),
    ("training", "Training", making.training),
    ("pruning", "Pruning", making.pruning),
    ("deployment", "Export and quantization", making.deployment),
    ("data", "Data", making.data),
    ("provenance", "Machine and provenance", making.provenance),
    ("recipe", "Recipe", making.recipe),
)
