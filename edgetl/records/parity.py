"""What the parity report returns."""

from __future__ import annotations

from dataclasses import dataclass

from edgetl.records.scores import SetUse


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """The first layer that computes something else. Errors are norms of differences relative to the right values.

    `layer` and `operator` are the node's in the graph that is right, `tensor` is its result in the other graph;
    `error_before` is that of the layer's inputs. `finite` is False where NaN or infinity came out; `abrupt` is
    False where no single layer is to blame, and this one adds most.
    """

    layer: str
    operator: str
    tensor: str
    error: float
    error_before: float
    abrupt: bool
    finite: bool


@dataclass(frozen=True, kw_only=True)
class ParityStep:
    """One step of the parity report, compared with the step `against` that it stands on.

    Errors of outputs are relative to the largest value there, None where they are not finite. `same` is the share of
    images with the same answer, `score` the first of the task's metrics with its 95% interval, `change` its
    difference, of top-1 with its own interval. `holds` is None for the first step and for one that was `skipped`.
    """

    name: str
    kind: str
    against: str = ""
    max_error: float | None = None
    mean_error: float | None = None
    same: float | None = None
    score: float | None = None
    interval: tuple[float, float] | None = None
    change: float | None = None
    change_interval: tuple[float, float] | None = None
    holds: bool | None = None
    reason: str = ""
    skipped: str = ""


@dataclass(frozen=True, kw_only=True)
class ParityRecord:
    """The parity report. `metric` names the score.

    `first_outside` names the first step outside its bound, empty where there is none. `image_set` is what was taken of
    the image set.
    """

    bundle: str
    images: int
    checkpoint: str
    metric: str
    steps: tuple[ParityStep, ...]
    first_outside: str = ""
    divergence: Divergence | None = None
    image_set: SetUse | None = None

    @property
    def sentence(self) -> str:
        """The outcome in one sentence."""
        ran = [checked for checked in self.steps if not checked.skipped]
        if not self.first_outside:
            return f"All {len(ran)} steps agree on {self.images} images, each within its bound."
        checked = next(checked for checked in self.steps if checked.name == self.first_outside)
        text = f"The first step outside its bound is {checked.name} ({checked.kind}): {checked.reason}"
        if self.divergence is None:
            return f"{text}."
        found = self.divergence
        layer = f"{found.layer} ({found.operator})" if found.operator else found.layer
        if not found.finite:
            return f"{text}. The first diverging layer is {layer}: NaN or infinity comes out of it."
        if not found.abrupt:
            return (
                f"{text}. No single layer is to blame; {layer} adds most, from a relative error of "
                f"{found.error_before:.2g} to {found.error:.2g}."
            )
        return (
            f"{text}. The first diverging layer is {layer}: its relative error is {found.error:.2g}, that of its "
            f"inputs {found.error_before:.2g}."
        )
