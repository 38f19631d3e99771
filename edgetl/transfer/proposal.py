"""A ranking's proposal as settings of a new recipe, each with its reason."""

from __future__ import annotations

import tomllib

from edgetl.config import PreprocessConfig
from edgetl.data.index import DataIndex
from edgetl.data.suggest import Suggestion
from edgetl.progress import SILENT, Progress
from edgetl.records.transfer import BackboneRanking
from edgetl.transfer import stage


def proposed_settings(
    index: DataIndex,
    preprocess: PreprocessConfig,
    *,
    latency_ms: float | None = None,
    progress: Progress = SILENT,
) -> tuple[Suggestion, ...]:
    """Rank the small backbones that are on this machine, and say what the best one stands for.

    Args:
        index: the images.
        preprocess: how they are resized.
        latency_ms: the median that shall be kept; None for no budget.
        progress: shows what is being done.

    Raises:
        DataError: the images are not labelled for one question, or a split has too few.
        WeightsError: no backbone's weights can be had.
    """
    stage.check_task(index.task)
    ranking = stage.run(stage.RankingConfig(latency_ms=latency_ms), index, preprocess, progress=progress)
    return as_suggestions(ranking)


def as_suggestions(ranking: BackboneRanking) -> tuple[Suggestion, ...]:
    """The settings of a ranking's proposal; the first bears the reason, the others name it."""
    chosen = ranking.choice
    why = f"by linear probes on {ranking.val_images} validation images, {ranking.reason}"
    others = {
        "train.weights": f"the weights that {chosen.title} was looked at with",
        "preprocess.size": f"the side that {chosen.title} was chosen at (see train.backbone)",
        "prune.target": f"{chosen.name} takes {chosen.latency.p50_ms:.2f} ms uncut",
    }
    found = []
    for section, settings in tomllib.loads("\n".join(ranking.settings)).items():
        for key, value in settings.items():
            name = f"{section}.{key}"
            found.append(Suggestion(key=name, value=value, reason=others.get(name, why)))
    return tuple(found)
