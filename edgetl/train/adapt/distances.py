"""How far the features of two domains lie apart, as losses and as a closed form.

Legend: n source and m target images, D features.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Widths of the kernels, in terms of the mean squared distance of all pairs."""
_RIDGE = 1.0
"""Added to covariances' diagonals, in terms of their mean: fewer images than features leave most directions open."""


def coral(source: Tensor, target: Tensor) -> Tensor:
    """The squared distance of the covariances, in terms of the source's own: a scalar float32, 0 for equal ones.

    ||C_source - C_target||^2 / ||C_source||^2 in Frobenius norms, the divisor without gradient. Sun, Saenko, "Deep
    CORAL: Correlation Alignment for Deep Domain Adaptation" (ECCV 2016 workshops), equation 1, where the divisor is
    4 D^2: with ours the weight does not depend on the features' number and scale.

    Args:
        source: (n, D), n at least 2.
        target: (m, D), m at least 2.
    """
    own, other = _scaled(source.float()), _scaled(target.float())
    # ||A'A|| = ||AA'||, and so on: matrices of images, since features may be tens of thousands
    within, beside, across = ((a @ b.T).square().sum() for a, b in ((own, own), (other, other), (own, other)))
    distance = within + beside - 2 * across
    return distance / within.detach().clamp_min(1e-12)


def mmd(source: Tensor, target: Tensor) -> Tensor:
    """The squared maximum mean discrepancy of the features under a sum of Gaussian kernels: a scalar float32.

    The mean of k over pairs within the source, plus that within the target, less twice that across (the biased
    estimate, which is at least 0). The kernels are as wide as the mean squared distance times 1/4 to 4, without
    gradient. Long et al., "Learning Transferable Features with Deep Adaptation Networks" (ICML 2015), equation 1, with
    equal weights of the kernels.

    Args:
        source: (n, D).
        target: (m, D).
    """
    both = torch.cat([source, target]).float()
    apart = torch.cdist(both, both).square()
    width = apart.detach().mean().clamp_min(1e-12)
    kernel = sum((torch.exp(-apart / (scale * width)) for scale in _SCALES), torch.zeros_like(apart))
    n = len(source)
    value = kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()
    return value / len(_SCALES)


def recoloured(source: Tensor, target: Tensor) -> Tensor:
    """Source features with the target's mean and covariance: (n, D) float32.

    They are whitened with their own covariance and coloured with the target's, both with a ridge. A classifier that
    learns from them fits the target's features as they are. Sun, Feng, Saenko, "Return of Frustratingly Easy Domain
    Adaptation" (AAAI 2016), algorithm 1.

    Args:
        source: (n, D), n at least 2.
        target: (m, D), m at least 2.
    """
    source, target = source.double(), target.double()
    whitened = (source - source.mean(0)) @ _power(_ridged(source), -0.5)
    return (whitened @ _power(_ridged(target), 0.5) + target.mean(0)).float()


def covariance(features: Tensor) -> Tensor:
    """(D, D), with the divisor n - 1."""
    scaled = _scaled(features)
    return scaled.T @ scaled


def _scaled(features: Tensor) -> Tensor:
    """Centred, and divided by the root of n - 1."""
    return (features - features.mean(0)) / math.sqrt(len(features) - 1)


def _ridged(features: Tensor) -> Tensor:
    found = covariance(features)
    return found + _RIDGE * found.diagonal().mean() * torch.eye(len(found), dtype=found.dtype)


def _power(symmetric: Tensor, exponent: float) -> Tensor:
    values, vectors = torch.linalg.eigh(symmetric)
    found: Tensor = (vectors * values.clamp_min(1e-12) ** exponent) @ vectors.T
    return found
