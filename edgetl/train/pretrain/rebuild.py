"""Learning to rebuild pictures: what is hidden of them, what noise covers, or all of them from few variables."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetl.errors import TensorError
from edgetl.train.objective import Batch, Need
from edgetl.train.pretrain.backbone import LastMap
from edgetl.train.watching import watching

_LATENT = 128
"""Variables of the variational autoencoder."""
_FIRST_SIDE, _FIRST_WIDTH, _LEAST_WIDTH = 4, 128, 16
"""Of its decoder, which doubles the side and halves the width layer by layer."""


def masked_error(rebuilt: Tensor, images: Tensor, hidden: Tensor) -> Tensor:
    """The mean squared error over the hidden pixels alone.

    He et al., "Masked Autoencoders Are Scalable Vision Learners" (CVPR 2022), section 3.

    Args:
        rebuilt, images: (N, C, H, W).
        hidden: (N, 1, H, W) bool, or 0 and 1; one pixel or more.

    Returns:
        A scalar float32.

    Raises:
        TensorError: the shapes differ.
    """
    if rebuilt.shape != images.shape or hidden.shape != (len(images), 1, *images.shape[2:]):
        raise TensorError(
            f"rebuilt {tuple(rebuilt.shape)}, images {tuple(images.shape)} and hidden {tuple(hidden.shape)} must be of"
            " the same pixels, the last of one channel."
        )
    weights = hidden.float().expand_as(images)
    return ((rebuilt.float() - images.float()).square() * weights).sum() / weights.sum()


def negative_elbo(rebuilt: Tensor, images: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """The negative evidence lower bound per pixel value, without its constant.

    (1/2 sum over the values of (rebuilt - images)^2 + 1/2 sum over the variables of
    (mean^2 + variance - 1 - log variance)) / values, the mean over the images: a Gaussian of variance 1 about the
    rebuilt picture, and a standard normal prior. Kingma, Welling, "Auto-Encoding Variational Bayes" (ICLR 2014),
    equation 10.

    Args:
        rebuilt, images: (N, C, H, W).
        mean, log_variance: (N, L).

    Returns:
        A scalar float32.

    Raises:
        TensorError: the shapes differ.
    """
    if rebuilt.shape != images.shape or mean.shape != log_variance.shape or len(mean) != len(images):
        raise TensorError(
            f"rebuilt {tuple(rebuilt.shape)} and images {tuple(images.shape)}, mean {tuple(mean.shape)} and"
            f" log_variance {tuple(log_variance.shape)} must be of the same images and of one shape each."
        )
    mean, log_variance = mean.float(), log_variance.float()
    apart = (rebuilt.float() - images.float()).square().flatten(1).sum(1) / 2
    divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2
    return (apart + divergence).mean() / images[0].numel()


def cells(n: int, per_side: int, share: float) -> Tensor:
    """Hide this share of the cells of each image, at least one and not all: (n, 1, per_side, per_side) bool.

    Drawn from torch's global generator on the CPU, which the loop seeds for each step.
    """
    count = per_side * per_side
    hidden = min(max(1, round(share * count)), count - 1)
    return (torch.rand(n, count).argsort(dim=1) < hidden).view(n, 1, per_side, per_side)


class _Decoder(nn.Module):
    """A light decoder: one linear layer for each place of the last map, whose outputs are the pixels about it.

    Xie et al., "SimMIM: A Simple Framework for Masked Image Modeling" (CVPR 2022), section 3.3: no heavier one taught
    better.
    """

    def __init__(self, given: LastMap, size: int) -> None:
        super().__init__()
        factor = math.ceil(size / given.side)
        self.size = size
        self.pixels = nn.Conv2d(given.channels, 3 * factor * factor, 1)
        self.shuffle = nn.PixelShuffle(factor)

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, h, h) to (N, 3, size, size)."""
        return _of_side(self.shuffle(self.pixels(features)), self.size)


def _of_side(images: Tensor, size: int) -> Tensor:
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)


class Masked:
    """Patches of the picture are hidden, and what they show is rebuilt from the backbone's last map.

    A convolutional network sees a picture of which the hidden patches have one learnt colour; see `masked_error`.
    """

    needs = frozenset({Need.IMAGES})

    def __init__(self, given: LastMap, size: int, *, share: float, per_side: int, seed: int) -> None:
        """Make the decoder.

        Args:
            given: the backbone's last map.
            size: S.
            share: of the picture that is hidden.
            per_side: patches per side.
            seed: of the decoder's first weights.
        """
        self._given, self._share, self._per_side = given, share, per_side
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._modules = nn.ModuleDict({"decoder": _Decoder(given, size)})
        self._colour = nn.Parameter(torch.zeros(1, 3, 1, 1))
        self._modules.register_parameter("colour", self._colour)

    @property
    def modules(self) -> nn.Module | None:
        """The decoder and the colour of what is hidden."""
        return self._modules

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The error of the hidden pixels; the model gives features of images (N, 3, S, S)."""
        images = batch.images
        drawn = cells(len(images), self._per_side, self._share).to(images.device, images.dtype)
        hidden = F.interpolate(drawn, size=images.shape[2:], mode="nearest")
        seen = images * (1 - hidden) + self._modules.get_parameter("colour") * hidden
        with watching(model, (self._given.name,)) as outputs:
            model(seen)
        return masked_error(self._modules["decoder"](outputs[self._given.name]), images, hidden)


class Denoise:
    """Noise is added to the picture, which is rebuilt from the backbone's last map.

    Vincent et al., "Extracting and Composing Robust Features with Denoising Autoencoders" (ICML 2008), with Gaussian
    noise and the mean squared error over all pixels.
    """

    needs = frozenset({Need.IMAGES})

    def __init__(self, given: LastMap, size: int, *, noise: float, seed: int) -> None:
        """Make the decoder.

        Args:
            given: the backbone's last map.
            size: S.
            noise: standard deviation, in units of the normalised pixels.
            seed: of the decoder's first weights.
        """
        self._given, self._noise = given, noise
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._decoder = _Decoder(given, size)

    @property
    def modules(self) -> nn.Module | None:
        """The decoder."""
        return self._decoder

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The error of all pixels; the model gives features of images (N, 3, S, S)."""
        images = batch.images
        noise = torch.randn(images.shape).to(images.device, memory_format=torch.channels_last)
        with watching(model, (self._given.name,)) as outputs:
            model(images + self._noise * noise)
        return F.mse_loss(self._decoder(outputs[self._given.name]).float(), images.float())


class Variational:
    """The picture is rebuilt from few random variables, whose distribution follows from the features.

    See `negative_elbo`.
    """

    needs = frozenset({Need.IMAGES})

    def __init__(self, width: int, size: int, *, seed: int) -> None:
        """Make the encoder's last layer and the decoder.

        Args:
            width: F, the features of the backbone.
            size: S.
            seed: of their first weights.
        """
        self._size = size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            channels, layers = _FIRST_WIDTH, list[nn.Module]()
            for _ in range(max(0, math.ceil(math.log2(size / _FIRST_SIDE)))):
                after = max(_LEAST_WIDTH, channels // 2)
                layers += [
                    nn.Upsample(scale_factor=2.0),
                    nn.Conv2d(channels, after, 3, padding=1),
                    nn.ReLU(),
                ]
                channels = after
            self._modules = nn.ModuleDict(
                {
                    "encoder": nn.Linear(width, 2 * _LATENT),
                    "decoder": nn.Sequential(
                        nn.Linear(_LATENT, _FIRST_WIDTH * _FIRST_SIDE**2),
                        nn.ReLU(),
                        nn.Unflatten(1, (_FIRST_WIDTH, _FIRST_SIDE, _FIRST_SIDE)),
                        *layers,
                        nn.Conv2d(channels, 3, 1),
                    ),
                }
            )

    @property
    def modules(self) -> nn.Module | None:
        """The encoder's last layer and the decoder."""
        return self._modules

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The negative bound with one draw per image; the model gives features of images (N, 3, S, S)."""
        mean, log_variance = self._modules["encoder"](model(batch.images)).float().chunk(2, dim=1)
        log_variance = log_variance.clamp(-10.0, 10.0)
        drawn = torch.randn(mean.shape).to(mean.device)
        code = mean + drawn * (log_variance / 2).exp()
        rebuilt = _of_side(self._modules["decoder"](code), self._size)
        return negative_elbo(rebuilt, batch.images, mean, log_variance)
