"""The losses against slow straightforward versions, and against lightly's where that is installed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgetl.errors import TensorError
from edgetl.train.pretrain.contrast import nt_xent, vicreg
from edgetl.train.pretrain.follow import feature_distance
from edgetl.train.pretrain.rebuild import cells, masked_error, negative_elbo


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def views(n: int = 5, d: int = 7) -> tuple[Tensor, Tensor]:
    first = drawn(n, d)
    return first, first + 0.3 * drawn(n, d, seed=1)


def plain_nt_xent(first: NDArray[Any], second: NDArray[Any], temperature: float) -> float:
    rows, n = np.concatenate([first, second]), len(first)
    total = 0.0
    for i in range(2 * n):
        likeness = [
            math.exp(a / temperature)
            for a in (np.dot(rows[i], r) / np.linalg.norm(rows[i]) / np.linalg.norm(r) for r in rows)
        ]
        total -= math.log(likeness[(i + n) % (2 * n)] / (sum(likeness) - likeness[i]))
    return total / (2 * n)


def plain_vicreg(first: NDArray[Any], second: NDArray[Any]) -> float:
    n, d = first.shape
    total = 25 * sum((a - b) ** 2 for a, b in zip(first.flat, second.flat, strict=True)) / (n * d)
    for z in (first, second):
        mean = z.mean(axis=0)
        for j in range(d):
            variance = sum((z[i, j] - mean[j]) ** 2 for i in range(n)) / (n - 1)
            total += 25 / 2 * max(0.0, 1 - math.sqrt(variance + 1e-4)) / d
            for k in range(d):
                if k != j:
                    covariance = sum((z[i, j] - mean[j]) * (z[i, k] - mean[k]) for i in range(n)) / (n - 1)
                    total += covariance**2 / d
    return total


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_nt_xent_is_the_papers(temperature: float) -> None:
    first, second = views()
    expected = plain_nt_xent(first.double().numpy(), second.double().numpy(), temperature)
    assert nt_xent(first, second, temperature).item() == pytest.approx(expected, rel=1e-5)


def test_vicreg_is_the_papers() -> None:
    first, second = views()
    expected = plain_vicreg(first.double().numpy(), second.double().numpy())
    assert vicreg(first, second).item() == pytest.approx(expected, rel=1e-5)


def test_both_agree_with_lightly() -> None:
    losses = pytest.importorskip("lightly.loss", reason="lightly is not installed (extra `bench`)")
    first, second = views(8, 16)
    theirs = losses.NTXentLoss(temperature=0.2)(first, second).item()
    assert nt_xent(first, second, 0.2).item() == pytest.approx(theirs, rel=1e-4)
    theirs = losses.VICRegLoss()(first, second).item()
    assert vicreg(first, second).item() == pytest.approx(theirs, rel=1e-4)


def test_the_masked_error_counts_hidden_pixels_alone() -> None:
    images, rebuilt = drawn(2, 3, 4, 4), drawn(2, 3, 4, 4, seed=1)
    hidden = drawn(2, 1, 4, 4, seed=2) > 0
    errors = [
        (float(rebuilt[n, c, y, x]) - float(images[n, c, y, x])) ** 2
        for n in range(2)
        for c in range(3)
        for y in range(4)
        for x in range(4)
        if hidden[n, 0, y, x]
    ]
    assert masked_error(rebuilt, images, hidden).item() == pytest.approx(float(np.mean(errors)), rel=1e-5)


def test_the_bound_is_that_of_a_gaussian_and_a_standard_normal_prior() -> None:
    images, rebuilt = drawn(2, 3, 4, 4), drawn(2, 3, 4, 4, seed=1)
    mean, log_variance = drawn(2, 5, seed=2), drawn(2, 5, seed=3)
    total = 0.0
    for n in range(2):
        total += 0.5 * sum(
            (float(a) - float(b)) ** 2 for a, b in zip(rebuilt[n].ravel(), images[n].ravel(), strict=True)
        )
        for m, v in zip(mean[n].tolist(), log_variance[n].tolist(), strict=True):
            total += 0.5 * (m * m + math.exp(v) - 1 - v)
    assert negative_elbo(rebuilt, images, mean, log_variance).item() == pytest.approx(
        total / 2 / 48, rel=1e-5
    )
    normal = torch.distributions.Normal(mean, (log_variance / 2).exp())
    apart = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum(1).mean()
    assert negative_elbo(images, images, mean, log_variance).item() == pytest.approx(
        apart.item() / 48, rel=1e-4
    )


def test_the_distance_of_features_is_that_of_directions() -> None:
    first, second = views()
    cosines = [
        float(a @ b / (a.norm() * b.norm())) for a, b in zip(first.double(), second.double(), strict=True)
    ]
    assert feature_distance(first, second).item() == pytest.approx(2 - 2 * float(np.mean(cosines)), rel=1e-5)
    assert feature_distance(first, 3 * first).item() == pytest.approx(0.0, abs=1e-6)


def test_cells_hide_their_share_and_never_all_or_nothing() -> None:
    torch.manual_seed(0)
    found = cells(6, 4, 0.6)
    assert found.shape == (6, 1, 4, 4)
    assert found.flatten(1).sum(1).tolist() == [10] * 6
    assert len({tuple(row) for row in found.flatten(1).tolist()}) > 1
    assert cells(1, 2, 0.99).sum() == 3
    assert cells(1, 2, 0.01).sum() == 1


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(TensorError, match="same two or more images"):
        nt_xent(drawn(1, 4), drawn(1, 4), 0.2)
    with pytest.raises(TensorError, match="same two or more images"):
        vicreg(drawn(3, 4), drawn(3, 5))
    with pytest.raises(TensorError, match="must be of the same pixels"):
        masked_error(drawn(1, 3, 4, 4), drawn(1, 3, 4, 4), drawn(1, 3, 4, 4))
    with pytest.raises(TensorError, match="must be of the same images"):
        negative_elbo(drawn(1, 3, 4, 4), drawn(1, 3, 4, 4), drawn(2, 3), drawn(2, 3))
    with pytest.raises(TensorError, match="must be equal in shape"):
        feature_distance(drawn(2, 3), drawn(2, 4))
