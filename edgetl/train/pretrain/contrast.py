"""Learning that two views of one image are alike: SimCLR and VICReg."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetl.errors import TensorError
from edgetl.inputs.spec import PreprocessSpec
from edgetl.train.augment import normalise_
from edgetl.train.objective import Batch, Need

_WIDTH = 128
"""Of what SimCLR compares."""
_EXPANDED = 1024
"""Of what VICReg compares."""
_INVARIANCE, _VARIANCE, _COVARIANCE = 25.0, 25.0, 1.0


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """The normalised, temperature-scaled cross-entropy: each view is to find the other view of its image.

    The mean over all 2N views of -log(exp(s(i, j) / t) / sum over k != i of exp(s(i, k) / t)), s the cosine, j the
    other view of i's image. Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations"
    (ICML 2020), equation 1.

    Args:
        first, second: (N, D), two views of the same N images; N is 2 or more.
        temperature: t, above 0.

    Returns:
        A scalar float32.

    Raises:
        TensorError: the shapes differ, or there are fewer than two images.
    """
    _check(first, second)
    views = F.normalize(torch.cat([first, second]).float(), dim=1)
    likeness = views @ views.T / temperature
    likeness.fill_diagonal_(-torch.inf)
    n = len(first)
    other = torch.arange(2 * n, device=views.device).roll(n)
    return F.cross_entropy(likeness, other)


def vicreg(first: Tensor, second: Tensor) -> Tensor:
    """Two views agree, while each value varies over the images and no two values say the same.

    25 * mean squared difference + 25 * the mean over both views and all values of max(0, 1 - sqrt(variance + 1e-4))
    + the sum over both views of the squared covariances of different values, divided by D. Bardes, Ponce, LeCun,
    "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning" (ICLR 2022), equations 1 to 6,
    with the mean over the views in the second term as in its appendix's code.

    Args:
        first, second: (N, D), two views of the same N images; N is 2 or more.

    Returns:
        A scalar float32.

    Raises:
        TensorError: the shapes differ, or there are fewer than two images.
    """
    _check(first, second)
    first, second = first.float(), second.float()
    value = _INVARIANCE * F.mse_loss(first, second)
    for views in (first, second):
        spread = (views.var(dim=0) + 1e-4).sqrt()
        centred = views - views.mean(dim=0)
        covariance = centred.T @ centred / (len(views) - 1)
        apart = covariance.square().sum() - covariance.diagonal().square().sum()
        value = value + _VARIANCE / 2 * F.relu(1 - spread).mean() + _COVARIANCE * apart / views.shape[1]
    return value


def _check(first: Tensor, second: Tensor) -> None:
    if first.dim() != 2 or first.shape != second.shape or len(first) < 2:
        raise TensorError(
            f"The views {tuple(first.shape)} and {tuple(second.shape)} must be (images, width) of the same two or more"
            " images."
        )


class Alike:
    """The loss of SimCLR or VICReg between two views, through a projector that learns with the backbone.

    The batch's images are the first views, its targets the second ones, (N, 3, S, S) float32 in 0..255. Both go
    through the backbone together, so that batch norm sees them alike.
    """

    needs = frozenset({Need.IMAGES})

    def __init__(self, width: int, spec: PreprocessSpec, *, temperature: float | None, seed: int) -> None:
        """Make the projector: of two layers for SimCLR, of three for VICReg, as in the papers.

        Args:
            width: F, the features of the backbone.
            spec: normalises the second views.
            temperature: of SimCLR; None for VICReg.
            seed: of the projector's first weights.
        """
        self._spec, self._temperature = spec, temperature
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if temperature is not None:
                self._projector = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, _WIDTH))
            else:
                self._projector = nn.Sequential(
                    *_layer(width, _EXPANDED), *_layer(_EXPANDED, _EXPANDED), nn.Linear(_EXPANDED, _EXPANDED)
                )

    @property
    def modules(self) -> nn.Module | None:
        """The projector."""
        return self._projector

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """See the class.

        Args:
            model: images (N, 3, S, S) -> features (N, F).
            batch: with the second views as targets.
        """
        second = normalise_(batch.targets.clone(), self._spec.mean, self._spec.std)
        both = torch.cat([batch.images, second.contiguous(memory_format=torch.channels_last)])
        projected = self._projector(model(both))
        first, second = projected.tensor_split(2)
        if self._temperature is None:
            return vicreg(first, second)
        return nt_xent(first, second, self._temperature)


def _layer(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()]
