"""What the data and training stages return."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from edgetl.records.extend import KeptRecord
from edgetl.records.lineage import LineageStep
from edgetl.records.scores import Evaluation, Scores


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One epoch of training. `phase` is `head`, `full`, `recover-1`, `distill`, ...

    `val` are its scores on the validation split, without intervals. `loader_wait` is the share of the training time
    spent waiting for batches.

    A phase's last epoch says how the phase ended: `kept_start` where it came out below the network that it had begun
    with, which scores `start` (by the metric that chooses) and was given back. `notes` are one sentence each.
    """

    phase: str
    epoch: int
    loss: float
    val_loss: float
    val: Scores
    learning_rate: float
    seconds: float
    images_per_second: float
    loader_wait: float = 0.0
    start: float | None = None
    kept_start: bool = False
    notes: tuple[str, ...] = ()


def notes_of(epochs: Iterable[EpochRecord]) -> tuple[str, ...]:
    """What is to be said of some phases of training, each sentence once."""
    return tuple(dict.fromkeys(note for epoch in epochs for note in epoch.notes))


def phases_kept(epochs: Iterable[EpochRecord]) -> tuple[str, ...]:
    """The phases of training that made the network: all but those after which their start was given back."""
    last = {epoch.phase: epoch for epoch in epochs}
    return tuple(phase for phase, epoch in last.items() if not epoch.kept_start)


@dataclass(frozen=True, kw_only=True)
class DataRecord:
    """What the data stage found. `counts[split][label]` is a number of images; one of several classes counts for each.

    So many images of val and test have `near_copies` in another split (see `edgetl.data.audit`); None where nobody
    looked. `others` counts the files by kind that are not images, e.g. `.heic files`.
    """

    index: str
    labels: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    skipped: tuple[tuple[str, str], ...]
    sha256: str
    near_copies: int | None = None
    others: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    def images(self, *splits: str) -> int:
        """Number of images of some splits, of all where none is named."""
        known = self.sizes or {split: sum(classes.values()) for split, classes in self.counts.items()}
        return sum(known.get(split, 0) for split in splits or known)


@dataclass(frozen=True, kw_only=True)
class UnlabelledRecord:
    """What was found of images that teach beside the data, mostly without labels.

    `images` different ones, besides the `held_out` files that are left out because they, or near-copies of them, are in
    the validation or test split, and the `skipped` ones (path, reason).
    """

    index: str
    images: int
    held_out: int
    skipped: tuple[tuple[str, str], ...]
    sha256: str


@dataclass(frozen=True, kw_only=True)
class NetworkSize:
    """`macs` are multiply-accumulates for one image; `parameters` a count; `size_bytes` of the float32 checkpoint."""

    macs: int
    parameters: int
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class PairedComparison:
    """Two sets of answers for the same images: before something, and after it.

    `before` and `after` are their scores by `metric` on the same `images`; `interval` is the 90% interval of the
    difference, and `p_value` that of the hypothesis that the second is no better.
    """

    metric: str
    images: int
    before: float
    after: float
    interval: tuple[float, float]
    p_value: float
    helped: bool


@dataclass(frozen=True, kw_only=True)
class NearestRecord:
    """Whether an extended network answers with the class whose mean feature is nearest (iCaRL), in place of what its
    last layer learned: where the `comparison` on the validation images says that this helped."""

    comparison: PairedComparison

    @property
    def note(self) -> str:
        """What came of it, in a sentence."""
        found = self.comparison
        return (
            f"Answering with the nearest class mean, in place of what the last layer learned, would change right"
            f" answers to {found.images} validation images from {found.before:.1%} to {found.after:.1%}"
            f" (p {found.p_value:.2g}), and is {'taken' if found.helped else 'not taken'}."
        )


TRAINING, PROBE = "training", "probe"
"""What `StartRecord.judge` says: teachers trained from both starts were compared, or linear probes."""


@dataclass(frozen=True, kw_only=True)
class StartRecord:
    """Whether a teacher begins with a backbone that learned elsewhere first, and why.

    `judge` made the `comparison`: `training`, of teachers trained from both starts, or, where the recipe asks for the
    pretrained backbone in any case, `probe`, of linear probes. It is `used` then, or where it helped; `note` says so in
    one sentence. `other_seconds` went into the teacher that was not kept; 0 where only one was trained.
    """

    judge: str
    comparison: PairedComparison
    used: bool
    note: str
    other_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class EpisodesRecord:
    """Whether a last phase on small problems of a few classes made features that recognise left out classes better.

    The network was trained without the classes `left_out`, and once more went through the phase by `method`. `shots`
    gives by pictures of a class how often the other images of the left out classes were recognised, before and after;
    `comparison` is of the mean of these, image by image. `known` is the score of the trained classes on validation
    before and after. The phase is `used` where the first rose and the second did not fall by what chance does not
    explain. `seconds` went into the trial.
    """

    method: str
    left_out: tuple[str, ...]
    shots: dict[str, tuple[float, float]]
    comparison: PairedComparison
    known: PairedComparison
    used: bool
    note: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class TrainRecord:
    """A trained network (teacher or student): its checkpoint, its curve, its scores.

    `unlabelled` is the number of different images without labels that taught it; `lineage` is the chain of what a
    teacher learned, from its first weights to these; `start` is there where a backbone learned elsewhere first, and
    `kept` where a finished run's network went on, `episodes` where a phase of episodes was asked for.
    """

    checkpoint: str
    backbone: str
    size: NetworkSize
    epochs: tuple[EpochRecord, ...]
    val: Evaluation
    test: Evaluation | None
    seconds: float
    unlabelled: int = 0
    lineage: tuple[LineageStep, ...] = ()
    start: StartRecord | None = None
    kept: KeptRecord | None = None
    nearest: NearestRecord | None = None
    episodes: EpisodesRecord | None = None


@dataclass(frozen=True, kw_only=True)
class PretrainRecord:
    """What a backbone learned before it saw the data; whether it is begun with is said by `TrainRecord.start`.

    `kind` is `source`, or the method; `images` different ones taught, of these `classes` (none without labels), besides
    the `held_out` ones that are in the validation or test split. The scores of `epochs` are those on the source's own
    validation split, or a linear probe's on the data's. `probe` compares linear probes on the features before and
    after. `lineage` is the chain of what the backbone learned.
    """

    kind: str
    name: str
    checkpoint: str
    backbone: str
    images: int
    held_out: int
    classes: tuple[str, ...]
    epochs: tuple[EpochRecord, ...]
    probe: PairedComparison
    lineage: tuple[LineageStep, ...]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A figure over repeated trainings: its mean and its sample standard deviation."""

    mean: float
    deviation: float


@dataclass(frozen=True, kw_only=True)
class FoldsRecord:
    """Cross-validation: each fold's validation scores, and the spread of each score by its name."""

    folds: tuple[Evaluation, ...]
    spreads: dict[str, Spread]
