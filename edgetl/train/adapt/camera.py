"""Source images as the target's camera would take them.

Light, white balance, contrast, focus and noise change the spectrum of pictures, whatever they show. So the mean power
of either domain's images at each frequency says how the target's camera differs: what it passes on of a frequency is
the ratio of the amplitudes, as far as that does not rise with the frequency, since lenses only blur; what is left over
is noise, which is white on the sensor and no longer so once pictures have been resized. Colours are scaled by the ratio
of the means. Exchanging amplitudes so that labelled images look like the target's is after Yang and Soatto, "FDA:
Fourier Domain Adaptation for Semantic Segmentation" (CVPR 2020), who exchange the low frequencies of single images.

It assumes that the domains show the same scenes: where they do not, their spectra differ for other reasons.

Legend: N images of side S, R distances from frequency 0 (in cycles per side), 3 channels.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fft import irfft2, rfft2

from edgetl.data.splits import spread
from edgetl.files import atomic_path
from edgetl.progress import SILENT, Progress
from edgetl.train.adapt.distances import mmd
from edgetl.train.seeds import numpy_generator

MOST = 256
"""Images of a domain by which its spectrum is measured, at most."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Camera:
    """How the target's camera differs from the source's.

    Attributes:
        gain: (3,) by which a picture's mean colour is multiplied.
        transfer: (3, R) what is passed on of the amplitude at each distance from frequency 0.
        noise: (3, R) by which the amplitudes of white noise of deviation 1 are multiplied.
    """

    gain: NDArray[np.float32]
    transfer: NDArray[np.float32]
    noise: NDArray[np.float32]

    def retaken(self, pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """One image (S, S, 3) as this camera takes it; `rng` draws the noise."""
        side = len(pixels)
        rings = _rings(side)
        values, means = _centred(pixels)
        drawn = torch.from_numpy(rng.standard_normal(values.shape, dtype=np.float32))
        passed, noise = (torch.from_numpy(own[:, rings]) for own in (self.transfer, self.noise))
        waves = rfft2(values) * passed + rfft2(drawn) * noise
        found = irfft2(waves, s=(side, side)) + means * torch.from_numpy(self.gain)[:, None, None]
        return np.asarray(found.round_().clamp_(0, 255).to(torch.uint8).permute(1, 2, 0).numpy())


def measured(
    source: NDArray[np.uint8], target: NDArray[np.uint8], rows: NDArray[np.int64] | None = None
) -> Camera:
    """The target's camera, as seen from the source's.

    Args:
        source: (N, S, S, 3), training images.
        target: (M, S, S, 3).
        rows: which training images are the source's; all where None.
    """
    before, own = _spectrum(source, np.arange(len(source)) if rows is None else rows)
    after, other = _spectrum(target, np.arange(len(target)))
    passed = _falling(other / np.maximum(own, 1e-6))
    # Noise shows at the higher frequencies, where pictures have least, and is as large in the ratios of the lower ones.
    fine = slice(own.shape[1] // 2, None)
    white = np.median(np.maximum(0.0, other - passed * own)[:, fine], axis=1, keepdims=True)
    passed = _falling(np.maximum(0.0, other - white) / np.maximum(own, 1e-6))
    side, gain = source.shape[1], after / np.maximum(before, 1.0)
    return Camera(
        gain=gain.astype(np.float32),
        transfer=np.sqrt(passed).astype(np.float32),
        # White noise of a pixel has S^2 times its variance as power at each frequency.
        noise=(np.sqrt(np.maximum(0.0, other - passed * own)) / side).astype(np.float32),
    )


def retake(
    camera: Camera,
    pixels: NDArray[np.uint8],
    chosen: NDArray[np.bool_],
    path: Path,
    *,
    seed: int,
    progress: Progress = SILENT,
) -> NDArray[np.uint8]:
    """Images, the chosen ones as another camera takes them.

    Args:
        camera: the other one.
        pixels: (N, S, S, 3).
        chosen: (N,) which are taken anew; the others stay as they are.
        path: the `.npy` file that is written: all of them may be more than fit into memory.
        seed: of the noise.
        progress: gets a bar.

    Returns:
        (N, S, S, 3) uint8, memory-mapped.

    Raises:
        StorageError: the file cannot be written.
    """
    with atomic_path(path) as temporary, progress.task("Camera", total=len(pixels)) as task:
        found = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=pixels.shape)
        for at, image in enumerate(pixels):
            found[at] = camera.retaken(image, numpy_generator(seed, "camera", at)) if chosen[at] else image
            task.advance()
        found.flush()
        del found
    return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]


def explained(
    source: NDArray[np.float32], retaken: NDArray[np.float32], target: NDArray[np.float32]
) -> float:
    """How much nearer to the target images lie once they are retaken: 1 where they become the same, 0 where nothing
    changes, and less where they move away.

    Of the squared maximum mean discrepancy of features (`edgetl.train.adapt.distances.mmd`, in its biased estimate, so
    that few images explain less).

    Args:
        source: (N, D) features of images.
        retaken: (N, D) features of the same as the target's camera takes them.
        target: (M, D) features of the target's images.
    """
    before, after, other = (
        torch.from_numpy(np.ascontiguousarray(own[spread(list(range(len(own))), MOST)]))
        for own in (source, retaken, target)
    )
    return 1 - float(mmd(after, other)) / max(float(mmd(before, other)), 1e-12)


def _falling(ratio: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ratios (3, R) that do not rise; at frequency 0, where nothing is left without the mean, as beside it."""
    ratio[:, 0] = ratio[:, 1]
    return np.asarray(np.minimum.accumulate(ratio, axis=1))


def _spectrum(
    pixels: NDArray[np.uint8], rows: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of images the mean colour (3,), and the mean power (3, R) at each distance from frequency 0, less each one's mean
    colour."""
    images = pixels[spread(rows.tolist(), MOST)]
    rings = _rings(images.shape[1]).ravel()
    counts = np.bincount(rings)
    power = np.zeros((3, len(counts)))
    for image in images:
        own = rfft2(_centred(image)[0]).abs().square().numpy()
        power += np.stack([np.bincount(rings, channel.ravel()) for channel in own]) / counts
    return images.mean(axis=(0, 1, 2)), power / len(images)


def _centred(pixels: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    """(3, S, S) float32 of an image (S, S, 3), less its mean colour, and that, (3, 1, 1)."""
    values = torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float()
    means = values.mean(dim=(1, 2), keepdim=True)
    return values - means, means


@functools.lru_cache(maxsize=4)
def _rings(side: int) -> NDArray[np.int64]:
    """(S, S // 2 + 1) each frequency's distance from 0, rounded, as `rfft2` orders them."""
    down, across = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    return np.asarray(np.rint(np.sqrt(down**2 + across**2) * side).astype(np.int64))
