"""Temperature: the one number by which logits are divided so that scores are as sure as the answers are right.

Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, section 4: of the temperatures
the one of least negative log-likelihood on images that the network was not trained on. The best class stays the best.

Two things are added. Targets are smoothed by as much as the images allow, as in Platt, "Probabilistic Outputs for
Support Vector Machines", 1999, section 2.2: the truth counts (n + 1) / (n + 2). Without it the least lies at
temperature 0 where every answer is right, since then any surer is better. And a temperature is used only where it is
shown to help: each fifth of the images is scored with what was fitted on the others, and a bootstrap (Efron 1979) over
the images must find that the loss fell, at 5%, without the Brier score having risen. The loss is ruled by the worst
mistakes: where some are wildly sure, the temperature of least loss makes all others unsure that were rightly sure.

Legend: N images, C classes. Only numpy.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgetl.records.frozen import dataclass

LOWEST, HIGHEST = 0.05, 20.0
"""Bounds of a temperature."""
FEWEST = 20
"""Images that a temperature is fitted on, at least."""
LEVEL = 0.05
"""How often a temperature may be used that does not help."""
_FOLDS = 5
_STEPS = 100
_EXACT = 1e-10
# Bound the time: so many values of a bootstrap are drawn, and so many logits are looked at.
_DRAWN, _MOST_DRAWS, _LEAST_DRAWS = 10_000_000, 2000, 400
_CELLS = 5_000_000


class Likelihood(Protocol):
    """Images, and what their logits say of their truths at the inverse temperature `beta`."""

    def __len__(self) -> int:
        """N."""

    def mistakes(self) -> int:
        """Images with a wrong answer, of any number of classes with one at least."""

    def rows(self, places: NDArray[np.int64]) -> Likelihood:
        """Those of the images."""

    def losses(self, beta: float) -> NDArray[np.float64]:
        """(N,) the negative log-likelihood of each image's truth, in nats."""

    def squares(self, beta: float) -> NDArray[np.float64]:
        """(N,) the squared distance of each image's probabilities from its truth (Brier 1950)."""

    def slope(self, beta: float) -> tuple[float, float]:
        """First and second derivative of the mean loss of smoothed targets, which is convex in `beta`."""


class Softmax:
    """One class per image.

    Args:
        logits: (N, C) float.
        truths: (N,) int.
    """

    def __init__(self, logits: NDArray[Any], truths: NDArray[Any]) -> None:
        values = np.asarray(logits, dtype=np.float64)
        self._truths = np.asarray(truths, dtype=np.int64)
        self._values = values - values.max(axis=1, keepdims=True, initial=-np.inf)

    def __len__(self) -> int:
        """See `Likelihood`."""
        return len(self._truths)

    def mistakes(self) -> int:
        """See `Likelihood`."""
        return int((self._values.argmax(axis=1) != self._truths).sum())

    def rows(self, places: NDArray[np.int64]) -> Softmax:
        """See `Likelihood`."""
        return Softmax(self._values[places], self._truths[places])

    def losses(self, beta: float) -> NDArray[np.float64]:
        """See `Likelihood`."""
        weights = np.exp(beta * self._values)
        return np.asarray(np.log(weights.sum(axis=1)) - beta * self._right())

    def squares(self, beta: float) -> NDArray[np.float64]:
        """See `Likelihood`."""
        shares = np.exp(beta * self._values)
        shares /= shares.sum(axis=1, keepdims=True)
        own = shares[np.arange(len(self)), self._truths]
        return np.asarray((shares**2).sum(axis=1) - 2 * own + 1)

    def slope(self, beta: float) -> tuple[float, float]:
        """See `Likelihood`; the rest of the truth's share is spread evenly over the other classes."""
        weights = np.exp(beta * self._values)
        shares = weights / weights.sum(axis=1, keepdims=True)
        means = (shares * self._values).sum(axis=1)
        variances = (shares * self._values**2).sum(axis=1) - means**2
        right, share = self._right(), _smooth(len(self))
        others = (self._values.sum(axis=1) - right) / max(1, self._values.shape[1] - 1)
        targets = share * right + (1 - share) * others
        return float((means - targets).mean()), float(variances.mean())

    def _right(self) -> NDArray[np.float64]:
        return np.asarray(self._values[np.arange(len(self)), self._truths])


class Sigmoid:
    """Any number of classes per image, all with one temperature.

    Args:
        logits: (N, C) float.
        truths: (N, C) bool.
        answers: (N, C) bool, what is answered.
    """

    def __init__(self, logits: NDArray[Any], truths: NDArray[Any], answers: NDArray[Any]) -> None:
        self._values = np.asarray(logits, dtype=np.float64)
        self._truths, self._answers = np.asarray(truths, dtype=bool), np.asarray(answers, dtype=bool)

    def __len__(self) -> int:
        """See `Likelihood`."""
        return len(self._truths)

    def mistakes(self) -> int:
        """See `Likelihood`."""
        return int((self._answers != self._truths).any(axis=1).sum())

    def rows(self, places: NDArray[np.int64]) -> Sigmoid:
        """See `Likelihood`."""
        return Sigmoid(self._values[places], self._truths[places], self._answers[places])

    def losses(self, beta: float) -> NDArray[np.float64]:
        """See `Likelihood`; summed over the classes."""
        against = np.where(self._truths, -beta, beta) * self._values
        return np.asarray(np.logaddexp(0.0, against).sum(axis=1))

    def squares(self, beta: float) -> NDArray[np.float64]:
        """See `Likelihood`; summed over the classes."""
        shares = 0.5 * (1.0 + np.tanh(0.5 * beta * self._values))
        return np.asarray(((shares - self._truths) ** 2).sum(axis=1))

    def slope(self, beta: float) -> tuple[float, float]:
        """See `Likelihood`."""
        shares = 0.5 * (1.0 + np.tanh(0.5 * beta * self._values))
        share = _smooth(len(self))
        targets = np.where(self._truths, share, 1 - share)
        first = ((shares - targets) * self._values).sum(axis=1)
        second = (shares * (1 - shares) * self._values**2).sum(axis=1)
        return float(first.mean()), float(second.mean())


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """What came out; see `edgetl.records.confidence.OutputConfidence`, whose fields have these names."""

    temperature: float
    fitted: float | None
    p_value: float | None
    note: str


def fit(likelihood: Likelihood) -> float:
    """The temperature of least loss, between `LOWEST` and `HIGHEST`.

    Newton's steps on the inverse temperature, halved by logarithm where one leaves the bracket.
    """
    low, high = 1 / HIGHEST, 1 / LOWEST
    if likelihood.slope(low)[0] >= 0:
        return HIGHEST
    if likelihood.slope(high)[0] <= 0:
        return LOWEST
    beta = 1.0
    for _ in range(_STEPS):
        first, second = likelihood.slope(beta)
        low, high = (low, beta) if first > 0 else (beta, high)
        step = beta - first / second if second > 0 else low
        if not low < step < high:
            step = float(np.sqrt(low * high))
        if abs(step - beta) <= _EXACT * beta:
            break
        beta = step
    return float(1 / step)


def choose(likelihood: Likelihood) -> Temperature:
    """The temperature to use on new images: what was fitted where that is shown to help, else 1."""
    images = len(likelihood)
    if images < FEWEST:
        return Temperature(
            temperature=1.0,
            fitted=None,
            p_value=None,
            note=f"scores are as the network gives them: {_images(images)} of the validation split have a label for"
            f" it, and a temperature needs {FEWEST}",
        )
    fitted = fit(likelihood)
    losses, squares = _gains(likelihood)
    p_value, fell = _p_value(losses), squares.mean() >= 0
    if p_value > LEVEL or not fell:
        note = f"scores are as the network gives them: a temperature of {fitted:.2f} " + (
            f"was not shown to lower the loss on {_images(images)} of the validation split (p {p_value:.2f})"
            if p_value > LEVEL
            else f"lowers the loss on {_images(images)} of the validation split and raises the Brier score by"
            f" {-squares.mean():.2g}"
        )
        return Temperature(temperature=1.0, fitted=fitted, p_value=p_value, note=note)
    note = ""
    if fitted in (LOWEST, HIGHEST):
        note = f"its temperature is at its bound, {fitted:g}: the scores say little"
    elif not likelihood.mistakes():
        note = (
            f"none of {_images(images)} of the validation split is answered wrong, so its temperature counts on one"
            f" mistake in {images + 2:,}"
        )
    return Temperature(temperature=fitted, fitted=fitted, p_value=p_value, note=note)


def thinned(images: int, classes: int) -> NDArray[np.int64]:
    """The images that a temperature is fitted on, evenly spread: all, or as many as bound the time."""
    most = max(FEWEST, _CELLS // max(1, classes))
    return np.unique(np.linspace(0, images - 1, min(images, most)).round().astype(np.int64))


def _smooth(images: int) -> float:
    return (images + 1) / (images + 2)


def _gains(likelihood: Likelihood) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(N,) each: by how much loss and squares fall, on images that the temperature was not fitted on."""
    images = len(likelihood)
    losses, squares, fold = np.empty(images), np.empty(images), np.arange(images) % _FOLDS
    for number in range(_FOLDS):
        own = likelihood.rows(np.flatnonzero(fold == number))
        beta = 1 / fit(likelihood.rows(np.flatnonzero(fold != number)))
        losses[fold == number] = own.losses(1.0) - own.losses(beta)
        squares[fold == number] = own.squares(1.0) - own.squares(beta)
    return losses, squares


def _p_value(gains: NDArray[np.float64]) -> float:
    """How likely such gains, or none, come by chance alone."""
    images = len(gains)
    draws = int(np.clip(_DRAWN // images, _LEAST_DRAWS, _MOST_DRAWS))
    generator = np.random.default_rng(0)
    means = [gains[generator.integers(0, images, images)].mean() for _ in range(draws)]
    return float((1 + np.sum(np.array(means) <= 0)) / (draws + 1))


def _images(count: int) -> str:
    return f"{count:,} image{'' if count == 1 else 's'}"
