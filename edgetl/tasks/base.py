"""What a task is: its description, the tensors that answer it, and how answers are read, scored, compared and judged.

Legend: N images, C classes. A task's code needs only numpy and serves host and device. `edgetl.tasks.all.task_of`
gives the task of a description.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import TensorError
from edgetl.records.codec import OPTIONAL
from edgetl.records.frozen import dataclass
from edgetl.tasks.relations import Graph, Tree, misfit

if TYPE_CHECKING:
    from edgetl.inputs.frame import Frame
    from edgetl.records.gate import GateCheck
    from edgetl.records.scores import Evaluation, Scores

Outputs: TypeAlias = Mapping[str, NDArray[Any]]
"""A network's raw outputs by tensor name; the first axis of each is N."""
Truths: TypeAlias = Any
"""What is right, in the task's own form, N images in order.

`Classification`: (N,) int64, the class. `MultiLabel`: (N, C) bool. `MultiHead`: head name to `HeadTruths`. `Detection`:
a list of `edgetl.tasks.detection.scores.Truth`.
"""
Answers: TypeAlias = Any
"""What was decided, in the same form as `Truths`; for `MultiHead`, head name to that head's answers."""

LOGITS = "logits"
"""The output's name where a task has one."""
_HEAD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


# --- descriptions ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Classification:
    """One class per image.

    Attributes:
        labels: `labels[i]` names logit i.
        relation: how the classes are related, where that is known.

    Raises:
        ValueError: labels are none or not unique, or the relation is not one of these classes.
    """

    kind: Literal["classification"] = "classification"
    labels: tuple[str, ...]
    relation: Tree | Graph | None = field(default=None, metadata=OPTIONAL)

    def __post_init__(self) -> None:
        _check_labels(self.labels)
        if self.relation is not None and (fault := misfit(self.relation, self.labels)):
            raise ValueError(fault)


@dataclass(frozen=True, kw_only=True)
class MultiLabel:
    """Any number of classes per image, none included.

    Attributes:
        labels: `labels[i]` names logit i.
        thresholds: a class is answered where its probability (sigmoid of the logit) is at least this, in 0..1; one per
            class, or empty for 0.5 each.

    Raises:
        ValueError: labels are none or not unique, or thresholds do not fit them.
    """

    kind: Literal["multilabel"] = "multilabel"
    labels: tuple[str, ...]
    thresholds: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _check_labels(self.labels)
        if self.thresholds and len(self.thresholds) != len(self.labels):
            raise ValueError(
                f"there are {len(self.thresholds)} thresholds for {len(self.labels)} labels, expected one per label"
            )
        if wrong := [value for value in self.thresholds if not 0.0 <= value <= 1.0]:
            raise ValueError(f"a threshold is {wrong[0]}, expected a probability in 0..1")


def head_fault(name: str) -> str:
    """Why a name cannot be a head's, which names an output too; nothing where it can."""
    if _HEAD_NAME.fullmatch(name) and name != "images":
        return ""
    return (
        f"a head's name is {name!r}, expected letters, digits, _, - and ., a letter first, and not 'images'"
    )


HeadSpec: TypeAlias = Classification | MultiLabel
"""What one head may be asked."""


@dataclass(frozen=True, kw_only=True)
class MultiHead:
    """Several questions to one backbone. A head's name is its output's name, and stands before its metrics'.

    Raises:
        ValueError: there are no heads, or a name is not made of letters, digits, `_`, `-` and `.`.
    """

    kind: Literal["multihead"] = "multihead"
    heads: dict[str, HeadSpec]

    def __post_init__(self) -> None:
        if not self.heads:
            raise ValueError("there are no heads, expected at least one")
        for name in self.heads:
            if fault := head_fault(name):
                raise ValueError(fault)


@dataclass(frozen=True, kw_only=True)
class Detection:
    """Boxes around objects, each of one class.

    Attributes:
        labels: `labels[i]` names column i of the scores.
        threshold: least score of a box that is answered, in 0..1.
        overlap: of two boxes of one class that overlap by more (intersection over union), the better remains.
        most: boxes per image, best first.

    Raises:
        ValueError: labels are none or not unique, or a number is out of range.
    """

    kind: Literal["detection"] = "detection"
    labels: tuple[str, ...]
    threshold: float = 0.3
    overlap: float = 0.6
    most: int = 100

    def __post_init__(self) -> None:
        _check_labels(self.labels)
        if not 0.0 < self.threshold < 1.0:
            raise ValueError(f"threshold is {self.threshold}, expected a score above 0 and below 1")
        if not 0.0 < self.overlap <= 1.0:
            raise ValueError(f"overlap is {self.overlap}, expected a share above 0 and at most 1")
        if self.most < 1:
            raise ValueError(f"most is {self.most}, expected at least 1")


TaskSpec: TypeAlias = Classification | MultiLabel | MultiHead | Detection
"""What is asked of an image; in JSON an object whose `kind` says which."""


def labels_of(spec: TaskSpec) -> tuple[str, ...]:
    """A task's class names; of several heads each as `head/name`."""
    if isinstance(spec, MultiHead):
        return tuple(f"{name}/{label}" for name, head in spec.heads.items() for label in head.labels)
    return spec.labels


def _check_labels(labels: tuple[str, ...]) -> None:
    if not labels or len(set(labels)) != len(labels):
        raise ValueError("its labels are empty or not unique")


# --- what a task offers ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """A model's input or output. `shape` has None where any length is accepted."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        dims = ", ".join("N" if length is None else str(length) for length in self.shape)
        return f"({dims}{',' if len(self.shape) == 1 else ''}) {self.dtype}"


@dataclass(frozen=True, kw_only=True)
class MetricSpec:
    """A figure of an evaluation.

    Attributes:
        name: key in `Evaluation.scores` and value of the recipe's `metric`, as in `macro_f1`.
        title: how tables and pages call it, as in `macro-F1`.
        unit: `share` (0..1, shown in per cent) or empty for a plain number.
        higher_is_better: which way is up.
        per_image: it averages a verdict per image, so that one image among n moves it by about 1/n. Average precision
            and average recall move by less.
    """

    name: str
    title: str
    unit: str = "share"
    higher_is_better: bool = True
    per_image: bool = True


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How well outputs agree with expected ones, on the same images.

    Attributes:
        images: how many.
        output: the tensor that differs most, relative to its `scale`.
        difference: its largest absolute difference; the largest float32 where a value is not finite.
        scale: its largest expected magnitude, at least 1.
        same: share of the images with the same answer, in 0..1.
    """

    images: int
    output: str
    difference: float
    scale: float
    same: float


@dataclass(frozen=True, kw_only=True)
class ScoreLimits:
    """What a gate allows of scores.

    Attributes:
        max_drop: of the task's overall metrics, in 0..1; unset, what so many images can settle. 0 allows none on these
            very images, without asking about chance.
        max_class_drop: of one class, in 0..1.
        same_model: both come from the same model file, so nothing can have been lost where the answers are equal.
    """

    max_drop: float | None = None
    max_class_drop: float = 0.10
    same_model: bool = False


@dataclass(frozen=True, kw_only=True)
class HeadTruths:
    """One head's truths, of which some may be missing.

    Attributes:
        values: as the head's own task has them; anything where unknown.
        known: (N,) bool.
    """

    values: NDArray[Any]
    known: NDArray[Any]


class Prediction(Protocol):
    """What a task answers for one image; each has its own record."""

    @property
    def text(self) -> str:
        """It in a few words, for one line of a terminal or a picture's corner."""


class Task(Protocol):
    """A task's code."""

    @property
    def spec(self) -> TaskSpec:
        """Its description, which stands in the manifest."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that a network must give, in order."""

    @property
    def metrics(self) -> tuple[MetricSpec, ...]:
        """The figures of an evaluation, in the order of tables; the first is held to floors unless another is asked."""

    def predict(
        self, outputs: Outputs, frames: Sequence[Frame] = (), *, top_k: int = 1
    ) -> Sequence[Prediction]:
        """Read outputs.

        Args:
            outputs: N images' outputs.
            frames: N, for tasks that answer in the picture's pixels.
            top_k: how many answers to list where a task ranks them.
        """

    def decide(self, outputs: Outputs) -> Answers:
        """What a gate keeps of outputs: the answers in the form of truths."""

    def right(self, truths: Truths, answers: Answers) -> NDArray[np.bool_]:
        """(N,) which images were answered wholly right."""

    def margins(self, outputs: Outputs) -> NDArray[Any]:
        """(N,) how far each value of an image's outputs may move, at least, before the answer is another."""

    def score(self, truths: Truths, outputs: Outputs) -> Evaluation:
        """Score outputs.

        Raises:
            TensorError: truths and outputs do not fit each other or the task.
        """

    def agreement(self, expected: Outputs, found: Outputs) -> Agreement:
        """Compare outputs with expected ones on the same images.

        Raises:
            TensorError: an output is missing, or shapes differ.
        """

    def judge(
        self, truths: Truths, before: Answers, after: Answers, limits: ScoreLimits
    ) -> tuple[GateCheck, ...]:
        """Hold answers to earlier ones on the same images.

        Raises:
            TensorError: shapes do not fit, or there are no images.
        """

    def judge_scores(self, before: Scores, after: Scores, limits: ScoreLimits) -> tuple[GateCheck, ...]:
        """As `judge`, where only the figures are at hand."""

    def words(self, answers: Answers) -> list[str]:
        """Truths or answers in words, one per image."""

    def plain(self, answers: Answers) -> list[Any]:
        """Truths or answers as JSON values, one per image: as labelled sets and baselines hold them."""

    def read(self, values: Sequence[Any]) -> Answers:
        """Truths or answers from `plain`'s JSON values.

        Raises:
            ValueError: they do not fit the task.
        """


# --- what tasks share --------------------------------------------------------------------------------

_LARGEST = float(np.finfo(np.float32).max)


def output(task: Task, outputs: Outputs, name: str) -> NDArray[Any]:
    """One of a task's outputs.

    Raises:
        TensorError: it is missing, or its shape does not fit the task.
    """
    spec = next(spec for spec in task.outputs if spec.name == name)
    if name not in outputs:
        raise TensorError(f"{name}: is missing; the outputs are {', '.join(outputs) or 'none'}.")
    found = outputs[name]
    if found.ndim != len(spec.shape) or any(
        want not in (None, have) for want, have in zip(spec.shape[1:], found.shape[1:], strict=True)
    ):
        raise TensorError(f"{name}: got {found.shape} {found.dtype}, expected {spec}.")
    return found


def widths(task: Task) -> dict[str, int]:
    """How many of a network's D outputs, side by side, each of a task's tensors (N, C) has, in order.

    Raises:
        TensorError: the task's tensors are of other shapes.
    """
    found = {}
    for spec in task.outputs:
        width = spec.shape[1] if len(spec.shape) == 2 else None
        if width is None:
            raise TensorError(f"{spec.name}: is {spec}, expected (N, C) to stand next to other outputs.")
        found[spec.name] = width
    return found


def joined(parts: Sequence[Outputs]) -> dict[str, NDArray[Any]]:
    """Outputs of several batches as one."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def agreement(task: Task, expected: Outputs, found: Outputs, same: NDArray[np.bool_]) -> Agreement:
    """The largest difference of any output; `same` (N,) says which answers are.

    Raises:
        TensorError: an output is missing, or shapes differ.
    """
    parts = []
    for spec in task.outputs:
        want, have = (output(task, values, spec.name) for values in (expected, found))
        if want.shape != have.shape:
            raise TensorError(f"{spec.name}: got shape {have.shape}, expected {want.shape}.")
        scale = max(1.0, float(np.abs(want).max(initial=0.0)))
        # NaN and infinity become the largest float32, so that they never pass and still travel as JSON.
        with np.errstate(invalid="ignore"):
            apart = np.nan_to_num(np.abs(want - have), nan=_LARGEST, posinf=_LARGEST)
        parts.append((float(apart.max(initial=0.0)), scale, spec.name))
    difference, scale, name = max(parts, key=lambda part: part[0] / part[1])
    return Agreement(
        images=len(same),
        output=name,
        difference=difference,
        scale=scale,
        same=float(same.mean()) if len(same) else 1.0,
    )
