"""How unknown images are distinguished from known ones: the score, how it was chosen, and what it finds."""

from __future__ import annotations

from enum import StrEnum

from edgetl.records.frozen import dataclass
from edgetl.records.scores import Score


class ScoreName(StrEnum):
    """What images are judged by; the modules of these names in `edgetl.runtime.unknown` say how."""

    SOFTMAX = "softmax"
    ENERGY = "energy"
    NEIGHBOURS = "neighbours"
    VIM = "vim"
    LOOKS = "looks"

    @property
    def by_features(self) -> bool:
        """Whether it compares embeddings, so that it needs known images and the feature map."""
        return self in (ScoreName.NEIGHBOURS, ScoreName.VIM, ScoreName.LOOKS)

    @property
    def by_looks(self) -> bool:
        """Whether it also compares the pictures' looks (`edgetl.inputs.looks`)."""
        return self is ScoreName.LOOKS


@dataclass(frozen=True, kw_only=True)
class ScoreTrial:
    """How well one score did when it was chosen, as areas under the ROC curve (AUROC), in 0..1.

    Attributes:
        score: its name.
        near: the mean over classes that were left out in turn; None where there are too few classes.
        far: the mean over kinds of pictures that were made to show nothing known.
        mean: of both, by which scores are compared.
    """

    score: ScoreName
    near: float | None
    far: float
    mean: float


@dataclass(frozen=True, kw_only=True)
class UnknownRecord:
    """How a variant tells unknown images.

    Attributes:
        score: the name of the one that it uses.
        p_value: of the test that the best score does better than `softmax` in every kind of trial, the larger one; None
            where `softmax` is the best anyway.
        note: why it is this one, in a sentence.
        trials: of all scores.
        images: of the validation split, by which it is said what is normal.
        asked: the false alarm rate at which `false_alarms` was counted; None where the images are too few for it.
        false_alarms: the share of test images that are called unknown then, with its 95% Wilson interval; None without
            a test split.
        ranked: the validation images' negated scores, falling; at most `edgetl.tasks.conformal.MOST` of them.
    """

    score: ScoreName
    p_value: float | None
    note: str
    trials: tuple[ScoreTrial, ...]
    images: int
    asked: float | None
    false_alarms: Score | None
    ranked: tuple[float, ...]
