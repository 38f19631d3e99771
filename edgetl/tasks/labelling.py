"""How images are labelled for a task: what is to be read from a folder or CSV."""

from __future__ import annotations

from typing import TypeAlias, assert_never

from edgetl.records.frozen import dataclass
from edgetl.tasks.base import Classification, Detection, MultiHead, MultiLabel, TaskSpec


@dataclass(frozen=True, kw_only=True)
class OneLabel:
    """One class per image: its folder's name, or the name in a CSV's column."""

    column: str = "label"


@dataclass(frozen=True, kw_only=True)
class AnyLabels:
    """Any number of classes per image: a CSV's column of names parted by `|`, or one column of 0 and 1 per class.

    `none` in the column says that the image shows none of the classes. So does an empty cell, but not of a head's
    column, where it says that nothing is known.
    """

    column: str = "labels"


@dataclass(frozen=True, kw_only=True)
class HeadLabels:
    """Several questions, each with its column; (name, how it is labelled) of each head."""

    heads: tuple[tuple[str, OneLabel | AnyLabels], ...]


OWN_COLUMNS = ("path", "split", "group", "domain")
"""A CSV's columns that hold no labels."""
Labelling: TypeAlias = OneLabel | AnyLabels | HeadLabels
"""What is to be read from a source."""
ONE_LABEL = OneLabel()


def labelling_of(task: TaskSpec) -> Labelling:
    """How images for a task are labelled, where nothing else is said: a head's column has its name."""
    match task:
        case Classification() | Detection():
            return OneLabel()
        case MultiLabel():
            return AnyLabels()
        case MultiHead():
            return HeadLabels(
                heads=tuple(
                    (
                        name,
                        OneLabel(column=name) if isinstance(head, Classification) else AnyLabels(column=name),
                    )
                    for name, head in task.heads.items()
                )
            )
        case _:
            assert_never(task)
