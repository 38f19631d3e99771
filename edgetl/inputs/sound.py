"""How a sound becomes a picture: one channel, one rate, one window, a log-mel spectrogram. The only copy.

Training, evaluation, calibration and the device all call this module, by way of `edgetl.inputs.image`: what it gives
is a picture, and everything else treats it as one. What is done to a sound, in this order:

1. read (`edgetl.inputs.recordings`) and refused where nothing can be learned from it: no samples, numbers that are not
   finite, silence, flat tops (clipping), a dead channel.
2. to one channel: the mean of all, or the one that the spec names.
3. to the spec's rate, by a windowed sinc.
4. to the spec's window: the loudest part of a longer recording; a shorter one stands in the middle of silence.
5. spectra of frames whose middles lie evenly in the window, each under a Hann window; beyond the ends is silence.
6. their power in bands that are triangles on the mel scale, a full-scale sine being 1 in all; in decibels.
7. to 0..255: white is the loudest place or full scale (`Level`), black is `range_db` below it. Time runs to the right,
   frequency upwards, and the three channels are alike.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgetl.errors import SoundError, TensorError
from edgetl.inputs.recordings import NAMELESS, read_recording
from edgetl.inputs.spec import Level, SoundSpec

SILENT = 1e-4
"""A recording whose samples span less, of the 2 that there are, is silent: 86 dB below the loudest."""
CLIPPED, LOUD = 0.1, 0.5
"""Share of the samples that are the largest or the smallest one from which a loud recording is clipped."""
QUIETEST_DB = -80.0
"""The loudest place of a window counts as no less, so that the noise of silence is not blown up to a picture."""

FLOOR = 1e-20
_CROSSINGS, _KAISER, _PASSED = 32, 8.0, 0.91
"""Of the sinc that resamples, on either side; shape of its window; and what it lets through of half the lower rate. So
what lies beyond that half comes through at less than -80 dB."""
_BLOCK = 1 << 14
_BLOCK_BYTES = 1 << 16
"""Of the spectra that are made at a time: what is larger an allocator asks of the system each time, which takes longer
than the transforms."""
_MOST_WEIGHTS = 1 << 21


def to_picture(source: Path | bytes, spec: SoundSpec, *, name: str = "") -> Image.Image:
    """The picture of a file's sound, or of its content's: (mels, frames) pixels, grey in RGB.

    Raises:
        SoundError: it cannot be used; the message names it and the reason.
        MissingDependencyError: it is FLAC or Ogg, and `soundfile` is not installed.
    """
    return drawn(load_mono(source, spec, name=name), spec)


def load_mono(source: Path | bytes, spec: SoundSpec, *, name: str = "") -> NDArray[np.float32]:
    """A file's sound at the spec's rate, in one channel: (N,) float32; raises as `to_picture`."""
    name = name or (str(source) if isinstance(source, Path) else NAMELESS)
    samples, rate = read_recording(source, name=name)
    return resampled(mono(samples, spec, name), rate, spec.rate)


def mono(samples: NDArray[np.float32], spec: SoundSpec, name: str) -> NDArray[np.float32]:
    """One channel of a whole recording.

    Args:
        samples: (N, channels).
        spec: says which.
        name: what messages call the recording.

    Raises:
        SoundError: nothing can be learned from it.
    """
    channels = samples.shape[1]
    if not len(samples):
        raise SoundError(f"{name}: holds no samples; remove it, or record it again.")
    if not np.isfinite(samples).all():
        raise SoundError(
            f"{name}: holds values that are not finite (NaN or infinity); replace them by numbers."
        )
    if spec.channel > channels:
        raise SoundError(
            f"{name}: has {channels} channel{'s' if channels > 1 else ''}, and sound.channel asks for channel"
            f" {spec.channel}; set sound.channel = 0 for the mean of all."
        )
    if spec.channel:
        samples = samples[:, spec.channel - 1 : spec.channel]
    spans = np.ptp(samples, axis=0)
    if spans.max() < SILENT:
        raise SoundError(f"{name}: is silent; remove it, or look at the microphone and record it again.")
    if dead := [at + 1 for at, span in enumerate(spans) if span < SILENT]:
        alive = next(at + 1 for at, span in enumerate(spans) if span >= SILENT)
        raise SoundError(
            f"{name}: channel {dead[0]} of its {channels} is silent, and the mean would halve the level; set"
            f" sound.channel = {alive}, or mend the microphone."
        )
    flat = _flat(samples)
    if flat >= CLIPPED:
        raise SoundError(
            f"{name}: is clipped: {flat:.0%} of its samples are at their limit; record it again at a lower level."
        )
    return np.ascontiguousarray(samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1))


def _flat(samples: NDArray[np.float32]) -> float:
    """The largest share of a channel's samples that are its largest or its smallest; 0 where it is not loud."""
    low, high = samples.min(axis=0), samples.max(axis=0)
    share = ((samples == low) | (samples == high)).mean(axis=0)
    loud = np.maximum(np.abs(low), np.abs(high)) >= LOUD
    return float(np.where(loud, share, 0.0).max())


def from_samples(samples: NDArray[Any], spec: SoundSpec) -> Image.Image:
    """The picture of samples in memory, as a device has them; silence is a black one.

    Args:
        samples: (N,) float32 or float64 about -1 to 1, or int16, at the spec's rate.
        spec: what to do.

    Raises:
        SoundError: there are none, or they are not finite.
        TensorError: another shape or dtype.
    """
    kind = samples.dtype.newbyteorder("=")
    if samples.ndim != 1 or kind not in (np.float32, np.float64, np.int16):
        raise TensorError(
            f"sound is {samples.shape} {samples.dtype}, expected (N,) float32 or int16, {spec.rate} samples per second."
        )
    if not len(samples):
        raise SoundError(f"{NAMELESS}: holds no samples.")
    if kind == np.int16:
        samples = samples.astype(np.float32) / np.float32(32768)
    if not np.isfinite(samples).all():
        raise SoundError(
            f"{NAMELESS}: holds values that are not finite (NaN or infinity); replace them by numbers."
        )
    return drawn(samples, spec)


def drawn(samples: NDArray[Any], spec: SoundSpec) -> Image.Image:
    """The picture of samples (N,) at the spec's rate."""
    decibels = log_mel(windowed(samples, spec.samples), spec)
    white = 0.0 if spec.level is Level.FULL_SCALE else max(QUIETEST_DB, float(decibels.max()))
    levels = (decibels - (white - spec.range_db)) * (255.0 / spec.range_db)
    pixels = np.rint(np.clip(levels, 0.0, 255.0)).astype(np.uint8)[::-1]
    return Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")


def windowed(samples: NDArray[Any], length: int) -> NDArray[Any]:
    """The loudest `length` samples, or all of them in the middle of silence.

    Where several windows are as loud (within a thousandth), as around a word between pauses, the middle one is taken.
    """
    if len(samples) <= length:
        before = (length - len(samples)) // 2
        return np.pad(samples, (before, length - len(samples) - before))
    energy = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    within = energy[length:] - energy[:-length]
    good = np.flatnonzero(within >= 0.999 * within.max())
    start = int(good[len(good) // 2])
    return samples[start : start + length]


def log_mel(window: NDArray[Any], spec: SoundSpec) -> NDArray[np.float64]:
    """Power in mel bands in decibels below a full-scale sine: (mels, frames) float64, the lowest band first.

    Args:
        window: (spec.samples,).
        spec: what to do.
    """
    starts, taper = framing(spec)
    lines, shares, firsts = _heard(spec)
    half = spec.frame_samples // 2
    padded = np.pad(window, (half, spec.frame_samples))
    frames = np.lib.stride_tricks.sliding_window_view(padded, spec.frame_samples)
    power = np.empty((spec.frames, spec.mels))
    block = max(1, _BLOCK_BYTES // (16 * (spec.spectrum // 2 + 1)))
    for start in range(0, spec.frames, block):
        part = slice(start, start + block)
        spectra = np.fft.rfft(frames[starts[part]] * taper, spec.spectrum)
        squares = np.square(spectra.real)
        squares += np.square(spectra.imag)
        heard = squares.take(lines, axis=1)
        heard *= shares
        np.add.reduceat(heard, firsts, axis=1, out=power[part])
    found: NDArray[np.float64] = 10.0 * np.log10(np.maximum(power.T, FLOOR))
    return found


@functools.lru_cache(maxsize=8)
def framing(spec: SoundSpec) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Where frames start in the window with half a frame of silence before it; and the Hann window, under which the
    power of a full-scale sine is 1 over all lines of a spectrum."""
    middles = (np.arange(spec.frames) + 0.5) * spec.samples / spec.frames
    starts = np.rint(middles - spec.frame_samples / 2 + spec.frame_samples // 2).astype(np.intp)
    taper = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(spec.frame_samples) / spec.frame_samples)
    return np.maximum(starts, 0), taper * (2.0 / math.sqrt(spec.spectrum * np.square(taper).sum()))


@functools.lru_cache(maxsize=8)
def bands(spec: SoundSpec) -> NDArray[np.float64]:
    """(mels, spectrum // 2 + 1) weights: triangles of height 1 between the spec's edges."""
    hertz = np.arange(spec.spectrum // 2 + 1) * (spec.rate / spec.spectrum)
    edges = np.array(spec.edges)[:, None]
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    found: NDArray[np.float64] = np.minimum((hertz - low) / (middle - low), (high - hertz) / (high - middle))
    return np.maximum(found, 0.0, out=found)


@functools.lru_cache(maxsize=8)
def _heard(spec: SoundSpec) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.intp]]:
    """Of one band after the other the lines that it hears and their weights, and where each band's begin.

    Added up so, and not as a product with `bands`, the order of sums is the same on every machine, and no thread of a
    matrix library is waited for, which on a busy device takes a hundred times as long as the sums.
    """
    weights = bands(spec)
    rows, lines = np.nonzero(weights)
    return lines, weights[rows, lines], np.searchsorted(rows, np.arange(spec.mels))


def resampled(samples: NDArray[Any], rate: int, wanted: int) -> NDArray[np.float32]:
    """Samples at another rate: (ceil(N * wanted / rate),) float32; the same ones where it is no other.

    A sinc under a Kaiser window, at the lower of the two rates (Smith, "Digital Audio Resampling",
    https://ccrma.stanford.edu/~jos/resample).
    """
    if rate == wanted:
        return np.asarray(samples, np.float32)
    common = math.gcd(rate, wanted)
    up, down = wanted // common, rate // common
    taps = _sincs(up, down)
    width = taps.shape[1]
    count = -(-len(samples) * up // down)
    padded = np.pad(samples, (width // 2, width // 2 + down)).astype(np.float32)
    if up * (down + width) <= _MOST_WEIGHTS:  # one product gives the next `up` samples
        views = np.lib.stride_tricks.sliding_window_view(padded, down + width - 1)[:-1:down]
        weights = _spread(up, down)
        rows = [views[at : at + _BLOCK // up + 1] @ weights for at in range(0, len(views), _BLOCK // up + 1)]
        return np.concatenate(rows).reshape(-1)[:count]
    single = np.lib.stride_tricks.sliding_window_view(padded, width)
    found = np.empty(count, np.float32)
    for start in range(0, count, _BLOCK):
        places = np.arange(start, min(count, start + _BLOCK), dtype=np.int64) * down
        found[start : start + len(places)] = np.einsum("nk,nk->n", single[places // up], taps[places % up])
    return found


@functools.lru_cache(maxsize=4)
def _sincs(up: int, down: int) -> NDArray[np.float32]:
    """(up, taps) float32: row p weighs the samples around a place that is p / up of a sample on."""
    share = min(1.0, up / down)
    half = math.ceil(_CROSSINGS / share)
    away = np.arange(-half, half + 1)[None] - np.arange(up)[:, None] / up
    window = np.i0(_KAISER * np.sqrt(np.maximum(0.0, 1.0 - np.square(away / half)))) / np.i0(_KAISER)
    taps = _PASSED * share * np.sinc(_PASSED * share * away) * np.where(np.abs(away) <= half, window, 0.0)
    return taps.astype(np.float32)


@functools.lru_cache(maxsize=4)
def _spread(up: int, down: int) -> NDArray[np.float32]:
    """(down + taps - 1, up) float32: column p weighs the samples around the p-th of `up` new ones."""
    taps = _sincs(up, down)
    weights = np.zeros((down + taps.shape[1] - 1, up), np.float32)
    for new in range(up):
        at, phase = divmod(new * down, up)
        weights[at : at + taps.shape[1], new] = taps[phase]
    return weights
