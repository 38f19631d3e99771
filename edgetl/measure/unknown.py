"""Choose the score by which a variant tells unknown images, without unknown images and without training again.

Two kinds of trials. Near: each class in turn is made unknown, with its logit and its known images gone; its validation
images are to score higher than those of the other classes. The network has learned to tell this class from the others,
so this is easier than a class that it never saw, for every score: read it as a comparison, not as a promise. Far:
pictures made of validation images that show nothing known (`edgetl.measure.far`). Each kind counts half.

Of the scores that beat the softmax near and far, each by a test at 5%, among as many as there are (Bonferroni), the
one with the largest mean AUROC is used; else the softmax is, which costs nothing. Far alone is not enough: on
`flowers12` with three classes really left out of training, `neighbours` knew other sets better than the softmax (AUROC
0.98 to 1.00 against 0.98 to 0.99) and the three classes much worse (0.75 against 0.89), of which the near trials
showed no more than that it is no better. The test takes an image and all that was made of it as one draw; the variance
is that of DeLong, DeLong and Clarke-Pearson (Biometrics 1988) over all trials of a kind at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from edgetl.data.splits import spread
from edgetl.inputs.looks import PIXELS
from edgetl.measure.reference import Known
from edgetl.records.scores import Score
from edgetl.records.unknown import ScoreName, ScoreTrial, UnknownRecord
from edgetl.runtime.features import EMBEDDING
from edgetl.runtime.unknown.judge import FALSE_ALARMS, normal, usual
from edgetl.runtime.unknown.scores import Features, Labelling, names, scorer
from edgetl.runtime.unknown.separation import components
from edgetl.statistics import wilson_interval
from edgetl.tasks.base import LOGITS, Classification, Outputs

_LEVEL = 0.05
_MOST_CLASSES = 20
"""Classes that are made unknown, at most: of more every so many-th."""
_FEWEST_CLASSES = 3


def measure(spec: Labelling, known: Known, classes: NDArray[np.int32]) -> UnknownRecord:
    """Choose a variant's score and say what is normal.

    Args:
        spec: the task.
        known: what the variant makes of images.
        classes: (M,) of the validation images, as `edgetl.bundle.reference` has them.
    """
    found = {name: _Tried() for name in names(known.features)}
    for name, tried in found.items():
        for trial in _near(name, spec, known, classes):
            tried.near.append(trial)
        tried.far.extend(_far(name, spec, known))
    chosen, p_value, note = _chosen({name: tried.results(len(classes)) for name, tried in found.items()})
    score = scorer(chosen, spec, known.features)
    kept = normal(score(known.validation))
    asked = FALSE_ALARMS if FALSE_ALARMS * (kept.images + 1) >= 1 else None
    return UnknownRecord(
        score=chosen,
        p_value=p_value,
        note=note,
        trials=tuple(tried.record(name) for name, tried in found.items()),
        images=kept.images,
        asked=asked,
        false_alarms=None
        if known.test is None or asked is None
        else _share(int((usual(kept, score(known.test)) <= asked).sum()), known.test),
        # As float32 they are written in nine digits.
        ranked=tuple(float(f"{value:.9g}") for value in kept.ranked),
    )


def _share(count: int, outputs: Outputs) -> Score:
    images = len(next(iter(outputs.values())))
    low, high = wilson_interval(count, images)
    return Score(value=count / images, low=low, high=high)


@dataclass(frozen=True)
class _Trial:
    """One trial's images, by whose validation image they are or are made of, and each one's share (`components`)."""

    known: NDArray[np.int64]
    above: NDArray[np.float64]
    unknown: NDArray[np.int64]
    below: NDArray[np.float64]

    @property
    def auroc(self) -> float:
        return float(self.below.mean())


@dataclass(frozen=True)
class _Result:
    """The mean AUROC over all trials of a kind, and how much each validation image moves it, (M,)."""

    mean: float
    moved: NDArray[np.float64]


class _Tried:
    """The trials of one score."""

    def __init__(self) -> None:
        self.near: list[_Trial] = []
        self.far: list[_Trial] = []

    def results(self, images: int) -> list[_Result]:
        """Of each kind that there is, near before far."""
        found = []
        for trials in (self.near, self.far):
            moved, mean = np.zeros(images), 0.0
            for trial in trials:
                share = 1 / len(trials)
                mean += share * trial.auroc
                np.add.at(moved, trial.known, share * (trial.above - trial.auroc) / len(trial.known))
                np.add.at(moved, trial.unknown, share * (trial.below - trial.auroc) / len(trial.unknown))
            if trials:
                found.append(_Result(mean, moved))
        return found

    def record(self, name: ScoreName) -> ScoreTrial:
        near, far = (
            float(np.mean([trial.auroc for trial in trials])) if trials else None
            for trials in (self.near, self.far)
        )
        assert far is not None
        return ScoreTrial(score=name, near=near, far=far, mean=far if near is None else (near + far) / 2)


def _near(name: ScoreName, spec: Labelling, known: Known, classes: NDArray[np.int32]) -> Iterator[_Trial]:
    """A trial for each class that has validation images, where there are enough classes."""
    if not isinstance(spec, Classification) or len(spec.labels) < _FEWEST_CLASSES:
        return
    for at in spread(sorted(set(classes.tolist())), _MOST_CLASSES):
        own = classes == at
        if own.all():
            continue
        score = scorer(
            name, _spec_without(spec, at), known.features and _features_without(known.features, at)
        )
        scores = score(_without(known.validation, at))
        above, below = components(scores[~own], scores[own])
        yield _Trial(np.flatnonzero(~own), above, np.flatnonzero(own), below)


def _far(name: ScoreName, spec: Labelling, known: Known) -> Iterator[_Trial]:
    score = scorer(name, spec, known.features)
    normal_ones = score(known.validation)
    every = np.arange(len(normal_ones))
    for outputs in known.far.values():
        above, below = components(normal_ones, score(outputs))
        yield _Trial(every, above, known.far_of, below)


def _spec_without(spec: Classification, at: int) -> Classification:
    return Classification(labels=spec.labels[:at] + spec.labels[at + 1 :])


def _without(outputs: Mapping[str, NDArray[np.float32]], at: int) -> dict[str, NDArray[np.float32]]:
    """Outputs without the logit of a class."""
    return {
        name: array if name in (EMBEDDING, PIXELS) else np.delete(array, at, axis=1)
        for name, array in outputs.items()
    }


def _features_without(features: Features, at: int) -> Features:
    """What is known without a class."""
    known = features.reference
    training, fresh = known.classes != at, known.validation_classes != at
    return Features(
        reference=replace(
            known,
            embeddings=known.embeddings[training],
            classes=known.classes[training],
            validation=known.validation[fresh],
            validation_classes=known.validation_classes[fresh],
            logits=_without({LOGITS: known.logits[LOGITS][fresh]}, at),
            looks=known.looks[training] if known.has_looks else known.looks,
            validation_looks=known.validation_looks[fresh] if known.has_looks else known.looks,
        ),
        weights={LOGITS: np.delete(features.weights[LOGITS], at, axis=0)},
    )


def _chosen(results: Mapping[ScoreName, list[_Result]]) -> tuple[ScoreName, float | None, str]:
    """The score that is used, the p-value of its test against the softmax, and why."""
    plain = results[ScoreName.SOFTMAX]
    means = {name: float(np.mean([kind.mean for kind in kinds])) for name, kinds in results.items()}
    # It is to be better in every kind of trial: the worst p-value counts.
    tests = {
        name: min(1.0, max(map(_p_value, kinds, plain)) * (len(results) - 1))
        for name, kinds in results.items()
        if name is not ScoreName.SOFTMAX
    }
    shown = [name for name, found in tests.items() if found <= _LEVEL]
    best = max(shown or means, key=lambda name: means[name])
    if best is ScoreName.SOFTMAX:
        return best, None, f"no score does better than {best} (mean AUROC {means[best]:.3f})"
    p_value = tests[best]
    areas = " and ".join(
        f"{kind.mean:.3f} against {own.mean:.3f}" for kind, own in zip(results[best], plain, strict=True)
    )
    kinds = (
        "with classes left out and on pictures of nothing known"
        if len(plain) > 1
        else "on pictures of nothing known"
    )
    figures = f"AUROC {areas} of softmax {kinds}, p {p_value:.2g}"
    if p_value > _LEVEL:
        return ScoreName.SOFTMAX, p_value, f"{best} was not shown to do better than softmax: {figures}"
    return best, p_value, f"{best} does better than softmax: {figures}"


def _p_value(found: _Result, plain: _Result) -> float:
    """That the gain in mean AUROC is none or less."""
    gain, deviation = found.mean - plain.mean, math.sqrt(float(np.square(found.moved - plain.moved).sum()))
    if deviation == 0:
        return 0.0 if gain > 0 else 1.0
    return 1 - NormalDist().cdf(gain / deviation)
