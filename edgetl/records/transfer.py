"""What `edgetl suggest` found: backbones at input sizes, their transferability and their latency."""

from __future__ import annotations

from dataclasses import dataclass

from edgetl.records.measured import Latency, Machine
from edgetl.records.scores import Score
from edgetl.records.train import NetworkSize


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A pretrained backbone at one input size.

    Attributes:
        backbone: its name, as in `train.backbone`.
        weights: where they came from, as in `train.weights`.
        size: side of the input in pixels.
        score: of the linear probe on the validation images, by the ranking's metric.
        logme: LogME on the training images, per image (`edgetl.transfer.logme`).
        ridge: that the probe was trained with.
        latency: of one image in float32, uncut, on this machine.
        network: with a head for the classes at hand.
        frontier: no other is as good and faster, or as fast and better.
        within_budget: whether its median keeps the latency that was asked for; None where none was.
    """

    backbone: str
    weights: str
    size: int
    score: Score
    logme: float
    ridge: float
    latency: Latency
    network: NetworkSize
    frontier: bool = False
    within_budget: bool | None = None

    @property
    def title(self) -> str:
        """The backbone, and the file of its weights where one was named."""
        file = self.weights.replace("\\", "/").rpartition("/")[2]
        return self.backbone if self.weights == "pretrained" else f"{self.backbone} ({file})"

    @property
    def name(self) -> str:
        """Title and size, for sentences."""
        return f"{self.title} at {self.size} px"


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A backbone, or one at a size, that could not be looked at, and the reason in one sentence."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class BackboneRanking:
    """Candidates by their score, the best first.

    Attributes:
        source: the image set.
        classes: of it.
        metric: by which the candidates are ranked.
        train_images: that probes learnt from and LogME was taken of.
        val_images: that probes were scored on.
        candidates: what was measured.
        skipped: what was not.
        proposed: position of the proposed one in `candidates`.
        reason: why it is, in one sentence.
        settings: recipe settings that it stands for, as lines of TOML.
        latency_ms: the budget that was asked for.
        machine: on which it was timed.
        seconds: that all of it took.
    """

    source: str
    classes: int
    metric: str
    train_images: int
    val_images: int
    candidates: tuple[Candidate, ...]
    skipped: tuple[Skipped, ...]
    proposed: int
    reason: str
    settings: tuple[str, ...]
    latency_ms: float | None
    machine: Machine
    seconds: float

    @property
    def choice(self) -> Candidate:
        """The proposed candidate."""
        return self.candidates[self.proposed]
