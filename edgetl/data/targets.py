"""What is right for an image, as plain values, and the groups that images come in by it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeAlias, assert_never

from edgetl.tasks.base import Classification, Detection, MultiHead, MultiLabel, TaskSpec

NONE = -1
"""The stratum of an image of no class."""

ClassTarget: TypeAlias = int
"""The position of the class in the task's labels."""
LabelsTarget: TypeAlias = tuple[int, ...]
"""The positions of the classes, ascending; empty where the image shows none of them."""
HeadsTarget: TypeAlias = tuple[int | tuple[int, ...] | None, ...]
"""One target per head in the order of the task's heads; None where the image is not labelled for it."""
SampleTarget: TypeAlias = int | tuple[Any, ...]
"""Of boxes, the rarest class among them, or `NONE`; else a
`ClassTarget`, `LabelsTarget` or `HeadsTarget`, as the task asks; JSON values but for tuples."""


def positions(task: TaskSpec, target: Any) -> tuple[int, ...]:
    """The positions of an image's classes in `labels_of(task)`, the flat names of the network's outputs."""
    match task:
        case Classification():
            return (target,)
        case Detection():
            return () if target == NONE else (target,)
        case MultiLabel():
            return tuple(target)
        case MultiHead():
            found, start = list[int](), 0
            for head, own in zip(task.heads.values(), target, strict=True):
                found += [] if own is None else [start + at for at in positions(head, own)]
                start += len(head.labels)
            return tuple(found)
        case _:
            assert_never(task)


def first_class(task: TaskSpec, target: Any) -> int:
    """The one class of an image where one is needed: of several the first, of several heads that of the first head.

    Returns:
        Its position in the labels of the task, or of the first head; `NONE` where there is none.
    """
    match task:
        case Classification() | Detection():
            return int(target)
        case MultiLabel():
            return min(target, default=NONE)
        case MultiHead():
            head = next(iter(task.heads.values()))
            return NONE if target[0] is None else first_class(head, target[0])
        case _:
            assert_never(task)


def heads_target(task: MultiHead, names: Sequence[str], none_of: Sequence[str] = ()) -> HeadsTarget:
    """What is right for an image of these flat names `head/name`; of the heads `none_of`, none of their classes."""
    found: list[int | tuple[int, ...] | None] = []
    for head, spec in task.heads.items():
        own = sorted(at for at, label in enumerate(spec.labels) if f"{head}/{label}" in names)
        if isinstance(spec, Classification):
            found.append(own[0] if own else None)
        else:
            found.append(tuple(own) if own or head in none_of else None)
    return tuple(found)


def strata(task: TaskSpec, targets: Sequence[Any]) -> list[int]:
    """The group of each image where groups are to be met evenly: a position in `labels_of(task)`, or `NONE`.

    Of one class per image the class; of several the one that is rarest among these targets; of several heads the
    stratum of the first head that the image is labelled for.
    """
    match task:
        case Classification() | Detection():
            return list(targets)
        case MultiLabel():
            sizes = Counter(at for target in targets for at in target)
            return [min(target, key=lambda at: (sizes[at], at), default=NONE) for target in targets]
        case MultiHead():
            found, start = [NONE] * len(targets), 0
            for number, head in enumerate(task.heads.values()):
                open_ = [i for i, own in enumerate(targets) if found[i] == NONE and own[number] is not None]
                for i, at in zip(open_, strata(head, [targets[i][number] for i in open_]), strict=True):
                    found[i] = NONE if at == NONE else start + at
                start += len(head.labels)
            return found
        case _:
            assert_never(task)


def order(target: Any) -> tuple[Any, ...]:
    """A key to sort targets of one task by; of one class per image, in the order of the classes."""
    if target is None:
        return ()
    return (target,) if isinstance(target, int) else tuple(order(part) for part in target)


def from_plain(value: Any) -> SampleTarget:
    """A target as JSON gave it back, its lists tuples again."""
    return (
        tuple(part if part is None else from_plain(part) for part in value)
        if isinstance(value, list)
        else value
    )
