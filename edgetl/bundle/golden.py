"""Golden images and logits: how a device proves that it computes what was measured.

The rule: on the golden images, decoded and preprocessed on the device, no logit may differ from the
recorded one by more than `TOLERANCE[precision] * max(1, largest recorded |logit|)`. A picture whose two
best logits lie further apart than twice that keeps its class by this rule. Float arithmetic differs between
machines by the order of summation alone. Sums of integers do not differ at all: ONNX Runtime gives the same
bits for one thread and two, for one image and eight. INT8 is wider all the same: another memory layout
averages in another order, and some logits are recorded with the Q/DQ pairs carried out in float32 (those of
targets that the recording machine is not); then a value at a rounding edge moves by a whole quantization
step. That came to 0.013 to 0.027 of the largest logit (48 images each, three EfficientNet-Lite0 students),
and about twice that is allowed. What must be caught is further off: sums that saturate in 16 bits, where a model
with 8-bit weights meets an x86 CPU without VNNI, gave 0.37.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgetl.bundle.manifest import Precision
from edgetl.errors import BundleIntegrityError, TensorError
from edgetl.files import sha256_bytes
from edgetl.inputs.image import decode, read_numbers
from edgetl.inputs.spec import PreprocessSpec

TOLERANCE: Mapping[Precision, float] = {
    Precision.FP32: 1e-3,
    Precision.FP16: 2e-2,
    Precision.BF16: 5e-2,
    Precision.FP8: 1e-1,
    Precision.INT8: 5e-2,
}
"""Largest allowed logit difference, relative to the largest recorded logit."""

_LARGEST = float(np.finfo(np.float32).max)
_KEEP_BYTES = 48 * 1024
_JPEG_QUALITY = 92


@dataclass(frozen=True, kw_only=True)
class GoldenSet:
    """What `pack` puts into `golden/`.

    Attributes:
        images: encoded pictures (JPEG or PNG).
        pixels: what preprocessing made of them, (images, size, size, 3) uint8.
        logits: variant name to (images, classes) float32, as the runtime gave them for these pixels.
    """

    images: tuple[bytes, ...]
    pixels: NDArray[np.uint8]
    logits: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class GoldenCheck:
    """Outcome of a comparison with the golden logits.

    `max_difference` and `allowed_difference` are in logits; `top1_agreement` is a share in 0..1;
    `pixels_identical` says whether preprocessing gave bit for bit the recorded pixels (image decoders of
    other versions may differ slightly).
    """

    variant: str
    precision: Precision
    images: int
    max_difference: float
    allowed_difference: float
    top1_agreement: float
    pixels_identical: bool

    @property
    def passed(self) -> bool:
        """Whether every logit is within the tolerance; one that is not finite never is."""
        return self.max_difference <= self.allowed_difference

    @property
    def reason(self) -> str:
        """The outcome in one sentence."""
        figures = (
            f"on {self.images} golden images the largest logit difference is {self.max_difference:.3g}, "
            f"allowed is {self.allowed_difference:.3g}"
        )
        if self.passed:
            return f"Variant {self.variant} computes what was recorded: {figures}."
        cause = (
            "the pixels are identical, so the inference engine computes something else"
            if self.pixels_identical
            else "preprocessing gives other pixels here, so look at the version of Pillow first"
        )
        return f"Variant {self.variant} does not compute what was recorded: {figures}; {cause}."


def compare(
    *,
    variant: str,
    precision: Precision,
    recorded: NDArray[np.float32],
    computed: NDArray[np.float32],
    pixels_identical: bool,
) -> GoldenCheck:
    """Compare computed with recorded logits, both (N, C) float32, by the rule of this module.

    Raises:
        TensorError: the shapes differ.
    """
    if recorded.shape != computed.shape:
        raise TensorError(
            f"logits of variant {variant}: got shape {computed.shape}, expected {recorded.shape}."
        )
    scale = max(1.0, float(np.abs(recorded).max()))
    # NaN and infinity become the largest float32, so that they never pass and still travel as JSON.
    difference = np.nan_to_num(np.abs(recorded - computed), nan=_LARGEST, posinf=_LARGEST)
    return GoldenCheck(
        variant=variant,
        precision=precision,
        images=len(recorded),
        max_difference=float(difference.max()),
        allowed_difference=TOLERANCE[precision] * scale,
        top1_agreement=float((recorded.argmax(1) == computed.argmax(1)).mean()),
        pixels_identical=pixels_identical,
    )


def encode_image(source: Path, spec: PreprocessSpec) -> bytes:
    """A picture as it goes into the bundle: the file as it is when small, else a smaller JPEG of it.

    The smaller one keeps twice the pixels a side that the network needs, so that resizing is proven too. Of a picture
    of more than 8 bits it keeps the numbers, every so many of them, so that the window is proven.

    Raises:
        ImageError: it cannot be decoded.
    """
    content = source.read_bytes()
    picture = decode(content, None, name=str(source), spec=spec)
    if len(content) <= _KEEP_BYTES:
        return content
    side = 2 * spec.size
    if (numbers := read_numbers(content, name=str(source))) is not None and numbers.ndim == 2:
        step = max(1, min(numbers.shape) // side)
        return _encoded(
            Image.fromarray(_storable(numbers[::step, ::step])), "TIFF", compression="tiff_adobe_deflate"
        )
    if (shorter := min(picture.size)) > side:
        width, height = (max(1, round(length * side / shorter)) for length in picture.size)
        picture = picture.resize((width, height))
    return _encoded(picture, "JPEG", quality=_JPEG_QUALITY)


def _storable(numbers: NDArray[Any]) -> NDArray[Any]:
    """Numbers in a type that TIFF has a form for, in this machine's byte order."""
    kind = np.float32 if numbers.dtype.kind == "f" else np.uint16 if numbers.dtype.itemsize == 2 else np.int32
    return np.ascontiguousarray(numbers.astype(kind))


def _encoded(picture: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def pixels_sha256(pixels: NDArray[np.uint8]) -> str:
    """SHA-256 of preprocessed pixels, (N, size, size, 3) uint8."""
    return sha256_bytes(np.ascontiguousarray(pixels).tobytes())


def encode_logits(logits: NDArray[Any]) -> bytes:
    """Logits (N, C) as the bytes of a little-endian float32 `.npy`."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(logits, dtype="<f4"), allow_pickle=False)
    return buffer.getvalue()


def decode_logits(content: bytes, shape: Sequence[int], where: str) -> NDArray[np.float32]:
    """Read logits of the given shape; `where` names them in errors.

    Raises:
        BundleIntegrityError: it is not a float32 `.npy` of that shape with finite values.
    """
    try:
        logits = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise BundleIntegrityError(f"{where} is not a .npy array: {error}.") from error
    if logits.dtype != np.float32 or logits.shape != tuple(shape) or not np.isfinite(logits).all():
        raise BundleIntegrityError(
            f"{where} is {logits.dtype} {logits.shape}, expected finite float32 {tuple(shape)}."
        )
    return np.asarray(logits, dtype=np.float32)
