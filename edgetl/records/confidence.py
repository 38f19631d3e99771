"""What is known of how sure a variant's answers are: its temperature, how well its scores hold, and its sets."""

from __future__ import annotations

from edgetl.records.frozen import dataclass
from edgetl.records.scores import CoverageScore


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """Answers of like scores: their mean score, the share of them that is right, both in 0..1, and how many."""

    score: float
    right: float
    answers: int


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """How well scores hold.

    Of one class per image an answer is the best class; of any number of classes every class of every image is one.

    Attributes:
        error: expected calibration error over 15 bins of equal width (Guo et al. 2017, section 2), in 0..1.
        loss: mean negative log-likelihood of the truth, in nats.
        brier: mean squared distance of the probabilities from the truth (Brier 1950): of one class per image summed
            over the classes, in 0..2.
        bins: those that have answers, by rising score.
    """

    error: float
    loss: float
    brier: float
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True, kw_only=True)
class ClassCurve:
    """Precision of one class over its recall.

    Attributes:
        label: the class.
        images: that have it.
        average_precision: the area under precision over recall, in 0..1.
        precision: at 101 recalls from 0 to 1, each the best at so much recall or more.
    """

    label: str
    images: int
    average_precision: float
    precision: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class AnswerCurves:
    """What lies behind one threshold.

    Attributes:
        classes: at most six, those of the lowest average precision first.
        right: the share of right answers among the surest 2%, 4%, ... 100% of the images; nothing where an image has
            any number of classes.
    """

    classes: tuple[ClassCurve, ...]
    right: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class OutputConfidence:
    """One output of a variant: of a head, or the only one.

    Attributes:
        output: the tensor's name.
        temperature: by which logits are divided before they become scores; 1 where none was shown to help.
        fitted: the temperature that was fitted, also where it is not used; None where there were too few images.
        p_value: of the test that it lowers the loss of images that it was not fitted on; None likewise.
        note: why the temperature is what it is, where that must be said, in one sentence.
        images: labelled images of the validation split, by which it was fitted.
        split: the split that `before`, `after` and `coverage` are of: `test` where there is one, else `val`.
        before: with temperature 1; None where the split has no labelled image, as `after`.
        after: with the temperature.
        conformity: of the validation images, falling, and at most `edgetl.tasks.conformal.MOST` of them.
        coverage: how often sets hold the truth; only on the test split.
        curves: with the temperature, on the split of `before` and `after`; None where these are.
    """

    output: str
    temperature: float
    fitted: float | None
    p_value: float | None
    note: str
    images: int
    split: str
    before: Reliability | None
    after: Reliability | None
    conformity: tuple[float, ...]
    coverage: tuple[CoverageScore, ...] = ()
    curves: AnswerCurves | None = None
