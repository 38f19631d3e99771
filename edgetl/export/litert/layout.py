"""In which order a tensor's axes are stored.

ONNX keeps channels before height and width, LiteRT behind. A tensor is stored in an order of axes: `order[i]` is the
ONNX tensor's axis that stands at place i, so that an image (N, C, H, W) is stored as (N, H, W, C) in the order
(0, 2, 3, 1). A transposition then only renames axes, and many reshapes work on any order; what has to be moved is found
out where an operator wants a certain order.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

Order = tuple[int, ...]
CHANNELS_LAST: Order = (0, 2, 3, 1)


def plain(rank: int) -> Order:
    """ONNX's own order."""
    return tuple(range(rank))


def stored(shape: Sequence[int], order: Order) -> tuple[int, ...]:
    """The shape as it is stored."""
    return tuple(shape[axis] for axis in order)


def transposed(order: Order, permutation: Sequence[int]) -> Order:
    """The order of ONNX's Transpose of a tensor, whose values stay where they are."""
    return tuple(list(permutation).index(axis) for axis in order)


def without(order: Order, axes: Sequence[int]) -> Order:
    """The order when axes are gone and the others are numbered anew."""
    kept = [axis for axis in range(len(order)) if axis not in axes]
    return tuple(kept.index(axis) for axis in order if axis in kept)


def moving(shape: Sequence[int], order: Order) -> list[int]:
    """The axes longer than 1, as they are stored; the others have no place of their own."""
    return [axis for axis in order if shape[axis] != 1]


def usual(shape: Sequence[int], axes: Sequence[int]) -> Order:
    """An order that stores these axes one after the other, channels last or ONNX's own where that does.

    Args:
        shape: the tensor's.
        axes: those longer than 1.
    """
    rank = len(shape)
    for order in ((CHANNELS_LAST,) if rank == 4 else ()) + (plain(rank),):
        if moving(shape, order) == list(axes):
            return order
    return (*(axis for axis in range(rank) if shape[axis] == 1), *axes)


def reshaped(shape: Sequence[int], order: Order, result: Sequence[int]) -> tuple[Order, Order]:
    """How a tensor is reshaped as it is stored.

    Returns:
        The order that it has to be brought to before, which is `order` where nothing has to be moved, and the order
        of the result.
    """
    groups = _groups(shape, result)
    places = {axis: number for number, (before, _) in enumerate(groups) for axis in before}
    axes = moving(shape, order)
    sequence = list(dict.fromkeys(places[axis] for axis in axes))
    wanted = [axis for number in sequence for axis in groups[number][0]]
    before = order if wanted == axes else usual(shape, wanted)
    return before, usual(result, [axis for number in sequence for axis in groups[number][1]])


def _groups(shape: Sequence[int], result: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The fewest axes that are reshaped together, of both shapes, without those of length 1."""
    before = [axis for axis, length in enumerate(shape) if length != 1]
    after = [axis for axis, length in enumerate(result) if length != 1]
    groups = []
    while before or after:
        left, right = [before.pop(0)], [after.pop(0)]
        while (have := prod(shape[a] for a in left)) != (want := prod(result[a] for a in right)):
            if have < want:
                left.append(before.pop(0))
            else:
                right.append(after.pop(0))
        groups.append((left, right))
    return groups
