"""Which variant ships: the fastest that keeps the accuracy floor."""

from __future__ import annotations

from collections.abc import Sequence

from edgetl.records.scores import value
from edgetl.records.variants import VariantScore

FLOAT = "fp32"
"""The precision that others are held against."""


def choose(variants: Sequence[VariantScore], metric: str, floor: float) -> tuple[str, bool, str]:
    """Choose the fastest measured variant that keeps the floor; the most accurate one where none does.

    Variants as fast as the fastest within the measurement (the 95% interval of the ratio of medians, paired
    bootstrap, reaches 1.02 or less) count as equally fast; of those the smallest file ships. But a variant that is
    slower than float32 beyond the measurement's uncertainty (the interval lies above 1) never ships, however little,
    and one that is made for another machine is not judged here.

    Args:
        variants: at least one measured variant, with raw samples of interleaved calls.
        metric: the score held to the floor, on the validation split.
        floor: the least allowed score, in 0..1.

    Returns:
        (name, whether the floor is met, the reason in one sentence).
    """
    from edgetl.bench.statistics import EQUAL
    from edgetl.processor import computes

    here = [v for v in variants if computes(v.target)] or list(variants)
    kept = [v for v in here if value(v.val, metric) >= floor]
    if not kept:
        best = max(here, key=lambda v: (value(v.val, metric), -v.latency.p50_ms))
        reason = (
            f"no variant keeps {metric} {floor:.1%} on the validation split; "
            f"{best.name} comes nearest with {value(best.val, metric):.1%}"
        )
        return best.name, False, reason
    fastest = min(kept, key=lambda v: v.latency.p50_ms)
    level = [v for v in kept if v is fastest or _as_fast(v, fastest, EQUAL)]
    floats = [v for v in kept if v.precision == FLOAT]
    reference = min(floats, key=lambda v: v.latency.p50_ms, default=fastest)
    level = [v for v in level if v.precision == FLOAT or _as_fast(v, reference, 1.0)] or [reference]
    chosen = min(level, key=lambda v: (v.size_bytes, v.latency.p50_ms))
    why = "the fastest variant" if len(level) == 1 else "the smallest of the equally fast variants"
    reason = (
        f"{chosen.name} is {why} that keeps {metric} {floor:.1%} on the validation split: "
        f"{chosen.latency.p50_ms:.2f} ms at {value(chosen.val, metric):.1%}"
    )
    others = [_why_not(v, kept, level, metric) for v in here if v is not chosen]
    others += [f"{v.name} is made for {v.target}, not for this machine" for v in variants if v not in here]
    return chosen.name, True, "; ".join([reason, *others])


def _as_fast(variant: VariantScore, fastest: VariantScore, limit: float) -> bool:
    """Whether the 95% interval of the ratio of medians reaches down to `limit`."""
    from edgetl.bench.statistics import median_ratio

    mine, best = variant.latency.samples_ms, fastest.latency.samples_ms
    if len(mine) < 2 or len(mine) != len(best):
        return variant.latency.p50_ms <= fastest.latency.p50_ms
    return median_ratio(best, mine, paired=True).low <= limit


def _why_not(
    variant: VariantScore, kept: Sequence[VariantScore], level: Sequence[VariantScore], metric: str
) -> str:
    if variant not in kept:
        return f"{variant.name} falls below the floor ({value(variant.val, metric):.1%})"
    if variant in level:
        return f"{variant.name} is larger ({variant.latency.p50_ms:.2f} ms)"
    return f"{variant.name} is slower ({variant.latency.p50_ms:.2f} ms)"
