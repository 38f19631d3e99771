"""Golden images and outputs: how a device proves that it computes what was measured.

The rule: on the golden images, decoded and preprocessed on the device, no value of an output may differ from the
recorded one by more than `tolerance(...) * max(1, largest recorded |value| of that output)`. A picture whose two
best logits lie further apart than twice that keeps its class by this rule. Float arithmetic differs between
machines merely by the order of summation.

Of INT8 the sums of integers do not differ at all: ONNX Runtime gives the same bits for one thread and two, for one
image and eight. But engines round at different places. One merges a scale into the next layer, another leaves an
addition in float, and some outputs are recorded with the Q/DQ pairs carried out in float32 (those of targets that the
recording machine is not). Each of them is right, and none is nearer to the float network than the others: of a
student of 61 quantized tensors the outputs in OpenVINO lay as far from it (0.9 to 1.2 times) as those recorded in
ONNX Runtime. So the recorded INT8 outputs, held against the recorded float ones, say how much all roundings together
move a value: the root of the mean square r. That depends on the network, on its depth most of all: D roundings to 8
bits add up to about `sqrt(D) * 0.009` of the signal, where a range is four standard deviations on either side (a step's
variance is its square over 12: Oppenheim, Schafer, "Discrete-Time Signal Processing"), so that one limit for all
networks is too wide for some and too narrow for others. Two right engines with no rounding in common are `sqrt(2) * r`
apart, and the largest of M normal values is above `sqrt(2 * ln(M / p))` times that with a chance of at most p, here
0.001.

That limit is used between two others. `TOLERANCE` is always allowed: QAT may bring INT8 nearer to float than its
roundings are. No more than `INT8_CEILING` ever is: what must be caught are sums that saturate in 16 bits, where a model
with 8-bit weights meets an x86 CPU without VNNI, and they gave 0.37.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgetl.bundle.manifest import Precision
from edgetl.errors import BundleIntegrityError, TensorError
from edgetl.files import sha256_bytes
from edgetl.inputs.image import decode, read_numbers
from edgetl.inputs.spec import PreprocessSpec, SoundSpec
from edgetl.tasks.base import LOGITS, Outputs, Task, TensorSpec, output

TOLERANCE: Mapping[Precision, float] = {
    Precision.FP32: 1e-3,
    Precision.FP16: 2e-2,
    Precision.BF16: 5e-2,
    Precision.FP8: 1e-1,
    Precision.INT8: 5e-2,
}
"""Allowed difference of an output, relative to its largest recorded value."""
INT8_CEILING = 0.18
"""The most that is allowed of INT8, whatever its roundings: half of what saturated sums gave."""
_CHANCE = 1e-3

_NPY = b"\x93NUMPY"
_KEEP_BYTES = 48 * 1024
_JPEG_QUALITY = 92


@dataclass(frozen=True, kw_only=True)
class GoldenSet:
    """What `pack` puts into `golden/`.

    Attributes:
        images: encoded pictures (JPEG or PNG), or sounds (WAV).
        pixels: what preprocessing made of them, (images, size, size, 3) uint8.
        outputs: variant name to its outputs for these pixels, as the runtime gave them.
    """

    images: tuple[bytes, ...]
    pixels: NDArray[np.uint8]
    outputs: Mapping[str, Outputs]


@dataclass(frozen=True, kw_only=True)
class GoldenCheck:
    """Outcome of a comparison with the golden outputs.

    `max_difference` and `allowed_difference` are in values of `output`, the one that differs most relative to its
    largest value; `same` is the share of images with the same answer, in 0..1;
    `pixels_identical` says whether preprocessing gave bit for bit the recorded pixels (image decoders of
    other versions may differ slightly).
    """

    variant: str
    precision: Precision
    images: int
    max_difference: float
    allowed_difference: float
    same: float
    pixels_identical: bool
    output: str = LOGITS

    @property
    def passed(self) -> bool:
        """Whether every value is within the tolerance; one that is not finite never is."""
        return self.max_difference <= self.allowed_difference

    @property
    def reason(self) -> str:
        """The outcome in one sentence."""
        figures = (
            f"on {self.images} golden images the largest difference of {self.output} is {self.max_difference:.3g}, "
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
    task: Task,
    recorded: Outputs,
    computed: Outputs,
    pixels_identical: bool,
    floats: Outputs | None = None,
) -> GoldenCheck:
    """Compare computed with recorded outputs by the rule of this module; `floats` are those recorded in float32.

    Raises:
        TensorError: an output is missing, or the shapes differ.
    """
    found = task.agreement(recorded, computed)
    return GoldenCheck(
        variant=variant,
        precision=precision,
        images=found.images,
        max_difference=found.difference,
        allowed_difference=tolerance(precision, task, recorded, floats) * found.scale,
        same=found.same,
        pixels_identical=pixels_identical,
        output=found.output,
    )


def tolerance(precision: Precision, task: Task, recorded: Outputs, floats: Outputs | None = None) -> float:
    """The allowed difference of an output, relative to its largest recorded value.

    Args:
        precision: that of the variant.
        task: names the outputs.
        recorded: the variant's golden outputs.
        floats: the golden outputs of the same network in float32, where the bundle has them.

    Raises:
        TensorError: an output is missing, or the shapes differ.
    """
    least = TOLERANCE[precision]
    if precision is not Precision.INT8 or floats is None:
        return least
    found = [least]
    for spec in task.outputs:
        want, have = (output(task, values, spec.name) for values in (floats, recorded))
        if want.shape != have.shape:
            raise TensorError(f"{spec.name}: got shape {have.shape}, expected {want.shape}.")
        if have.size:
            rounding = float(np.sqrt(np.mean(np.square(have - want, dtype=np.float64))))
            apart = math.sqrt(2.0) * rounding * math.sqrt(2.0 * math.log(have.size / _CHANCE))
            found.append(apart / max(1.0, float(np.abs(have).max())))
    return min(max(found), INT8_CEILING)


def encode_image(source: Path, spec: PreprocessSpec) -> bytes:
    """A picture as it goes into the bundle: the file as it is when small, else a smaller JPEG of it.

    The smaller one keeps twice the pixels per side that the network needs, so that resizing is proven too. Of a picture
    of more than 8 bits it keeps the numbers, every so many of them, so that the window is proven. A sound is WAV,
    which a device reads without further packages: of a long recording the window.

    Raises:
        ImageError: it cannot be decoded.
    """
    content = source.read_bytes()
    picture = decode(content, None, name=str(source), spec=spec)
    if spec.sound is not None:
        return _encoded_sound(content, spec.sound, str(source))
    if len(content) <= _KEEP_BYTES:
        return content
    side = 2 * spec.size
    numbers = read_numbers(content, name=str(source))
    if numbers is not None and (numbers.ndim == 2 or spec.window is not None):
        step = max(1, min(numbers.shape[:2]) // side)
        if numbers.ndim == 3:
            return _png_of_16_bits(numbers[::step, ::step])
        return _encoded(
            Image.fromarray(_storable(numbers[::step, ::step])), "TIFF", compression="tiff_adobe_deflate"
        )
    if (shorter := min(picture.size)) > side:
        width, height = (max(1, round(length * side / shorter)) for length in picture.size)
        picture = picture.resize((width, height))
    return _encoded(picture, "JPEG", quality=_JPEG_QUALITY)


def _encoded_sound(content: bytes, spec: SoundSpec, name: str) -> bytes:
    from edgetl.inputs.recordings import ending_of
    from edgetl.inputs.sound import load_mono, windowed
    from edgetl.inputs.wave import wave_file

    if len(content) <= _KEEP_BYTES and ending_of(content) == ".wav":
        return content
    return wave_file(windowed(load_mono(content, spec, name=name), spec.samples), spec.rate)


def _storable(numbers: NDArray[Any]) -> NDArray[Any]:
    """Numbers in a type that TIFF has a form for, in this machine's byte order."""
    kind = np.float32 if numbers.dtype.kind == "f" else np.uint16 if numbers.dtype.itemsize == 2 else np.int32
    return np.ascontiguousarray(numbers.astype(kind))


def _png_of_16_bits(numbers: NDArray[np.uint16]) -> bytes:
    """An RGB PNG of (H, W, 3), which Pillow reads and does not write (ISO/IEC 15948, sections 5 and 11.2)."""
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        length, check = (number.to_bytes(4, "big") for number in (len(body), zlib.crc32(kind + body)))
        return length + kind + body + check

    height, width, _ = numbers.shape
    # Bits per channel, RGB, and three times the only method there is; each row begins with its filter, none.
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes((16, 2, 0, 0, 0))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in numbers)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, body) for kind, body in parts)


def _encoded(picture: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def pixels_sha256(pixels: NDArray[np.uint8]) -> str:
    """SHA-256 of preprocessed pixels, (N, size, size, 3) uint8."""
    return sha256_bytes(np.ascontiguousarray(pixels).tobytes())


def encode_outputs(outputs: Outputs) -> bytes:
    """Outputs as the bytes of a `.npz` of float32 arrays; see `encode_arrays`."""
    return encode_arrays({name: np.asarray(array, dtype=np.float32) for name, array in outputs.items()})


def encode_arrays(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Arrays as the bytes of a `.npz`, little-endian and stored; equal arrays give equal bytes."""
    import zipfile

    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            array = io.BytesIO()
            stored = arrays[name].dtype.newbyteorder("<")
            np.save(array, np.ascontiguousarray(arrays[name], dtype=stored), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), array.getvalue())
    return content.getvalue()


def decode_outputs(content: bytes, task: Task, images: int, where: str) -> dict[str, NDArray[np.float32]]:
    """Read the outputs for so many images; `where` names them in errors. Schema 1 stored the one output as a `.npy`.

    Raises:
        BundleIntegrityError: it is not what `encode_outputs` writes, does not fit the task, or is not finite.
    """
    return decode_arrays(
        content, [replace(spec, shape=(images, *spec.shape[1:])) for spec in task.outputs], where
    )


def decode_arrays(content: bytes, wanted: Sequence[TensorSpec], where: str) -> dict[str, NDArray[Any]]:
    """Read the arrays that are wanted of what `encode_arrays` wrote, by name; raises as `decode_outputs`."""
    import zipfile

    found: dict[str, NDArray[Any]] = {}
    for spec in wanted:
        try:
            array = np.load(io.BytesIO(_stored(content, spec.name)), allow_pickle=False)
        except (ValueError, EOFError, OSError, zipfile.BadZipFile, KeyError) as error:
            raise BundleIntegrityError(f"{where} does not hold the output {spec.name}: {error}.") from error
        fits = array.ndim == len(spec.shape) and all(
            want in (None, have) for want, have in zip(spec.shape, array.shape, strict=True)
        )
        if array.dtype != np.dtype(spec.dtype) or not fits or not np.isfinite(array).all():
            raise BundleIntegrityError(
                f"{where}: {spec.name} is {array.shape} {array.dtype}, expected finite {spec}."
            )
        found[spec.name] = np.asarray(array, dtype=spec.dtype)
    return found


def names_in(content: bytes) -> frozenset[str]:
    """The names of the arrays in what `encode_arrays` wrote."""
    import zipfile

    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return frozenset(name.removesuffix(".npy") for name in archive.namelist())


def _stored(content: bytes, name: str) -> bytes:
    """One array's `.npy`."""
    import zipfile

    if content.startswith(_NPY):
        return content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        member = archive.getinfo(f"{name}.npy")
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError("it is compressed")
        return archive.read(member)
