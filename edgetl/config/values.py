"""Kinds of values that settings share, and what every section is."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from edgetl.tasks.metrics import METRICS


def _fraction(value: float) -> float:
    if not 0.0 <= value < 1.0:
        raise PydanticCustomError("fraction", "input should be at least 0 and below 1")
    return value


def _open_fraction(value: float) -> float:
    if not 0.0 < value < 1.0:
        raise PydanticCustomError("fraction", "input should be above 0 and below 1")
    return value


Fraction = Annotated[float, AfterValidator(_fraction)]
OpenFraction = Annotated[float, AfterValidator(_open_fraction)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]
Epochs = Annotated[int, Field(ge=0)]
FEW_STEPS = 5
"""An epoch of fewer steps leaves batch norm's statistics behind the weights: they move by a tenth per step."""


def _metric(name: str) -> str:
    """A metric's name; whether the data's task scores it is seen once the data is read."""
    known = [spec.name for spec in METRICS if spec.higher_is_better]
    if name.rpartition("/")[2] not in known:
        raise ValueError(
            f"there is no metric {name!r} to choose by; there are {', '.join(known)}, or HEAD/METRIC"
        )
    return name


MetricName = Annotated[str, AfterValidator(_metric)]
"""The score by which models are chosen and held to the floor; of one head, `head/name`."""


class Section(BaseModel):
    """A frozen section of a recipe, in which no unknown key passes."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )
