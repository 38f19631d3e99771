"""WAV files: their samples as floats, and floats as such a file. Numpy alone.

RIFF with the chunks `fmt ` and `data` (Microsoft, "Multimedia Programming Interface and Data Specifications 1.0", 1991;
"Multiple Channel Audio Data and WAVE Files", 2007, for the extensible form). The standard library's `wave` reads no
floats.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import SoundError
from edgetl.inputs.spec import MAX_RATE, MIN_RATE

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_OTHERS = {2: "ADPCM", 6: "A-law", 7: "mu-law", 17: "IMA ADPCM", 49: "GSM 6.10", 80: "MPEG", 85: "MP3"}
_UNKNOWN_LENGTH = (0, 0xFFFFFFFF)
"""What writers to a pipe leave in a length that they cannot go back to: the data goes to the end."""


def read_wave(content: bytes, name: str) -> tuple[NDArray[np.float32], int]:
    """The samples of a WAV file.

    Args:
        content: the whole file.
        name: what messages call it.

    Returns:
        (N, channels) float32, where integers span -1 to 1, and the samples per second.

    Raises:
        SoundError: it is no such file, is truncated or contradicts itself, or holds a form that is not read.
    """
    form: tuple[int, int, int, int] | None = None
    for kind, body, promised in _chunks(content):
        if kind == b"fmt ":
            form = _form(body, name)
        elif kind == b"data":
            if form is None:
                raise SoundError(f"{name}: its data comes before its format; save it as WAV again.")
            if len(body) < promised:
                raise SoundError(
                    f"{name}: is truncated: its header promises {promised:,} bytes of sound, and {len(body):,} are"
                    " there; copy or record it again."
                )
            return _samples(body, form, name), form[2]
    what = "format" if form is None else "sound"
    raise SoundError(f"{name}: is truncated: it ends before its {what}; copy or record it again.")


def wave_file(samples: NDArray[np.float32], rate: int) -> bytes:
    """A WAV file of 16 bits of one channel.

    Args:
        samples: (N,) about -1 to 1; what lies beyond is cut off.
        rate: samples per second.
    """
    body = np.rint(np.clip(samples, -1.0, 32767 / 32768) * 32768).astype("<i2").tobytes()
    head = struct.pack("<4sIHHIIHH", b"fmt ", 16, _PCM, 1, rate, 2 * rate, 2, 16)
    parts = b"WAVE" + head + struct.pack("<4sI", b"data", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(parts)) + parts


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Kind, body and the length that its header promises, of each chunk."""
    at = 12
    while at + 8 <= len(content):
        kind = content[at : at + 4]
        (length,) = struct.unpack_from("<I", content, at + 4)
        at += 8
        if kind == b"data" and length in _UNKNOWN_LENGTH:
            length = len(content) - at
        yield kind, content[at : at + length], length
        at += length + length % 2


def _form(body: bytes, name: str) -> tuple[int, int, int, int]:
    """Code of the form, channels, samples per second, and bits per sample."""
    if len(body) < 16:
        raise SoundError(f"{name}: is truncated: it ends before its format; copy or record it again.")
    code, channels, rate, bytes_a_second, block, bits = struct.unpack_from("<HHIIHH", body)
    if code == _EXTENSIBLE and len(body) >= 26:
        (code,) = struct.unpack_from("<H", body, 24)  # a GUID that begins with the plain code
    known = {_PCM: (8, 16, 24, 32), _FLOAT: (32, 64)}
    if bits not in known.get(code, ()):
        said = _OTHERS.get(code, f"form {code}") if code not in known else f"{bits} bits"
        raise SoundError(
            f"{name}: holds {said}; 8, 16, 24 and 32 bits and floats are read. Convert it with: ffmpeg -i IN -c:a"
            " pcm_s16le OUT.wav"
        )
    if channels < 1 or block != channels * bits // 8:
        raise SoundError(
            f"{name}: its header contradicts itself: {channels} channels of {bits} bits in {block} bytes; save it as"
            " WAV again."
        )
    if not MIN_RATE <= rate <= MAX_RATE or bytes_a_second not in (0, rate * block):
        beside = f", and {bytes_a_second:,} bytes" if bytes_a_second != rate * block else ""
        raise SoundError(
            f"{name}: its header cannot be right: it says {rate:,} samples{beside} per second, {block} bytes each; save"
            " it again with the rate that it was recorded at."
        )
    return code, channels, rate, bits


def _samples(body: bytes, form: tuple[int, int, int, int], name: str) -> NDArray[np.float32]:
    code, channels, _, bits = form
    block = channels * bits // 8
    if len(body) % block:
        raise SoundError(f"{name}: is truncated: it ends within a sample; copy or record it again.")
    if code == _FLOAT:
        flat = np.frombuffer(body, f"<f{bits // 8}").astype(np.float32)
    elif bits == 8:  # the only one without a sign
        flat = (np.frombuffer(body, np.uint8).astype(np.float32) - 128.0) / 128.0
    elif bits == 24:
        triples = np.frombuffer(body, np.uint8).reshape(-1, 3)
        wide = np.zeros((len(triples), 4), np.uint8)
        wide[:, 1:] = triples
        flat = wide.view("<i4").reshape(-1).astype(np.float32) / np.float32(2**31)
    else:
        flat = np.frombuffer(body, f"<i{bits // 8}").astype(np.float32) / np.float32(2 ** (bits - 1))
    return flat.reshape(-1, channels)
