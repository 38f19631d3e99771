"""What the pruning stage returns."""

from __future__ import annotations

from dataclasses import dataclass

from edgetl.records.train import EpochRecord, NetworkSize


@dataclass(frozen=True, kw_only=True)
class PruneStep:
    """One cut and its recovery. `cut` is the score on the validation split right after the cut, `score` after recovery.

    Step 0, where there is one, cuts nothing: the network learned to see at the student's input size.

    With a target of the clock, `predicted_ms` is what the latency table, corrected by the step before, said of the cut
    network, and `measured_ms` what the runtime took.

    `kept` is False for a cut that cost too much: pruning stopped before it. `blocks` are the residual blocks that
    it took out whole.
    """

    step: int
    macs: int
    parameters: int
    cut: float
    score: float
    kept: bool = True
    predicted_ms: float | None = None
    measured_ms: float | None = None
    blocks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class GroupWidth:
    """A channel group before and after pruning; milliseconds are predicted, of the layers that make its channels."""

    name: str
    channels_before: int
    channels_after: int
    before_ms: float
    after_ms: float


@dataclass(frozen=True, kw_only=True)
class PruneLatency:
    """What pruning to a target of the clock came to: float32, batch 1, in the runtime.

    Every time is a ratio to the teacher's, whose calls took turns with the network's, times `teacher_ms`, the teacher's
    median. `predicted_*` are the table's before any correction, `rest_*` its share that no group accounts for.
    `table_error` is the table's median relative error on each of its `networks` as predicted from the others.
    """

    target_ms: float
    teacher_ms: float
    predicted_before_ms: float
    measured_before_ms: float
    predicted_ms: float
    measured_ms: float
    rest_before_ms: float
    rest_ms: float
    networks: int
    table_error: float
    groups: tuple[GroupWidth, ...]


@dataclass(frozen=True, kw_only=True)
class SparseTraining:
    """Training towards sparse channels before the first cut.

    `score` is that on the validation split after it; `near_zero_before` and `near_zero` are the shares of channels
    whose weights are below a tenth of their group's largest, in 0..1.
    """

    score: float
    near_zero_before: float
    near_zero: float


@dataclass(frozen=True, kw_only=True)
class GroupCut:
    """One channel group cut by itself: channels removed, share of the network's multiply-accumulates saved, and the
    score on the validation split without any recovery."""

    removed: int
    saved: float
    score: float


@dataclass(frozen=True, kw_only=True)
class GroupSensitivity:
    """A channel group cut by itself, once per share; None where the group is too small for that share."""

    name: str
    channels: int
    cuts: tuple[GroupCut | None, ...]


@dataclass(frozen=True, kw_only=True)
class PruneSensitivity:
    """What cutting each channel group by itself costs, in the network's order. `score` is that of the uncut network
    with batch norms measured as after a cut."""

    shares: tuple[float, ...]
    score: float
    groups: tuple[GroupSensitivity, ...]


@dataclass(frozen=True, kw_only=True)
class TwoFourRecord:
    """2:4 sparsity: two of every four weights along the input channels are zero in `layers`.

    `left_out` are layers that cannot have it or had better not, with the reason. `zeros` is the share of the network's
    parameters that it set to zero. `cut` is the score on the validation split right after that, `score` after recovery.
    """

    layers: tuple[str, ...]
    left_out: dict[str, str]
    zeros: float
    cut: float
    score: float


@dataclass(frozen=True, kw_only=True)
class PruneRecord:
    """The pruned network.

    `metric` names the score that every part gives, on the validation split.

    `one_shot` is what a single cut to the target leaves, without recovery: what the steps are to be compared with; None
    where pruning had one step. `network` is the backbone's name where another than the teacher was cut; `before` is the
    uncut network. `note` says why nothing could be cut. The other parts are None where they were not asked for.
    """

    checkpoint: str
    metric: str
    before: NetworkSize
    after: NetworkSize
    steps: tuple[PruneStep, ...]
    epochs: tuple[EpochRecord, ...]
    seconds: float
    latency: PruneLatency | None = None
    one_shot: PruneStep | None = None
    sparse: SparseTraining | None = None
    sensitivity: PruneSensitivity | None = None
    two_four: TwoFourRecord | None = None
    network: str = ""
    note: str = ""

    @property
    def blocks(self) -> tuple[str, ...]:
        """Residual blocks that the cuts which were kept took out whole, in the order of the cuts."""
        return tuple(name for step in self.steps if step.kept for name in step.blocks)
