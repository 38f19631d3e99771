"""LogME against the evidence as the paper writes it, maximised by a general optimiser."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

from edgetl.errors import TensorError
from edgetl.transfer.logme import logme


def evidence(x: NDArray[np.float64], y: NDArray[np.float64], alpha: float, beta: float) -> float:
    """The logarithm of p(y | x, alpha, beta): the paper's equation 2."""
    images, width = x.shape
    a = alpha * np.eye(width) + beta * x.T @ x
    m = beta * np.linalg.solve(a, x.T @ y)
    likelihood = images / 2 * np.log(beta / (2 * np.pi)) + width / 2 * np.log(alpha)
    penalty = beta / 2 * ((x @ m - y) ** 2).sum() + alpha / 2 * (m**2).sum()
    return float(likelihood - penalty - np.linalg.slogdet(a)[1] / 2)


def directly(x: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    def worst(logs: NDArray[np.float64], y: NDArray[np.float64]) -> float:
        return -evidence(x, y, *np.exp(logs))

    options = {"xatol": 1e-9, "fatol": 1e-10, "maxiter": 4000}
    best = [
        min(
            minimize(worst, start, args=(y,), method="Nelder-Mead", options=options).fun
            for start in ((0.0, 0.0), (3.0, 1.0), (-2.0, 2.0))
        )
        for y in labels.T
    ]
    return -float(np.mean(best)) / len(x)


def made(images: int, width: int, *, rank: int | None = None, noise: float = 1.0) -> tuple[NDArray, NDArray]:
    """Features, and three classes that depend on them but for noise."""
    generator = np.random.default_rng(images + width)
    x = generator.normal(size=(images, width)) * np.linspace(0.3, 2.0, width)
    if rank is not None:
        x = x @ generator.normal(size=(width, rank)) @ generator.normal(size=(rank, width)) / width
    scores = x @ generator.normal(size=(width, 3)) + noise * generator.normal(size=(images, 3))
    return x, np.eye(3)[scores.argmax(axis=1)]


@pytest.mark.parametrize(("images", "width", "rank"), [(60, 8, None), (20, 30, None), (40, 12, 4)])
def test_it_is_the_largest_evidence(images: int, width: int, rank: int | None) -> None:
    x, labels = made(images, width, rank=rank)
    assert logme(x, labels) == pytest.approx(directly(x, labels), abs=2e-5)


def test_it_does_not_depend_on_the_features_scale() -> None:
    x, labels = made(50, 10)
    assert logme(1e-3 * x, labels) == pytest.approx(logme(x, labels), abs=1e-9)


def test_features_that_explain_the_labels_score_higher() -> None:
    x, labels = made(200, 10, noise=0.1)
    noise = np.random.default_rng(0).normal(size=x.shape)
    assert logme(x, labels) > logme(np.where(np.arange(10) < 5, x, noise), labels) > logme(noise, labels)


def test_a_class_without_images_is_left_out() -> None:
    x, labels = made(30, 6)
    assert logme(x, np.column_stack([labels, np.zeros(30)])) == logme(x, labels)


def test_what_cannot_be_scored_is_refused() -> None:
    x, labels = made(12, 4)
    with pytest.raises(TensorError, match=r"got \(12, 4\) and \(11, 3\)"):
        logme(x, labels[1:])
    with pytest.raises(TensorError, match="not finite"):
        logme(np.where(np.arange(4) == 1, np.nan, x), labels)
    with pytest.raises(TensorError, match="not all 0"):
        logme(np.zeros_like(x), labels)
