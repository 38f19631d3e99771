"""Every figure that a task may score, and how it is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from edgetl.errors import ConfigError
from edgetl.tasks.base import MetricSpec

TOP1 = MetricSpec(name="top1", title="top-1")
MACRO_F1 = MetricSpec(name="macro_f1", title="macro-F1")
BALANCED_ACCURACY = MetricSpec(name="balanced_accuracy", title="balanced accuracy")
TOP5 = MetricSpec(name="top5", title="top-5")
CALIBRATION_ERROR = MetricSpec(
    name="calibration_error", title="calibration error", higher_is_better=False, per_image=False
)
SEVERITY = MetricSpec(name="severity", title="severity of mistakes", higher_is_better=False, per_image=False)
LABEL_DISTANCE = MetricSpec(name="label_distance", title="label distance", higher_is_better=False)
MAP = MetricSpec(name="map", title="mAP", per_image=False)
MAP50 = MetricSpec(name="map50", title="mAP50", per_image=False)
AVERAGE_RECALL = MetricSpec(name="recall", title="average recall", per_image=False)
EXACT = MetricSpec(name="exact", title="exact match")
MEAN = MetricSpec(name="mean", title="mean of heads")
METRICS = (
    *(MAP, MAP50, AVERAGE_RECALL, EXACT, MEAN),
    *(TOP1, MACRO_F1, BALANCED_ACCURACY, TOP5, SEVERITY, LABEL_DISTANCE, CALIBRATION_ERROR),
)


def metric(name: str) -> MetricSpec:
    """A metric by its name; of a head's, `head/name`, the head stands in the title too.

    Raises:
        KeyError: there is none of that name.
    """
    head, _, plain = name.rpartition("/")
    found = next((spec for spec in METRICS if spec.name == plain), None)
    if found is None:
        raise KeyError(f"there is no metric {name!r}; there are {', '.join(spec.name for spec in METRICS)}")
    return dataclasses.replace(found, name=name, title=f"{head} {found.title}") if head else found


def chosen(asked: str | None, metrics: Sequence[MetricSpec], *, setting: str) -> str:
    """The metric by which models are chosen or held to a floor: the one that is asked for, else the task's first.

    Args:
        asked: its name, or None.
        metrics: the task's.
        setting: where it was asked for.

    Raises:
        ConfigError: the task does not score it, or less of it is better.
    """
    names = [spec.name for spec in metrics if spec.higher_is_better]
    if asked is None:
        return names[0]
    if asked not in names:
        raise ConfigError(f"{setting}: got {asked!r}, expected a metric of this data: {', '.join(names)}.")
    return asked
