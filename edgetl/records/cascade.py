"""What a cascade is made of and what it was worth: in its variant's manifest entry, and as the command's result."""

from __future__ import annotations

from edgetl.records.frozen import dataclass
from edgetl.records.measured import Latency, Machine
from edgetl.records.scores import Score


@dataclass(frozen=True, kw_only=True)
class CascadeMember:
    """One of its two models: the bundle that it comes from, by name and SHA-256, its variant there, the side of its
    input in pixels, and its top-1 on the images that the cascade was judged on."""

    bundle: str
    sha256: str
    variant: str
    size: int
    top1: Score


@dataclass(frozen=True, kw_only=True)
class Cascade:
    """How a cascade answers, and what it did on images that had no part in its making.

    Attributes:
        small: answers where its two best logits, divided by its temperature, are `threshold` or more apart: by this
            margin its best class is that many times likelier than the second, in natural logarithms.
        large: answers the other images.
        threshold: 0 or more.
        floor: the least top-1 that was asked for; None: the larger model's.
        chosen_on: images by which the threshold was chosen.
        judged_on: other images, on which all that follows was measured.
        handed_on: the share of them that the larger model answered.
        top1: the cascade's.
        lost, won: images that only the larger model, and only the cascade, got right.
        p_value: of McNemar's exact test that both are right equally often.
        large_latency: the larger model's by itself, timed in turn with the cascade's, which is the variant's own.
    """

    small: CascadeMember
    large: CascadeMember
    threshold: float
    floor: float | None
    chosen_on: int
    judged_on: int
    handed_on: float
    top1: Score
    lost: int
    won: int
    p_value: float
    large_latency: Latency


@dataclass(frozen=True, kw_only=True)
class CascadeRecord:
    """A cascade that was written, and whether it holds: it is not worse than was asked, and faster than the larger
    model alone in the mean; `reason` says both in a sentence. `left_out` counts images that a member learned from.
    """

    path: str
    sha256: str
    size_bytes: int
    variant: str
    cascade: Cascade
    latency: Latency
    machine: Machine
    left_out: int
    holds: bool
    reason: str
