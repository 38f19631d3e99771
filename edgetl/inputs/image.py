"""How an image becomes a tensor: decode, resize, crop, normalise. The only copy.

Training's evaluation, calibration and the device all call this module, so a model meets the same pixels
everywhere. It needs numpy and Pillow alone. What is done to an image, in this order:

1. decode. A big JPEG is decoded at the largest DCT reduction (1/2, 1/4, 1/8) that leaves both sides at least
   as long as the resize needs; EXIF orientation is applied.
2. to RGB, 8 bits: grey is repeated, transparency is laid over white, 16-bit integers are scaled by 255/65535,
   floats by 255 where no value is above 1 (else they count as 0..255), CMYK and palettes are converted.
3. resize and crop in one antialiased resampling (see `Resize`).
4. normalise: (value / 255 - mean) / std, channels first, float32.

The spec and the last step stand in `edgetl.inputs.spec`, which a device loads without Pillow.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from edgetl.errors import ImageError, TensorError
from edgetl.inputs.spec import Interpolation, PreprocessSpec, Resize, normalise

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

__all__ = [
    "MAX_PIXELS",
    "MIN_SIDE",
    "Interpolation",
    "PreprocessSpec",
    "Resize",
    "decode",
    "load_batch",
    "load_pixels",
    "normalise",
    "to_pixels",
    "warm_up",
]

MIN_SIDE = 4
"""Pixels; an image with a shorter side is refused, since nothing can be seen in it."""
MAX_PIXELS = 89_478_485
"""Pixels; a bigger image is refused as a decompression bomb (Pillow's own limit)."""

# The commonest first: later ones load further plugins. A closed list keeps out formats that start programs.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "WEBP", "TIFF")
_JPEG_START = b"\xff\xd8\xff"
_ORIENTATION = 0x0112


def decode(source: Path | bytes, hint: int | None = None, *, name: str | None = None) -> Image.Image:
    """Decode an image upright to 8-bit RGB; of an animation, the first frame.

    Args:
        source: a file or its content.
        hint: shortest side in pixels that is needed; a JPEG may then be decoded at a reduced size whose sides
            are no shorter. None decodes at full size.
        name: what messages call the image; the path, where that is given.

    Raises:
        ImageError: it cannot be read, or is too small or too large; the message names it and the reason.
    """
    name = name or (str(source) if isinstance(source, Path) else "The image")
    content = _read(source, name)
    if not content:
        raise ImageError(f"{name}: the file is empty.")
    try:
        image = _open(content)
        _check_size(image.size, name)
        if hint is not None:
            image.draft(None, (hint, hint))
        image.load()
        return _to_rgb(_upright(image))
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise almost anything on broken bytes.
        raise ImageError(f"{name}: {_reason(error)}") from error


def to_pixels(image: Image.Image | NDArray[np.uint8], spec: PreprocessSpec) -> NDArray[np.uint8]:
    """Resize and crop one image.

    Args:
        image: a Pillow image of any mode, or a uint8 array: (H, W, 3) RGB, (H, W, 4) RGBA, (H, W) or
            (H, W, 1) grey.
        spec: what to do.

    Returns:
        (size, size, 3) uint8, read-only: Pillow's own bytes, not a copy.

    Raises:
        ImageError: the image is too small.
        TensorError: the array has another shape or dtype.
    """
    if isinstance(image, np.ndarray):
        image = _from_array(image)
    _check_size(image.size, "The image")
    return _fit(_to_rgb(_upright(image)), spec)


def load_pixels(source: Path | bytes, spec: PreprocessSpec, *, name: str | None = None) -> NDArray[np.uint8]:
    """Decode, resize and crop one image file (or its content) to (size, size, 3) uint8.

    Raises:
        ImageError: the image cannot be used; the message names it and the reason.
    """
    return _fit(decode(source, max(MIN_SIDE, spec.resized_side), name=name), spec)


def load_batch(
    sources: Sequence[Path | bytes], spec: PreprocessSpec, *, threads: int = 1
) -> NDArray[np.float32]:
    """Load images as a network's input (N, 3, size, size) float32, decoding on `threads` threads.

    Raises:
        ImageError: an image cannot be used; the message names it and the reason.
    """
    pixels = np.empty((len(sources), spec.size, spec.size, 3), dtype=np.uint8)

    def load(index: int) -> None:
        pixels[index] = load_pixels(sources[index], spec)

    if threads == 1 or len(sources) < 2:
        for index in range(len(sources)):
            load(index)
    else:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(load, range(len(sources))))
    return normalise(pixels, spec)


def warm_up() -> None:
    """Load Pillow's decoder of JPEGs, which it puts off until the first image."""
    import_module("PIL.JpegImagePlugin")


# --- decoding ---------------------------------------------------------------------------------------------


def _read(source: Path | bytes, name: str) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        return source.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{name}: there is no such file.") from None
    except OSError as error:
        raise ImageError(f"{name}: cannot be read ({error.strerror}).") from error


def _open(content: bytes) -> ImageFile:
    """Read the header. A JPEG's decoder is asked directly: `Image.open` would load those of other formats first."""
    if not content.startswith(_JPEG_START):
        return Image.open(io.BytesIO(content), formats=_FORMATS)
    from PIL import JpegImagePlugin

    try:
        image = JpegImagePlugin.jpeg_factory(io.BytesIO(content))
        # All in one block: pieces of 64 kB, as Pillow takes, make its decoder stop and start again at each seam.
        image.decodermaxblock = len(content)
        return image
    except (SyntaxError, IndexError, TypeError, struct.error) as error:  # As `Image.open` takes them.
        raise UnidentifiedImageError("cannot identify image file") from error


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if min(size) < MIN_SIDE:
        raise ImageError(f"{name}: is {width}x{height} pixels; at least {MIN_SIDE}x{MIN_SIDE} are needed.")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{name}: is {width}x{height} pixels; more than {MAX_PIXELS / 1e6:.0f} million are refused."
        )


def _reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"more than {MAX_PIXELS / 1e6:.0f} million pixels are refused."
    if isinstance(error, UnidentifiedImageError):
        return "is not an image that can be read, or its start is corrupt."
    text = str(error).strip().rstrip(".") or type(error).__name__
    return f"is truncated ({text})." if "truncated" in text.lower() else f"is corrupt ({text})."


def _upright(image: Image.Image) -> Image.Image:
    if image.getexif().get(_ORIENTATION, 1) == 1:
        return image
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.clip(np.asarray(image), 0, 65535).astype(np.uint32)
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        return _from_float(np.asarray(image, dtype=np.float32))
    if image.mode == "La":  # has no way to RGBA of its own
        image = image.convert("LA")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_float(values: NDArray[np.float32]) -> Image.Image:
    if not np.isfinite(values).all():
        raise ValueError("it holds values that are not finite")
    scale = 255.0 if values.max() <= 1.0 else 1.0
    return Image.fromarray(np.rint(np.clip(values * scale, 0, 255)).astype(np.uint8)).convert("RGB")


def _from_array(image: NDArray[Any]) -> Image.Image:
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise TensorError(
            f"image is {image.shape} {image.dtype}, expected (H, W, 3) RGB, (H, W, 4) or (H, W) uint8."
        )
    return Image.fromarray(image[..., 0] if image.ndim == 3 and channels == 1 else image)


# --- resizing ---------------------------------------------------------------------------------------------


def _filter(interpolation: Interpolation) -> Image.Resampling:
    match interpolation:
        case Interpolation.NEAREST:
            return Image.Resampling.NEAREST
        case Interpolation.BILINEAR:
            return Image.Resampling.BILINEAR
        case Interpolation.BICUBIC:
            return Image.Resampling.BICUBIC
        case Interpolation.LANCZOS:
            return Image.Resampling.LANCZOS
        case _:
            assert_never(interpolation)


def _fit(rgb: Image.Image, spec: PreprocessSpec) -> NDArray[np.uint8]:
    """An upright RGB image as (size, size, 3) uint8."""
    match spec.resize:
        case Resize.CROP:
            resized = _resize(rgb, (spec.size, spec.size), spec, _crop_box(rgb.size, spec))
        case Resize.SQUASH:
            resized = _resize(rgb, (spec.size, spec.size), spec, None)
        case Resize.PAD:
            resized = _pad(rgb, spec)
        case _:
            assert_never(spec.resize)
    return np.asarray(resized, dtype=np.uint8)


def _resize(
    image: Image.Image,
    size: tuple[int, int],
    spec: PreprocessSpec,
    box: tuple[float, float, float, float] | None,
) -> Image.Image:
    if image.size == size and box in (None, (0.0, 0.0, float(size[0]), float(size[1]))):
        return image
    return image.resize(size, _filter(spec.interpolation), box=box)


def _crop_box(size: tuple[int, int], spec: PreprocessSpec) -> tuple[float, float, float, float]:
    """The part of the image, in its own pixels, that a resize followed by a centre crop would keep.

    Resampling from this box gives the pixels of the two steps, up to the rounding between Pillow's two passes,
    and costs nothing for what would be cut off.
    """
    target, shorter = spec.resized_side, min(size)
    box = []
    for side in size:
        resized = int(target * side / shorter)
        start = round((resized - spec.size) / 2.0)
        box.append((start * side / resized, (start + spec.size) * side / resized))
    (left, right), (top, bottom) = box
    return left, top, min(right, float(size[0])), min(bottom, float(size[1]))


def _pad(image: Image.Image, spec: PreprocessSpec) -> Image.Image:
    longer = max(image.size)
    width, height = (max(1, round(side * spec.size / longer)) for side in image.size)
    resized = _resize(image, (width, height), spec, None)
    fill = tuple(min(255, max(0, round(value * 255))) for value in spec.mean)
    canvas = Image.new("RGB", (spec.size, spec.size), fill)
    canvas.paste(resized, ((spec.size - width) // 2, (spec.size - height) // 2))
    return canvas
