"""Recordings in files: WAV by our own reader, FLAC and Ogg through `soundfile` (the extra `sound`)."""

from __future__ import annotations

import io
import stat
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import SoundError
from edgetl.inputs.wave import read_wave
from edgetl.packages import missing

NAMELESS = "The recording"
"""What messages call a recording that came without a name."""
MAX_BYTES = 1 << 30
"""Bytes; a longer file is refused."""

_WAVE, _FLAC, _OGG = b"WAVE", b"fLaC", b"OggS"
_CONVERT = "convert it with: ffmpeg -i IN OUT.wav"
_OTHERS = (
    ((b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2"), f"is an MP3, which is not read; {_CONVERT}"),
    ((b"RF64", b"BW64"), f"is a WAV of more than 4 GiB, which is not read; {_CONVERT}, in parts"),
    ((b"FORM",), f"is an AIFF, which is not read; {_CONVERT}"),
    (
        (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*"),
        'is a picture, not a recording; remove it, or train on pictures by data.input = "image"',
    ),
)


def read_recording(source: Path | bytes, *, name: str = "") -> tuple[NDArray[np.float32], int]:
    """All samples of a file, or of its content.

    Args:
        source: a WAV, FLAC or Ogg file, or its content.
        name: what messages call it; the path, where that is given.

    Returns:
        (N, channels) float32, where integers span -1 to 1, and the samples per second.

    Raises:
        SoundError: it cannot be read; the message names it and the reason.
        MissingDependencyError: it is FLAC or Ogg, and `soundfile` is not installed.
    """
    name = name or (str(source) if isinstance(source, Path) else NAMELESS)
    content = source if isinstance(source, bytes) else _content(source, name)
    if not content:
        raise SoundError(f"{name}: the file is empty.")
    if content.startswith(b"RIFF") and content[8:12] == _WAVE:
        return read_wave(content, name)
    if content.startswith((_FLAC, _OGG)):
        return _through_soundfile(content, name)
    for starts, sentence in _OTHERS:
        if content.startswith(starts):
            raise SoundError(f"{name}: {sentence}.")
    if content[4:8] == b"ftyp":
        raise SoundError(f"{name}: is MPEG-4, which is not read; {_CONVERT}.")
    if content[8:12] == b"WEBP":
        raise SoundError(f"{name}: {_OTHERS[-1][1]}.")
    raise SoundError(
        f"{name}: is not a recording that can be read (WAV, FLAC, Ogg), or its start is corrupt."
    )


def ending_of(start: bytes) -> str:
    """The ending of the file of a kind that is read whose content begins so; empty for anything else."""
    if start.startswith(b"RIFF") and start[8:12] == _WAVE:
        return ".wav"
    return ".flac" if start.startswith(_FLAC) else ".ogg" if start.startswith(_OGG) else ""


def read_pipe(file: BinaryIO, name: str) -> bytes:
    """All bytes of a recording from a pipe.

    Raises:
        SoundError: there are too many.
    """
    content = bytearray()
    while piece := file.read(1 << 20):
        content += piece
        if len(content) > MAX_BYTES:
            raise _too_long(name)
    return bytes(content)


def _content(path: Path, name: str) -> bytes:
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            with path.open("rb") as file:
                return read_pipe(file, name)
        if about.st_size > MAX_BYTES:
            raise _too_long(name)
        return path.read_bytes()
    except FileNotFoundError:
        raise SoundError(f"{name}: there is no such file.") from None
    except OSError as error:
        raise SoundError(f"{name}: cannot be read ({error.strerror}).") from error


def _too_long(name: str) -> SoundError:
    return SoundError(f"{name}: more than {MAX_BYTES >> 30} GiB are refused; cut it into parts.")


def _through_soundfile(content: bytes, name: str) -> tuple[NDArray[np.float32], int]:
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: it is there, and the library that it loads is not
        raise missing("soundfile", purpose="which reads FLAC and Ogg") from error
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            promised, rate = file.frames, int(file.samplerate)
            samples = file.read(dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError) as error:
        reason = str(error).strip().rstrip(".")
        raise SoundError(f"{name}: is corrupt or truncated ({reason}).") from error
    if len(samples) < promised:
        raise SoundError(
            f"{name}: is truncated: its header promises {promised:,} samples, and {len(samples):,} are there; copy or"
            " record it again."
        )
    return np.ascontiguousarray(samples, np.float32), rate
