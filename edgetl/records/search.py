"""What `edgetl search` found: the candidates that were tried, and the one that holds the budget."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from edgetl.records.measured import Machine
from edgetl.records.scores import Score

ONNXRUNTIME, LITERT = "onnxruntime", "litert"
"""The engines that candidates are timed in."""


class TrialState(StrEnum):
    """How far a candidate came.

    `trained`: through its short distillation; `stopped`: in the midst of it, as worse than others or because the time
    was over; `over_budget`: refused by its latency or size, before it learned anything; `too_narrow`: so far within
    both that a wider one was tried in its place; `impossible`: such a network cannot be made.
    """

    TRAINED = "trained"
    STOPPED = "stopped"
    OVER_BUDGET = "over_budget"
    TOO_NARROW = "too_narrow"
    IMPOSSIBLE = "impossible"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One candidate.

    Attributes:
        network: what is cut: `teacher`, or the name of another backbone.
        size: side of its input in pixels.
        share: of the uncut network's multiply-accumulates that it keeps, both at this size.
        depth: share of the residual blocks that is taken out whole, as `prune.depth`.
        interpolation: the resize filter.
    """

    network: str
    size: int
    share: float
    depth: float = 0.0
    interpolation: str

    @property
    def name(self) -> str:
        """For sentences."""
        blocks = f", {100 * self.depth:.3g}% of its blocks out" if self.depth else ""
        return (
            f"{self.network} at {self.size} px, {100 * self.share:.3g}% of its multiply-accumulates{blocks}"
        )


@dataclass(frozen=True, kw_only=True)
class SearchBudget:
    """What the model may cost, and must reach: median milliseconds of one image, megabytes (10^6 bytes) of its file,
    and the score on the validation split; None where that is left open."""

    latency_ms: float
    size_mb: float | None = None
    floor: float | None = None


@dataclass(frozen=True, kw_only=True)
class TimedVariant:
    """A network in one precision as an engine of the runtime ran it: its median milliseconds with its better number of
    threads, and the bytes of its file."""

    precision: str
    engine: str = ONNXRUNTIME
    ms: float
    threads: int
    size_bytes: int

    @property
    def kind(self) -> str:
        """Its precision, and its engine where that is not ONNX Runtime: `int8`, `int8 in litert`."""
        return self.precision if self.engine == ONNXRUNTIME else f"{self.precision} in {self.engine}"


@dataclass(frozen=True, kw_only=True)
class SearchTrial:
    """One candidate.

    Attributes:
        number: in the study.
        choice: what it is.
        state: how far it came.
        why: one sentence where it did not come through; empty where it did.
        variant: the one that would ship; None where it was refused without a timing, or nothing could be timed.
        predicted_ms: by the latency table, where there was one.
        score: the best on the validation split after `epochs` epochs of distillation; None where none was finished.
        loss: the least on the validation split; likewise.
        epochs: of distillation that were finished.
        epoch_seconds: that one of them took, in the median; 0 where none was finished.
        seconds: that it took.
        frontier: no other one is as good and faster, or as fast and better.
    """

    number: int
    choice: Choice
    state: TrialState
    why: str = ""
    variant: TimedVariant | None = None
    predicted_ms: float | None = None
    score: float | None = None
    loss: float | None = None
    epochs: int = 0
    epoch_seconds: float = 0.0
    seconds: float = 0.0
    frontier: bool = False

    @property
    def ms(self) -> float | None:
        """Its median milliseconds: measured, else predicted."""
        return self.predicted_ms if self.variant is None else self.variant.ms

    @property
    def name(self) -> str:
        """For sentences."""
        return self.choice.name


@dataclass(frozen=True, kw_only=True)
class FinalRun:
    """A candidate that went through the ordinary run to its end: what that run measured, of the variant that ships.

    Attributes:
        trial: the candidate's number; None for one that no trial stands for: narrower than a trial whose run was
            too slow.
        choice: the candidate; a little narrower than in its trial where it only just held the budget there.
        variant: its name: the fastest that keeps the floor, of all engines that the recipe's targets name.
        latency_ms: its median.
        size_bytes: of its file.
        val: its score on the validation split.
        test: on the test split, which nothing was chosen by; None where there is none.
        bundle: the file, relative to the search's folder.
        problems: in which ways it does not hold the budget, a sentence each; none where it does.
        seconds: that the run took.
    """

    trial: int | None
    choice: Choice
    variant: str
    latency_ms: float
    size_bytes: int
    val: Score
    test: Score | None
    bundle: str
    problems: tuple[str, ...]
    seconds: float

    @property
    def name(self) -> str:
        """For sentences."""
        return self.choice.name

    @property
    def holds(self) -> bool:
        """Whether the budget is held."""
        return not self.problems


@dataclass(frozen=True, kw_only=True)
class SearchRecord:
    """A search.

    Attributes:
        name: the recipe's.
        budget: what was asked for.
        metric: of all scores.
        teacher: its score on the validation split.
        least_ms, least: the fastest network that the search could have made, as measured before it began.
        trials: every candidate, by its number.
        finals: runs to the end, the last one is the chosen one.
        holds: whether that one holds the budget.
        reason: why it is, or why none holds the budget, in one sentence.
        settings: what the chosen recipe sets, as lines of TOML.
        sampler: how candidates were drawn.
        workers: processes of this call.
        storage, study: where the trials are kept.
        table_error: median relative error of the latency table on each candidate as predicted from the others; None
            where there were too few.
        machine: on which it was timed.
        seconds: that all of it took, over all calls.
    """

    name: str
    budget: SearchBudget
    metric: str
    teacher: Score
    least_ms: float
    least: str
    trials: tuple[SearchTrial, ...]
    finals: tuple[FinalRun, ...]
    holds: bool
    reason: str
    settings: tuple[str, ...]
    sampler: str
    workers: int
    storage: str
    study: str
    table_error: float | None
    machine: Machine
    seconds: float

    @property
    def chosen(self) -> FinalRun | None:
        """The run whose bundle is the answer, or comes nearest; None where none went to its end."""
        return self.finals[-1] if self.finals else None
