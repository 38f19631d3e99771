"""How far each step of a pruning schedule cuts."""

from __future__ import annotations


def shares(target: float, steps: int) -> tuple[float, ...]:
    """The share of the cost that is left after each step: each step keeps the same share of what it finds.

    Args:
        target: the share left at the end, in (0, 1).
        steps: number of steps, 1 or more.

    Returns:
        `steps` falling values; the last is `target` exactly.
    """
    return (*(target ** (step / steps) for step in range(1, steps)), target)
