"""What the adaptation stage returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgetl.records.scores import Evaluation
from edgetl.records.train import EpochRecord

NO_METHOD = "none"
"""The method of a teacher that stays as it was."""


@dataclass(frozen=True, kw_only=True)
class AdaptTry:
    """One network that was considered: the teacher as it was (`none`), or what a method made of it.

    `val` is its score on the whole validation split, by the metric that chooses; `weighted` the top-1 on the source's
    images of it, where there are some, each counting by how much like the target it is, or of them as the target's
    camera takes them; `density` the neighbourhood density of its answers on the target's images, in nats. `target` is
    its top-1 on labelled validation images of the target, where there are some, and `p_value` of the hypothesis that
    there it is no better than the teacher as it was (McNemar, one-sided, times the number of methods that made a
    network: Bonferroni). `note` says why a method made nothing, was ruled out, or may do harm.
    """

    method: str
    val: float | None = None
    weighted: float | None = None
    density: float | None = None
    target: float | None = None
    p_value: float | None = None
    seconds: float = 0.0
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class AdaptRecord:
    """An adapted teacher: its checkpoint, what was tried, what was chosen and how sure that is.

    `method` is the chosen one, `none` where the teacher stays as it is; `sure` the share of resamples that choose it
    too, in 0..1; `images` the target's different images, `held_out` those that were left out because they are in the
    validation or test split, `transductive` whether such were learned from; `labelled` the validation images of the
    target, by which the choice was made where there are some; `explained` the share of how far the domains' features
    lie apart that a change of the camera explains (at most 1, and less than 0 where it makes it worse), where that was
    looked at; `retaken` the source's validation images that, taken anew by that camera, stood in for labelled ones of
    the target. `val` and `test` are the chosen network's scores on the data's splits.
    """

    checkpoint: str
    method: str
    asked: str
    metric: str
    images: int
    held_out: int
    transductive: bool
    labelled: int
    sure: float
    tries: tuple[AdaptTry, ...]
    epochs: tuple[EpochRecord, ...]
    val: Evaluation
    test: Evaluation | None
    seconds: float
    explained: float | None = None
    retaken: int = 0

    @property
    def reason(self) -> str:
        """Why the network was chosen, one sentence."""
        found = {one.method: one for one in self.tries if one.density is not None}
        before = found[NO_METHOD]
        if self.asked != "auto" and self.asked not in found:
            return f"{self.asked} made nothing of this network, so the teacher stays as it was."
        if len(found) == 1:
            return "No method made anything of this network, so the teacher stays as it was."
        if self.labelled:
            return self._by_labels(found)
        if self.asked != "auto":
            asked, note = f"{self.asked} was asked for by name", found[self.asked].note
            harm = f", and may do harm ({note})" if note else ""
            return f"{asked}{harm}; without labels of the target nothing says whether it helped."
        same = f"{self.sure:.0%} of the resamples choose it too"
        if self.retaken:
            return f"{self._by_camera(found)}; {same}."
        if self.method == NO_METHOD:
            return (
                "No method that was tried did better on the target's images without costing accuracy where labels are,"
                f" so the teacher stays as it was; {same}."
            )
        return (
            f"{self.method}: the target's answers lie more densely around one another"
            f" ({before.density:.3f} to {found[self.method].density:.3f} nats) than with the other methods, and"
            f" accuracy where labels are is not clearly worse; {same}."
        )

    def _by_camera(self, found: Mapping[str, AdaptTry]) -> str:
        """The same, where images as the target's camera takes them decided."""
        share = (
            f"A change of the camera explains {self.explained:.0%} of the distance between the domains, and"
        )
        images = f"the {self.retaken} labelled validation images as that camera would take them"
        if self.method == NO_METHOD:
            return f"{share} no method did better on {images}, so the teacher stays as it was"
        before, after = found[NO_METHOD].weighted, found[self.method].weighted
        return f"{share} {self.method} did best on {images}: top-1 went from {before:.1%} to {after:.1%}"

    def _by_labels(self, found: Mapping[str, AdaptTry]) -> str:
        """The same, where labelled images of the target decided."""
        others = [one for name, one in found.items() if name != NO_METHOD]
        best = max(others, key=lambda one: one.target or 0.0)
        helped = "helped" if self.method != NO_METHOD else "did not help"
        return (
            f"{best.method} {helped}: top-1 on {self.labelled} labelled validation images of the target went from"
            f" {found[NO_METHOD].target:.1%} to {best.target:.1%} (p = {best.p_value:.2g})"
            f"{'' if self.method != NO_METHOD else ', so the teacher stays as it was'}."
        )
