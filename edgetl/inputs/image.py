"""How an image becomes a tensor: decode, window, resize, crop, normalise. The only copy.

Training's evaluation, calibration and the device all call this module, so a model meets the same pixels
everywhere. It needs numpy and Pillow alone. What is done to an image, in this order:

1. decode. A big JPEG is decoded at the largest DCT reduction (1/2, 1/4, 1/8) that leaves both sides at least
   as long as the spec's `decoding` asks (`PreprocessSpec.decoded_side`). Metadata is taken off first and read for the
   orientation alone, which is applied (`edgetl.inputs.metadata`); so metadata that is broken harms no pixel. Of an
   animation, a TIFF of several pages and a picture of several (MPO), the first is taken.
2. to RGB, 8 bits, by what kind of picture it is, and never by what values one image happens to hold:
   - 1 bit, grey (`1`, `L`): black is 0 and white is 255; repeated over the channels.
   - palette, CMYK (and YCCK), YCbCr, LAB, HSV: converted to RGB, without colour profiles.
   - transparency (`LA`, `La`, `PA`, `RGBA`, `RGBa`, a palette's or a PNG's tRNS): laid over white.
   - numbers of more than 8 bits (`I;16` in either byte order, 12 bits in TIFF, signed 16 and 32 bits `I`, floats
     `F`, 16 bits per channel in colour): the spec's window (low, high) becomes 0..255, rounded and clipped; all
     channels alike, alpha by its own range.
   - the same without a window: grey integers by 255/65535 (so 0..65535 is the window), colour by its upper 8
     bits, floats refused, or as `PreprocessSpec.guess_floats` says.
   Refused: floats that are not finite; TIFF with 16-bit colour in planes, and what Pillow has no mode for
   (64-bit floats, float colour, more channels); under a window also 16-bit colour whose numbers are not kept
   (CMYK, premultiplied alpha, PPM).
3. resize and crop in one antialiased resampling (see `Resize`).
4. normalise: (value / 255 - mean) / std, channels first, float32.

The spec and the last step stand in `edgetl.inputs.spec`, which a device loads without Pillow.
"""

from __future__ import annotations

import functools
import io
import stat
import struct
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, assert_never

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from edgetl.errors import ImageError, TensorError
from edgetl.inputs import metadata
from edgetl.inputs.frame import Frame, frame_of
from edgetl.inputs.spec import Decoding, Interpolation, PreprocessSpec, Resize, normalise
from edgetl.records.frozen import dataclass

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

__all__ = [
    "MAX_BYTES",
    "MAX_PIXELS",
    "MIN_SIDE",
    "NAMELESS",
    "Decoding",
    "Header",
    "Interpolation",
    "PreprocessSpec",
    "Resize",
    "decode",
    "load_batch",
    "load_framed",
    "load_pixels",
    "normalise",
    "read_content",
    "read_header",
    "read_numbers",
    "to_framed",
    "to_pixels",
    "to_rgb",
    "warm_up",
]

MIN_SIDE = 4
"""Pixels; an image with a shorter side is refused, since nothing can be seen in it."""
MAX_PIXELS = 89_478_485
"""Pixels; a bigger image is refused as a decompression bomb (Pillow's own limit)."""
MAX_BYTES = 1 << 30
"""Bytes; a longer file is refused: the pixels that are taken need less."""

NAMELESS = "The image"
"""What messages call an image that came without a name."""

_Plugin = tuple[str, str]
# A closed list keeps out formats that start programs; asked directly, a plugin loads none of the others.
_PLUGINS: tuple[tuple[tuple[bytes, ...], _Plugin], ...] = (
    ((metadata.JPEG,), ("JpegImagePlugin", "JpegImageFile")),
    ((metadata.PNG,), ("PngImagePlugin", "PngImageFile")),
    ((b"BM",), ("BmpImagePlugin", "BmpImageFile")),
    ((b"GIF87a", b"GIF89a"), ("GifImagePlugin", "GifImageFile")),
    (tuple(b"P%c" % letter for letter in b"123456fy"), ("PpmImagePlugin", "PpmImageFile")),
    ((b"RIFF",), ("WebPImagePlugin", "WebPImageFile")),
    (metadata.TIFF, ("TiffImagePlugin", "TiffImageFile")),
)
_START = max(len(start) for starts, _ in _PLUGINS for start in starts)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MOST_CHANNELS = 6
"""Of a TIFF; Pillow logs an error at more."""
_WHOLE = (0.0, 65535.0)
"""The window of grey integers where the spec names none."""
_BLOCK = 1 << 18
"""Numbers that are scaled at a time: the doubles that this takes stay small."""

# Pillow keeps the upper byte of 16-bit colour. Given the mode of swapped bytes, it keeps the lower one.
_NATIVE_SWAPPED = "B" if sys.byteorder == "little" else "L"
_LOWER = {
    f"{channels};16{order}": f"{channels};16{other}"
    for channels in ("RGB", "RGBX", "RGBA")
    for order, other in (("B", "L"), ("L", "B"), ("N", _NATIVE_SWAPPED))
}
_GREY_ALPHA = "LA;16B"
_KEPT = {*_LOWER, _GREY_ALPHA}
"""Of 16-bit colour, what can be read in full."""
# libtiff gives numbers in the machine's order; Pillow takes these for the file's.
_SWAPPED_BY_LIBTIFF = (
    {"I;16BS": "I;16S", "I;32BS": "I;32S", "F;32BF": "F;32F"} if sys.byteorder == "little" else {}
)


_LAST_WITHOUT_QUARTER_TURN = 4
"""EXIF's orientations 5 to 8 swap width and height."""


class _Refused(ValueError):
    """Why an image is not taken; the sentence goes on after its name."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What an image file says of itself: width and height in pixels as stored, Pillow's mode, whether its channels have
    more than 8 bits that can be read, whether they have more of which only 8 can be read, so that a window refuses it,
    and whether it holds further pages (TIFF), which are not looked at.
    """

    size: tuple[int, int]
    mode: str
    deep: bool
    reduced: bool
    pages: bool


def decode(
    source: Path | bytes,
    hint: int | None = None,
    *,
    name: str | None = None,
    spec: PreprocessSpec | None = None,
) -> Image.Image:
    """Decode an image upright to 8-bit RGB; of an animation, the first frame.

    Args:
        source: a file or its content.
        hint: shortest side in pixels that is needed; a JPEG may then be decoded at a reduced size whose sides
            are no shorter. None decodes at full size.
        name: what messages call the image; the path, where that is given.
        spec: says what becomes of more than 8 bits (`window`, `guess_floats`), or that it is a sound, which becomes a
            picture (`sound`); None is a spec of images without a window.

    Raises:
        ImageError: it cannot be read, or is too small or too large; the message names it and the reason.
    """
    return _decoded(source, hint, name, spec)[0]


def _decoded(
    source: Path | bytes, hint: int | None, name: str | None, spec: PreprocessSpec | None
) -> tuple[Image.Image, tuple[int, int]]:
    """As `decode`, and the upright picture's width and height in pixels, whatever it was decoded at."""
    if spec is not None and spec.sound is not None:
        from edgetl.inputs.sound import to_picture

        drawn = to_picture(source, spec.sound, name=name or "")
        return drawn, drawn.size
    name = name or (str(source) if isinstance(source, Path) else NAMELESS)
    content = _read(source, name)
    window, guess = (None, True) if spec is None else (spec.window, spec.guess_floats)
    try:
        pixels, turn = metadata.without_metadata(content)
        image, raw = _open(pixels)
        _check_size(image.size, name)
        size = _upright(image.size, turn)
        if window is not None and _is_wide(image, raw):
            return _turned(_windowed_colour(_wide(pixels, image, raw), window), turn), size
        if hint is not None:
            image.draft(None, (hint, hint))
        image.load()
        if image.mode in _NUMBERS:
            return _turned(_grey(_numbers(image, raw), window, guess), turn), size
        return _turned(_to_rgb(image), turn), size
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise almost anything on broken bytes.
        raise ImageError(f"{name}: {_reason(error)}") from error


def read_header(source: Path | bytes, *, name: str | None = None) -> Header:
    """What an image file says of itself, without decoding it.

    Raises:
        ImageError: it cannot be read; the message names it and the reason.
    """
    name = name or (str(source) if isinstance(source, Path) else NAMELESS)
    content = _read(source, name)
    try:
        image, raw = _open(metadata.without_metadata(content)[0])
    except Exception as error:
        raise ImageError(f"{name}: {_reason(error)}") from error
    deep = image.mode in _NUMBERS or raw in _KEPT
    return Header(
        size=image.size,
        mode=image.mode,
        deep=deep,
        reduced=_is_wide(image, raw) and not deep,
        pages=metadata.has_pages(content),
    )


def upright_size(source: Path | bytes, *, name: str | None = None) -> tuple[int, int]:
    """Width and height in pixels as `decode` gives them, without decoding.

    Raises:
        ImageError: it cannot be read; the message names it and the reason.
    """
    name = name or (str(source) if isinstance(source, Path) else NAMELESS)
    content = _read(source, name)
    try:
        pixels, turn = metadata.without_metadata(content)
        return _upright(_open(pixels)[0].size, turn)
    except Exception as error:
        raise ImageError(f"{name}: {_reason(error)}") from error


def _upright(size: tuple[int, int], turn: int) -> tuple[int, int]:
    return (size[1], size[0]) if turn > _LAST_WITHOUT_QUARTER_TURN else size


def read_numbers(source: Path | bytes, *, name: str | None = None) -> NDArray[Any] | None:
    """The numbers of an image of more than 8 bits, as its file holds them; None for one of which 8 bits are read.

    Returns:
        (H, W) uint16, int32, uint32 or float32, or (H, W, 3) uint16; not turned upright, without alpha.

    Raises:
        ImageError: it cannot be read, or its numbers are not finite; the message names it and the reason.
    """
    name = name or (str(source) if isinstance(source, Path) else NAMELESS)
    content = _read(source, name)
    try:
        pixels, _ = metadata.without_metadata(content)
        image, raw = _open(pixels)
        _check_size(image.size, name)
        if raw in _KEPT:
            return _wide(pixels, image, raw)[..., :3]
        if image.mode not in _NUMBERS:
            return None
        image.load()
        return _finite(_numbers(image, raw))
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(f"{name}: {_reason(error)}") from error


def to_pixels(image: Image.Image | NDArray[Any], spec: PreprocessSpec) -> NDArray[np.uint8]:
    """Resize and crop one image.

    Args:
        image: a Pillow image of any mode, or an array: (H, W, 3) RGB, (H, W, 4) RGBA, (H, W) or (H, W, 1) grey, of
            uint8 or uint16, and but for RGBA of float32. More than 8 bits become 8 as in files: by the spec's window;
            floats need one. For a spec of sounds, samples (N,), see `edgetl.inputs.sound.from_samples`.
        spec: what to do.

    Returns:
        (size, size, 3) uint8, read-only: Pillow's own bytes, not a copy.

    Raises:
        ImageError: the image is too small, or holds numbers that cannot be taken.
        TensorError: the array has another shape or dtype.
    """
    return to_framed(image, spec)[0]


def to_framed(image: Image.Image | NDArray[Any], spec: PreprocessSpec) -> tuple[NDArray[np.uint8], Frame]:
    """As `to_pixels`, and where these lie in the upright picture."""
    rgb = to_rgb(image, spec)
    return _fit(rgb, spec), frame_of(rgb.size, spec)


def to_rgb(image: Image.Image | NDArray[Any], spec: PreprocessSpec) -> Image.Image:
    """A Pillow image or array, as `to_pixels` takes them, upright in 8-bit RGB; raises as it."""
    if spec.sound is not None:
        from edgetl.inputs.sound import from_samples

        if not isinstance(image, np.ndarray):
            raise TensorError(
                f"sound is a picture of {image.width}x{image.height} pixels, expected samples (N,)."
            )

        return from_samples(image, spec.sound)
    try:
        if isinstance(image, np.ndarray):
            return _from_array(image, spec)
        _check_size(image.size, NAMELESS)
        return _from_pillow(image, spec)
    except _Refused as refused:
        raise ImageError(f"The image: {refused}") from None


def load_pixels(source: Path | bytes, spec: PreprocessSpec, *, name: str | None = None) -> NDArray[np.uint8]:
    """Decode, resize and crop one image file (or its content) to (size, size, 3) uint8.

    Raises:
        ImageError: the image cannot be used; the message names it and the reason.
    """
    return load_framed(source, spec, name=name)[0]


def load_framed(
    source: Path | bytes, spec: PreprocessSpec, *, name: str | None = None
) -> tuple[NDArray[np.uint8], Frame]:
    """As `load_pixels`, and where these lie in the upright picture."""
    rgb, size = _decoded(source, max(MIN_SIDE, spec.decoded_side), name, spec)
    return _fit(rgb, spec), frame_of(size, spec)


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
        content = source
    else:
        try:
            about = source.stat()
            if not stat.S_ISREG(about.st_mode):
                with source.open("rb") as file:
                    content = read_content(file, name)
            elif about.st_size <= MAX_BYTES:
                content = source.read_bytes()
            else:
                raise _too_long(name)
        except FileNotFoundError:
            raise ImageError(f"{name}: there is no such file.") from None
        except OSError as error:
            raise ImageError(f"{name}: cannot be read ({error.strerror}).") from error
    if not content:
        raise ImageError(f"{name}: the file is empty.")
    return content


def read_content(file: BinaryIO, name: str) -> bytes:
    """All bytes of an encoded image from a pipe, or the start alone of what is none: devices and pipes may never end.

    Raises:
        ImageError: there are too many.
    """
    content = bytearray(file.read(_START))
    if _plugin(bytes(content)) is not None:
        while piece := file.read(1 << 20):
            content += piece
            if len(content) > MAX_BYTES:
                raise _too_long(name)
    return bytes(content)


def _too_long(name: str) -> ImageError:
    return ImageError(f"{name}: more than {MAX_BYTES >> 30} GiB are refused.")


def _plugin(content: bytes) -> _Plugin | None:
    return next((plugin for starts, plugin in _PLUGINS if content.startswith(starts)), None)


def _open(content: bytes) -> tuple[ImageFile, str]:
    """Read the header; the image, and how its numbers are stored, in Pillow's words.

    The plugin is asked directly: `Image.open` would load those of other formats first, and warns of large images.
    """
    plugin = _plugin(content)
    if plugin is None:
        raise UnidentifiedImageError
    if content.startswith(b"GIF8"):
        _check_gif(content)
    if content.startswith(metadata.TIFF) and (samples := metadata.samples(content)) > _MOST_CHANNELS:
        raise _Refused(f"has {samples} channels; at most {_MOST_CHANNELS} can be read.")
    try:
        image: ImageFile = getattr(import_module(f"PIL.{plugin[0]}"), plugin[1])(io.BytesIO(content))
    except (SyntaxError, IndexError, TypeError, struct.error) as error:  # As `Image.open` takes them.
        raise UnidentifiedImageError(str(error)) from error
    if plugin[0] == "JpegImagePlugin":
        # All in one block: pieces of 64 kB, as Pillow takes, make its decoder stop and start again at each seam.
        image.decodermaxblock = len(content)
        return image, ""
    if not image.tile:
        return image, ""
    if plugin[0] == "TiffImagePlugin":
        _check_tiff(image)
        image.tile = [
            tile._replace(
                args=_with_raw(tile.args, _SWAPPED_BY_LIBTIFF.get(_raw(tile.args), _raw(tile.args)))
            )
            if tile.codec_name == "libtiff"
            else tile
            for tile in image.tile
        ]
    args: Any = image.tile[0].args
    if (
        isinstance(args, tuple)
        and plugin[0] == "PpmImagePlugin"
        and image.mode == "RGB"
        and args[1:] > (255,)
    ):
        return image, "PPM;16"
    return image, _raw(args)


def _raw(args: Any) -> str:
    """How a tile's numbers are stored, in Pillow's words."""
    return str(args[0] if isinstance(args, tuple) and args else args)


def _check_gif(content: bytes) -> None:
    """Refuse a first frame that is too large, even where the file's own size is not: Pillow would warn and go on."""
    at = 13 + (3 << (content[10:11] or b"\0")[0] % 8 + 1) * ((content[10:11] or b"\0")[0] >> 7)
    while content[at : at + 1] == b"!":  # extensions, each a row of blocks that ends with an empty one
        at += 2
        while length := (content[at : at + 1] or b"\0")[0]:
            at += 1 + length
        at += 1
    left, top, width, height = (
        int.from_bytes(content[at + start : at + start + 2], "little") for start in (1, 3, 5, 7)
    )
    if (left + width) * (top + height) > MAX_PIXELS:
        raise _Refused(f"more than {MAX_PIXELS / 1e6:.0f} million pixels are refused.")


def _check_tiff(image: Any) -> None:
    bits = image.tag_v2.get(258, (1,))
    if image.tag_v2.get(284, 1) == 2 and max(bits if isinstance(bits, tuple) else (bits,)) > 8:
        raise _Refused(
            "holds each channel of more than 8 bits in a plane of its own; save it with interleaved channels."
        )


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if min(size) < MIN_SIDE:
        raise ImageError(f"{name}: is {width}x{height} pixels; at least {MIN_SIDE}x{MIN_SIDE} are needed.")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{name}: is {width}x{height} pixels; more than {MAX_PIXELS / 1e6:.0f} million are refused."
        )


def _reason(error: Exception) -> str:
    if isinstance(error, _Refused):
        return str(error)
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"more than {MAX_PIXELS / 1e6:.0f} million pixels are refused."
    if isinstance(error, UnidentifiedImageError):
        if str(error) == "unknown pixel mode":
            return (
                "holds numbers of a kind that cannot be read (64 bits, float colour, or the like); save it as integers "
                "of 8 or 16 bits or as grey floats of 32."
            )
        return "is not an image that can be read, or its start is corrupt."
    text = str(error).strip().rstrip(".") or type(error).__name__
    return f"is truncated ({text})." if "truncated" in text.lower() else f"is corrupt ({text})."


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    return image if orientation == metadata.UPRIGHT else image.transpose(_TURNS[orientation])


# --- to 8-bit RGB -----------------------------------------------------------------------------------------

_NUMBERS = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
"""Pillow's modes of one number a pixel that has more than 8 bits."""


def _to_rgb(image: Image.Image) -> Image.Image:
    """A loaded image of 8 bits per channel."""
    if image.mode == "La":  # has no way to RGBA of its own
        image = image.convert("LA")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_pillow(image: Image.Image, spec: PreprocessSpec) -> Image.Image:
    """A user's Pillow image upright, in 8-bit RGB."""
    wide = image.mode not in _NUMBERS and any(";16" in str(tile.args) for tile in getattr(image, "tile", ()))
    if wide and spec.window is not None:
        raise _Refused("Pillow reduces its 16 bits per channel to 8; give the file's path or its bytes.")
    try:
        image.load()
    except Exception as error:
        raise _Refused(_reason(error)) from error
    info = image.info
    exif, xmp = info.get("exif"), info.get("XML:com.adobe.xmp") or info.get("xmp") or b""
    if exif is None:
        exif = metadata.from_hex(info.get("Raw profile type exif", ""))
    # Pillow turns a TIFF when it loads it, and leaves no word of that in `info`.
    turn = (
        metadata.UPRIGHT
        if image.format == "TIFF"
        else metadata.orientation(exif, xmp.encode() if isinstance(xmp, str) else xmp)
    )
    rgb = (
        _grey(_numbers(image, ""), spec.window, spec.guess_floats)
        if image.mode in _NUMBERS
        else _to_rgb(image)
    )
    return _turned(rgb, turn)


def _from_array(image: NDArray[Any], spec: PreprocessSpec) -> Image.Image:
    channels = image.shape[2] if image.ndim == 3 else 1
    kind = image.dtype.newbyteorder("=")
    known = kind in (np.uint8, np.uint16) or (kind == np.float32 and channels != 4)
    if not known or image.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise TensorError(
            f"image is {image.shape} {image.dtype}, expected (H, W, 3) RGB, (H, W, 4) or (H, W) uint8 or uint16, or "
            "(H, W, 3) or (H, W) float32."
        )
    _check_size((image.shape[1], image.shape[0]), NAMELESS)
    if image.ndim == 3 and channels == 1:
        image = image[..., 0]
    if kind == np.uint8:
        return _to_rgb(Image.fromarray(image))
    if image.ndim == 2:
        return _grey(image, spec.window, guess=False)
    if spec.window is not None or kind == np.float32:
        return _windowed_colour(image, spec.window)
    return _to_rgb(Image.fromarray((image >> 8).astype(np.uint8)))


def _numbers(image: Image.Image, raw: str) -> NDArray[Any]:
    """(H, W) numbers of a loaded image of one of the modes `_NUMBERS`."""
    values = np.asarray(image)
    return values.view(np.uint32) if raw == "I;32N" else values  # Pillow knows no unsigned mode of 32 bits.


def _grey(values: NDArray[Any], window: tuple[float, float] | None, guess: bool) -> Image.Image:
    """(H, W) numbers as 8-bit RGB."""
    if window is None and values.dtype.kind == "f":
        if not guess:
            raise _no_window()
        scale = 255.0 if _finite(values).max() <= 1.0 else 1.0
        levels = np.rint(np.clip(values * scale, 0, 255)).astype(np.uint8)
    else:
        if window is None and values.dtype == np.uint32:
            values = values.view(np.int32)  # as it was read before there were windows
        levels = _levels(values, _WHOLE if window is None else window)
    return Image.fromarray(levels).convert("RGB")


def _windowed_colour(values: NDArray[Any], window: tuple[float, float] | None) -> Image.Image:
    """(H, W, 3) or (H, W, 4) numbers as 8-bit RGB; the fourth is alpha, uint16 of its whole range."""
    if window is None:
        raise _no_window()
    rgb = Image.fromarray(_levels(values[..., :3], window))
    if values.shape[2] == 3:
        return rgb
    rgb.putalpha(Image.fromarray((values[..., 3] >> 8).astype(np.uint8)))
    return _to_rgb(rgb)


def _no_window() -> _Refused:
    return _Refused(
        "holds floats, and there is no window that says which of them are black and white; set preprocess.window = "
        "[low, high] and train again (`edgetl init` and `edgetl data check` propose one)."
    )


def _levels(values: NDArray[Any], window: tuple[float, float]) -> NDArray[np.uint8]:
    """Numbers as 0..255, of the same shape: the only place where a window is applied."""
    if values.dtype.newbyteorder("=") == np.uint16:
        return np.asarray(_table(window)[values])
    _finite(values)
    flat = np.ascontiguousarray(values).reshape(-1)
    levels = np.empty(flat.size, np.uint8)
    for start in range(0, flat.size, _BLOCK):
        levels[start : start + _BLOCK] = _scaled(flat[start : start + _BLOCK], window)
    return levels.reshape(values.shape)


@functools.lru_cache(maxsize=4)
def _table(window: tuple[float, float]) -> NDArray[np.uint8]:
    return _scaled(np.arange(65536), window)


def _scaled(values: NDArray[Any], window: tuple[float, float]) -> NDArray[np.uint8]:
    low, high = window
    scaled = (values.astype(np.float64) - low) * (255.0 / (high - low))
    return np.rint(np.clip(scaled, 0.0, 255.0, out=scaled), out=scaled).astype(np.uint8)


def _finite(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise _Refused("holds values that are not finite (NaN or infinity); replace them by numbers.")
    return values


def _is_wide(image: Image.Image, raw: str) -> bool:
    """Whether the file holds 16 bits per channel in colour, of which Pillow would keep 8."""
    return ";16" in raw and image.mode not in _NUMBERS


def _wide(content: bytes, upper: ImageFile, raw: str) -> NDArray[np.uint16]:
    """(H, W, 3) or (H, W, 4) numbers of 16-bit colour: decoded once for the upper bytes and once for the lower.

    Args:
        content: the file, without metadata.
        upper: it, opened and not yet loaded.
        raw: how its numbers are stored.
    """
    if raw == _GREY_ALPHA:  # two numbers of two bytes, which four of one byte hold
        upper.tile = [tile._replace(args="RGBA") for tile in upper.tile]
        four = np.asarray(upper).astype(np.uint16)
        grey, alpha = four[..., 0] << 8 | four[..., 1], four[..., 2] << 8 | four[..., 3]
        return np.stack([grey, grey, grey, alpha], axis=-1)
    if raw not in _KEPT:
        raise _Refused(
            "holds 16 bits per channel in a form of which only 8 can be read; save it as RGB in PNG or TIFF."
        )
    lower, _ = _open(content)
    lower.tile = [tile._replace(args=_with_raw(tile.args, _LOWER[raw])) for tile in lower.tile]
    return np.asarray(np.asarray(upper).astype(np.uint16) << 8 | np.asarray(lower))


def _with_raw(args: Any, raw: str) -> Any:
    """A tile's arguments with other words for how its numbers are stored."""
    return (raw, *args[1:]) if isinstance(args, tuple) else raw


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
