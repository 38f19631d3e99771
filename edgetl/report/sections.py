"""The page's parts in order: anchor, title, and what builds the part (empty text leaves it out)."""

from __future__ import annotations

from collections.abc import Callable

from edgetl.report import history, results
from edgetl.report.document import RunReport
from edgetl.report.markup import Markup

SECTIONS: tuple[tuple[str, str, Callable[[RunReport], Markup]], ...] = (
    ("variants", "Accuracy against latency", results.variants),
    ("classes", "Shipped variant by class", results.evaluation),
    ("latency", "Latency distribution", results.latency),
    ("training", "Training", history.training),
    ("pruning", "Pruning", history.pruning),
    ("deployment", "Export and quantization", history.deployment),
    ("data", "Data", history.data),
    ("provenance", "Machine and provenance", history.provenance),
    ("recipe", "Recipe", history.recipe),
)
