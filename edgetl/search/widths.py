"""How wide a network may be to hold a budget, by networks that were timed.

Over a wide range milliseconds are a power of the multiply-accumulates, and the power is below one: a narrow network
spends more of its time on calls and copies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

AIM = 0.93
"""A width that should just hold a budget aims at so much of it."""
_FLAT, _STEEP = 0.3, 1.1
"""No line through two timings is taken to be flatter or steeper: they may be near each other, and times scatter."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """A network's multiply-accumulates, or its share of another one's, and its milliseconds; both above 0."""

    macs: float
    ms: float


def power_of(first: Timing, second: Timing, usual: float = 1.0) -> float:
    """The power by which milliseconds grow with the multiply-accumulates from one network to another.

    Args:
        first, second: as timed, in either order.
        usual: the answer where both have the same multiply-accumulates.
    """
    if first.macs == second.macs:
        return usual
    found = math.log(first.ms / second.ms) / math.log(first.macs / second.macs)
    return min(max(found, _FLAT), _STEEP)


def macs_within(ms: float, timed: Sequence[Timing], usual: float) -> float:
    """The multiply-accumulates at which a network should take so long, on the line through the two nearest timings.

    Args:
        ms: milliseconds, above 0.
        timed: networks of one kind, at least one.
        usual: the power where there is one timing only.

    Returns:
        In the unit of `timed`.
    """
    inside = max((one for one in timed if one.ms <= ms), key=lambda one: one.macs, default=None)
    beyond = min((one for one in timed if one.ms > ms), key=lambda one: one.macs, default=None)
    if inside is not None and beyond is not None and inside.macs >= beyond.macs:
        return inside.macs  # the times contradict each other, and this one was seen to hold
    nearest = sorted(timed, key=lambda one: abs(math.log(one.ms / ms)))
    first = inside or beyond
    assert first is not None
    second = beyond if inside is not None and beyond is not None else _next(first, nearest)
    power = usual if second is None else power_of(first, second, usual)
    return first.macs * math.pow(ms / first.ms, 1 / power)


def _next(first: Timing, nearest: Sequence[Timing]) -> Timing | None:
    return next((one for one in nearest if one.macs != first.macs), None)
