from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from edgetl.train.adapt import distances


@pytest.fixture
def domains() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(6, 6, generator=generator)
    return torch.randn(40, 6, generator=generator) @ mix, 2 + torch.randn(30, 6, generator=generator)


def test_coral_compares_covariances_and_nothing_else(domains: tuple[Tensor, Tensor]) -> None:
    source, target = domains
    own, other = np.cov(source.numpy().T), np.cov(target.numpy().T)
    assert distances.coral(source, target) == pytest.approx(
        ((own - other) ** 2).sum() / (own**2).sum(), rel=1e-4
    )
    assert distances.coral(source, source + 3) == pytest.approx(0, abs=1e-6)
    assert distances.coral(10 * source, 10 * target) == pytest.approx(
        float(distances.coral(source, target)), rel=1e-4
    )


def test_coral_takes_more_features_than_a_matrix_of_them_would_fit_into_memory() -> None:
    generator = torch.Generator().manual_seed(0)
    source, target = (torch.randn(4, 200_000, generator=generator) for _ in range(2))
    assert distances.coral(source, target) == pytest.approx(2, rel=0.05)


def test_mmd_is_what_the_definition_says(domains: tuple[Tensor, Tensor]) -> None:
    source, target = (part.double().numpy() for part in domains)
    both = np.concatenate([source, target])
    width = np.mean([((a - b) ** 2).sum() for a in both for b in both])

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        apart = ((a - b) ** 2).sum()
        return float(np.mean([np.exp(-apart / (scale * width)) for scale in (0.25, 0.5, 1, 2, 4)]))

    def mean(first: np.ndarray, second: np.ndarray) -> float:
        return float(np.mean([kernel(a, b) for a in first for b in second]))

    expected = mean(source, source) + mean(target, target) - 2 * mean(source, target)
    assert distances.mmd(*domains) == pytest.approx(expected, rel=1e-3)
    assert distances.mmd(domains[0], domains[0]) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("distance", [distances.coral, distances.mmd])
def test_the_gradient_draws_the_domains_together(
    distance: type[distances.coral], domains: tuple[Tensor, Tensor]
) -> None:
    source = domains[0].clone().requires_grad_(True)
    before = distance(source, domains[1])
    before.backward()
    assert source.grad is not None
    step = 0.1 * source.detach().norm() / source.grad.norm()
    assert distance(source.detach() - step * source.grad, domains[1]) < before.detach()


def test_recoloured_features_have_the_target_s_mean_and_come_near_its_covariance(
    domains: tuple[Tensor, Tensor],
) -> None:
    source, target = domains
    found = distances.recoloured(source, target)
    assert torch.allclose(found.mean(0), target.mean(0), atol=1e-4)
    own, other, before = (distances.covariance(part) for part in (found, target, source))
    assert (own - other).norm() < 0.5 * (before - other).norm()
    assert torch.allclose(distances.recoloured(target, target), target, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_recoloured_features_are_skada_s() -> None:
    mapping = pytest.importorskip("skada._mapping", reason="skada is not installed (extra `bench`)")
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(80, 12, generator=generator) @ torch.randn(12, 12, generator=generator)
    target = 2 + torch.randn(80, 12, generator=generator) @ torch.randn(12, 12, generator=generator)
    # half of the mean variance beside half of the covariance: our ridge, and a factor that cancels
    theirs = mapping.CORALAdapter(reg=0.5)
    domain = np.repeat([1, -2], [80, 80])
    theirs.fit(np.concatenate([source, target]).astype(np.float64), sample_domain=domain)
    expected = (source.numpy() - theirs.mean_source_) @ theirs.cov_source_inv_sqrt_ @ theirs.cov_target_sqrt_
    assert np.allclose(distances.recoloured(source, target), expected + theirs.mean_target_, atol=1e-3)
