"""Numbers of more than 8 bits: how much of their range an image set uses, and the window that suits the whole of it.

Thermal frames, X-rays, 10- and 12-bit cameras fill a small part of 16 bits; scaled by the whole range they keep a few
grey levels. So the set is looked at once, never a single image: the window spans all but the darkest and brightest
thousandth of the training images' numbers, and a little more. An image counts by at most 65,536 numbers, evenly taken;
images stream through counts of fixed size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgetl.data.index import DataIndex, Sample
from edgetl.data.parallel import in_threads
from edgetl.data.sources import SPLITS
from edgetl.data.walk import name_below
from edgetl.errors import DataError
from edgetl.inputs.image import read_header, read_numbers
from edgetl.inputs.spec import is_window
from edgetl.progress import SILENT, Progress

Window = tuple[float, float]

TAIL = 0.001
"""The share of the numbers at either end that a proposed window leaves out."""
MARGIN = 0.05
"""A proposed window is wider by this share of its width at either end, for images that are yet to come."""
SMALL = 0.25
"""A set that needs less than this share of its window (of 16 bits, where there is none) is said to take another."""
OUTSIDE = 0.01
"""The share of a split's numbers outside the window from which the audit says so."""

_PER_IMAGE = 1 << 16
_BINS = 1 << 16
_CHUNK = 8
_PNG, _PNG_DEPTH, _HEAD = b"\x89PNG", 24, 25
_EIGHT_BITS = (b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF")


@dataclass(frozen=True, kw_only=True)
class Depth:
    """What a look at the numbers of an image set showed.

    Attributes:
        images: images of the set.
        deep: those of more than 8 bits per channel; 0 where there are none, and then the rest says nothing.
        floats: those of floating-point numbers.
        reduced: files, relative to the set, of 16 bits per channel of which only 8 can be read (PPM, CMYK).
        pages: files of which a further page is not looked at.
        least: the smallest number of the training images, in the files' units.
        largest: the largest.
        proposed: the window that suits the training images.
        window: the window in force; None where none is set.
        outside: by split, the share of its numbers outside of `window`, or of `proposed` where none is set.
    """

    images: int
    deep: int = 0
    floats: int = 0
    reduced: tuple[str, ...] = ()
    pages: int = 0
    least: float = 0.0
    largest: float = 0.0
    proposed: Window | None = None
    window: Window | None = None
    outside: dict[str, float] = field(default_factory=dict)

    @property
    def used(self) -> float:
        """The share of the window in force, or of 16 bits, that the proposed one spans."""
        low, high = self.window or (0.0, 65535.0)
        return (self.proposed[1] - self.proposed[0]) / (high - low) if self.proposed else 1.0

    def with_proposed(self) -> Depth:
        """The same with the proposed window in force."""
        return self if self.proposed is None else replace(self, window=self.proposed)

    @property
    def refusal(self) -> str:
        """Why images of `reduced` cannot be used with a window."""
        return (
            f"{len(self.reduced)} images hold 16 bits per channel in a form of which only 8 can be read, which no "
            f"window suits (first {self.reduced[0]}); save them as RGB in PNG or TIFF, or unset preprocess.window."
        )

    def problems(self) -> tuple[str, ...]:
        """One sentence for each kind of problem, with what to do; empty where all is well."""
        if not self.deep:
            unneeded = self.window is not None and not self.reduced
            found = [
                (unneeded, "preprocess.window changes nothing: no image has more than 8 bits per channel.")
            ]
        else:
            setting = f"set preprocess.window = {in_toml(self.proposed)}" if self.proposed else ""
            levels = max(1, round(256 * self.used))
            reach = f"numbers from {self.least:g} to {self.largest:g}"
            found = [
                (
                    bool(self.proposed and not self.window and self.floats),
                    f"{self.floats} images hold floats ({reach}), which cannot be read without a window; {setting}.",
                ),
                (
                    bool(self.proposed and not (self.floats and not self.window) and self.used < SMALL),
                    f"{self.deep} images of more than 8 bits use {self.used:.1%} of "
                    f"{'the window' if self.window else '16 bits'} ({reach}), which leaves about {levels} of 256 grey "
                    f"levels; {setting}.",
                ),
                (
                    not self.proposed,
                    f"All numbers of the {self.deep} training images of more than 8 bits are {self.least:g}: nothing "
                    "can be seen in them.",
                ),
                *(
                    (
                        share > OUTSIDE,
                        f"{share:.1%} of the numbers of {split} lie outside the window "
                        f"{in_toml(self.window or self.proposed)} and are clipped; look whether its images were taken "
                        "with other settings.",
                    )
                    for split, share in self.outside.items()
                ),
                (
                    self.deep < self.images,
                    f"{self.deep} of {self.images} images have more than 8 bits per channel, the others 8: an 8-bit "
                    "image is taken as it is, so its 0 and 255 must mean what the ends of the window mean.",
                ),
            ]
        if self.window and self.reduced:
            found.append((True, self.refusal))
        found.append(
            (self.pages > 0, f"{self.pages} files hold several pages, of which only the first is looked at.")
        )
        return tuple(sentence for holds, sentence in found if holds)


def in_toml(window: Window | None) -> str:
    """A window as a recipe has it."""
    return "" if window is None else f"[{', '.join(repr(int(v) if v == int(v) else v) for v in window)}]"


def look(index: DataIndex, window: Window | None = None, *, progress: Progress = SILENT) -> Depth:
    """Look at the numbers of a set's images.

    Args:
        index: the images.
        window: the window in force.
        progress: shows the images.

    Raises:
        ImageError: an image cannot be read any more, or holds numbers that are not finite.
    """
    paths = [sample.path for sample in index.samples]
    kinds = [
        kind
        for part in in_threads(_kind, paths, description="Looking at headers", progress=progress)
        for kind in part
    ]
    found = list(zip(index.samples, kinds, strict=True))
    deep = [sample for sample, kind in found if kind.deep]
    seen = Depth(
        images=len(kinds),
        deep=len(deep),
        floats=sum(kind.floats for kind in kinds),
        reduced=tuple(name_below(sample.path, index.root) for sample, kind in found if kind.reduced),
        pages=sum(kind.pages for kind in kinds),
        window=window,
    )
    train = [sample for sample in deep if sample.split == "train"]
    if not train:
        return seen
    low, high, least, largest, whole = _span(train, progress)
    proposed = _widened(low, high, whole=whole)
    used = window or proposed
    outside: dict[str, float] = {}
    for split in SPLITS:
        part = [sample for sample in deep if sample.split == split]
        if used is not None and part:
            outside[split] = _outside(part, used, progress)
    return replace(seen, least=least, largest=largest, proposed=proposed, outside=outside)


def check(index: DataIndex, window: Window | None, *, progress: Progress = SILENT) -> None:
    """Before training: warn of what `Depth.problems` says.

    Raises:
        DataError: images hold floats, and there is no window; or there is one, and images of which only 8 bits can be
            read.
        ImageError: as `look`.
    """
    seen = look(index, window, progress=progress)
    first, *others = seen.problems() or ("",)
    if seen.floats and window is None:
        raise DataError(first)
    if seen.reduced and window is not None:
        raise DataError(seen.refusal)
    for problem in (first, *others):
        if problem:
            progress.warning(problem)


class _Kind(NamedTuple):
    """Whether an image has more than 8 bits, holds floats, has bits that cannot be read, and has further pages."""

    deep: bool = False
    floats: bool = False
    reduced: bool = False
    pages: bool = False


def _kind(path: Path) -> _Kind:
    """Its first bytes may say it all."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        head = b""
    if head.startswith(_EIGHT_BITS) or (head.startswith(_PNG) and head[_PNG_DEPTH:] <= b"\x08"):
        return _Kind()
    header = read_header(path)
    return _Kind(header.deep, header.mode == "F", header.reduced, header.pages)


def _span(samples: Sequence[Sample], progress: Progress) -> tuple[float, float, float, float, bool]:
    """The numbers with `TAIL` of all below and above them; the smallest, the largest; whether all are uint16."""
    whole, coarse = np.zeros(_BINS, np.int64), np.zeros(_BINS, np.int64)
    least, largest = math.inf, -math.inf
    for values in _stream(samples, lambda values: values, progress):
        least, largest = min(least, float(values.min())), max(largest, float(values.max()))
        if values.dtype == np.uint16:
            whole += np.bincount(values, minlength=_BINS)
        else:
            coarse += np.bincount(_keys(values), minlength=_BINS)
    if not coarse.any():
        low, high = _tails(whole)
        return float(low), float(high), least, largest, True
    # Floats of any size: first their sign, exponent and the start of their fraction, then evenly between these ends.
    levels = np.arange(_BINS, dtype=np.float32)
    coarse += np.bincount(_keys(levels), weights=whole, minlength=_BINS).astype(np.int64)
    first, last = _tails(coarse)
    start, stop = max(least, _from_key(first)), min(largest, _from_key(last + 1))
    if not start < stop:
        return start, start, least, largest, False
    fine = np.zeros(_BINS + 2, np.int64)
    step = (stop - start) / _BINS
    for values in _stream(samples, lambda values: values, progress):
        bins = np.clip(np.floor((values.astype(np.float64) - start) / step) + 1, 0, _BINS + 1)
        fine += np.bincount(bins.astype(np.int64), minlength=_BINS + 2)
    low, high = _tails(fine)
    return (
        start + step * max(0, low - 1),
        start + step * min(_BINS, high),
        least,
        largest,
        False,
    )


def _tails(counts: NDArray[np.int64]) -> tuple[int, int]:
    """The positions below and above which at most `TAIL` of all that is counted lies."""
    sums = np.cumsum(counts)
    leave = math.floor(TAIL * int(sums[-1]))
    return int(np.searchsorted(sums, leave, side="right")), int(np.searchsorted(sums, sums[-1] - leave))


def _keys(values: NDArray[Any]) -> NDArray[np.int64]:
    """The upper 16 bits of float32, made so that they are ordered as the numbers are."""
    bits = values.astype(np.float32).view(np.uint32)
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return (ordered >> 16).astype(np.int64)


def _from_key(key: int) -> float:
    """The smallest number of a key."""
    ordered = np.uint32(min(key, _BINS - 1) << 16)
    bits = ordered & np.uint32((1 << 31) - 1) if ordered >> 31 else ~ordered
    value = float(np.array(bits, np.uint32).view(np.float32))
    return value if math.isfinite(value) else math.copysign(float(np.finfo(np.float32).max), value)


def _widened(low: float, high: float, *, whole: bool) -> Window | None:
    """A window around (low, high), of round numbers; None where there is nothing between them."""
    if not is_window((low, high)):
        return None
    margin = MARGIN * (high - low)
    # Three digits of the width are enough, and whole numbers where the files hold such.
    step = 10.0 ** (math.floor(math.log10(high - low)) - 2)
    step = max(1.0, step) if whole else step
    first, last = math.floor((low - margin) / step), math.ceil((high + margin) / step)
    digits = max(0, -math.floor(math.log10(step)))
    start, stop = round(first * step, digits), round(last * step, digits)
    return (max(0.0, start), min(65535.0, stop)) if whole else (start, stop)


def _outside(samples: Sequence[Sample], window: Window, progress: Progress) -> float:
    """The share of the images' numbers outside of a window."""
    low, high = window

    def count(values: NDArray[Any]) -> NDArray[Any]:
        return np.array([np.count_nonzero((values < low) | (values > high)), values.size])

    beyond, numbers = sum(_stream(samples, count, progress), np.zeros(2, np.int64))
    return float(beyond / max(1, numbers))


def _stream(
    samples: Sequence[Sample], work: Callable[[NDArray[Any]], NDArray[Any]], progress: Progress
) -> Iterator[NDArray[Any]]:
    """What `work` makes of each image's numbers, evenly taken, one row."""

    def read(sample: Sample) -> NDArray[Any]:
        values = read_numbers(sample.path)
        flat = np.zeros(1, np.uint16) if values is None else values.reshape(-1)
        # An odd step meets every column of an image whose width is a power of two.
        flat = flat[:: (flat.size // _PER_IMAGE) | 1] if flat.size > _PER_IMAGE else flat
        return work(flat.astype(flat.dtype.newbyteorder("=")))

    for results in in_threads(
        read, samples, description="Looking at numbers", progress=progress, chunk=_CHUNK
    ):
        yield from results
