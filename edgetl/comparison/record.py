"""What a comparison of two runs or bundles returns."""

from __future__ import annotations

from edgetl.records.frozen import dataclass
from edgetl.records.gate import BoxTurns, Flips, GateCheck, LatencyTrial
from edgetl.records.measured import Latency, Machine
from edgetl.records.scores import Scores
from edgetl.statistics import PairedComparison


@dataclass(frozen=True, kw_only=True)
class ComparedModel:
    """One of the two.

    Attributes:
        name: how pages call it: the run's folder or the bundle's file, distinct from the other's.
        path: what was named.
        variant, precision, target: the model that answered, its arithmetic, and the engine that ran it.
        size_bytes: of its file; `bundle_bytes` that of the bundle.
        scores: on the images of the comparison.
        latency: as its run or bundle has it, measured on `machine`; None where neither does. Bundles hold no samples.
    """

    name: str
    path: str
    variant: str
    precision: str
    target: str
    size_bytes: int
    bundle_bytes: int
    scores: Scores
    latency: Latency | None
    machine: Machine | None


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A setting, or a fact of where a model comes from, that differs: its name, and both as text."""

    key: str
    first: str
    second: str


@dataclass(frozen=True, kw_only=True)
class ComparedImages:
    """On which images both were scored.

    Attributes:
        split: `val` or `test` of two runs; empty where an image set was named.
        source: the image set, or the folder that holds the runs' images.
        root: the folder that the images' paths are relative to.
        images: how many.
        only_first, only_second: images of the split that the other run does not have in its own.
        relabelled: images of both that are labelled otherwise in the one than in the other, and left out.
    """

    split: str
    source: str
    root: str
    images: int
    only_first: int = 0
    only_second: int = 0
    relabelled: int = 0


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two models on the same images, the second beside the first.

    Attributes:
        settings: settings of the recipes that differ; None where one of the two is a bundle, which holds no recipe.
        origins: what else differs in where they come from, as their manifests say.
        right: the images that each answered wholly right, paired; `both_right` counts those right in both.
        checks: the task's own metrics, paired; their verdicts are those of a gate with its usual limits.
        flips: images that one of the two got wholly right; of detectors `boxes` in their place.
        trial: both timed in turn here; None where that was not asked for.
        notes: what to mind in reading the figures, one sentence each.
    """

    first: ComparedModel
    second: ComparedModel
    settings: tuple[Difference, ...] | None
    origins: tuple[Difference, ...]
    images: ComparedImages
    right: PairedComparison
    both_right: int
    checks: tuple[GateCheck, ...]
    flips: Flips | None
    boxes: BoxTurns | None
    trial: LatencyTrial | None
    notes: tuple[str, ...]
