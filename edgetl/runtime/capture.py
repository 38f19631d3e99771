"""Images that are worth a person's label are kept on the device, few, unlike each other, and never in the way.

Whoever predicts looks at an image's reasons and compares it with those kept, in memory; a queue of a few images
leads to the one thread that writes. Where that is full the image is dropped and counted. A picture is written under
a temporary name, forced to the disk and renamed; then a line of `edgetl.records.captured` is appended. So whenever the
power goes, every picture is whole, and at most the last line is torn.

A folder that cannot be written, is full or vanishes costs one warning: labelling goes on, and a minute later the next
image is tried. A folder that vanished is not made again: it may be a disk that was taken out.
"""

from __future__ import annotations

import base64
import contextlib
import io
import logging
import math
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import ConfigError, ImageError, SoundError, TensorError
from edgetl.failures import cause, remedy
from edgetl.files import sha256_bytes
from edgetl.records.captured import LINES, CapturedImage, CaptureState, line, read

if TYPE_CHECKING:
    from PIL import Image

    from edgetl.inputs.spec import PreprocessSpec
    from edgetl.runtime.stream import Shown

HOUR_S = 3600.0
RETRY_S = 60.0
"""After a failure, so long nothing is tried."""
WAITING = 4
"""Images that may wait for the writer."""
WAITING_BYTES = 64 << 20
"""Bytes of arrays that may wait for it; one image may always."""

_COMPARED_BYTES = 2 << 20
"""Of the vectors of kept images; the oldest are forgotten."""
_CLOSING_S = 10.0
_PLAIN = 3.0
"""Grey levels by which a thumbnail deviates less show nothing that could be alike, but to other such."""
_THUMBNAIL = "thumbnail"
_MIB = 1 << 20
_UNFINISHED = ".captured.tmp"
_SUFFIXES = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "TIFF": ".tif",
    "BMP": ".bmp",
    "GIF": ".gif",
    "PPM": ".ppm",
}


def _log(sentence: str) -> None:
    logging.getLogger("edgetl").warning(sentence)


@dataclass(frozen=True)
class Capture:
    """Which images are kept, and how many.

    Attributes:
        folder: where; made where it is missing.
        limit_mb: MiB that the folder may hold in all, above 0.
        per_hour: images kept in any hour, at least 1.
        below: an answer that is less sure than this, in 0..1, is worth a label.
        coverage: so is one whose set of labels that holds the truth so often (see `Session.predict`) has further ones;
            where the bundle knows no such sets, `below` alone counts.
        alike: an image whose cosine with a kept one is at least this is left out, in 0..1: of features where the
            session has them, else of grey thumbnails less their mean.
        say: takes warnings, each a sentence; Python's `logging` where unset.

    Raises:
        ConfigError: one is out of range, or a file stands where the folder is to be.
    """

    folder: str | Path
    limit_mb: float = 100.0
    per_hour: int = 60
    below: float = 0.6
    coverage: float = 0.95
    alike: float = 0.95
    say: Callable[[str], None] = field(default=_log, compare=False)

    def __post_init__(self) -> None:
        if not self.limit_mb > 0:
            raise ConfigError(f"capture: the limit is {self.limit_mb:g} MiB, expected more than 0.")
        if self.per_hour < 1:
            raise ConfigError(f"capture: {self.per_hour} images an hour are asked for, expected at least 1.")
        for name in ("below", "coverage", "alike"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"capture: {name} is {getattr(self, name):g}, expected a number in 0..1.")
        if not 0.0 < self.coverage < 1.0:
            raise ConfigError(
                f"capture: coverage is {self.coverage:g}, expected a share above 0 and below 1."
            )
        path = Path(self.folder)
        if path.exists() and not path.is_dir():
            raise ConfigError(f"capture: {path} is a file; name a folder.")


@dataclass(frozen=True, kw_only=True)
class Worth:
    """An image that is worth keeping: its reasons, the answer, and the vector (F,) that is compared."""

    reasons: tuple[str, ...]
    answer: str
    label: str
    score: float
    kind: str
    vector: NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class _Waiting:
    worth: Worth
    name: str
    picture: bytes | NDArray[Any] | Image.Image
    bgr: bool
    size_bytes: int
    time: float


class Capturer:
    """Keeps images; `offer` may be called from many threads and never waits for the disk."""

    def __init__(
        self,
        settings: Capture,
        spec: PreprocessSpec,
        *,
        bundle: str = "",
        variant: str = "",
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Look into the folder, so that what was kept before is not kept again.

        `spec` says how arrays of more than 8 bits become 8. `clock` and `wall` are in seconds.
        """
        self.settings, self._spec, self._origin = settings, spec, (bundle, variant)
        self._clock, self._wall = clock, wall
        self._folder = Path(settings.folder).absolute()
        self._lock = threading.Lock()
        self._queue: queue.Queue[_Waiting | None] = queue.Queue(WAITING)
        self._waiting_bytes = 0
        self._writer: threading.Thread | None = None
        self._closed = False
        self._times = deque[float](maxlen=settings.per_hour)
        self._compared: dict[tuple[str, int], _Compared] = {}
        self._counts = dict.fromkeys(("kept", "alike", "over_rate", "dropped", "failed"), 0)
        self._size = 0
        self._warning, self._paused_until = "", float("-inf")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            _clear(self._folder, before=wall() - HOUR_S)
            self._look()
        except OSError as error:
            self._fail(error)

    def wants(self, vector: Callable[[], NDArray[Any]], kind: str) -> bool:
        """Whether an image would be kept; counts it where not.

        Args:
            vector: makes what it is compared by, (F,); not called where nothing is kept for now.
            kind: of the vector.
        """
        with self._lock:
            return not self._closed and self._fits(vector, kind)

    def offer(self, shown: Shown, worth: Worth) -> bool:
        """Keep an image, where it is unlike those kept and there is room; whether it waits to be written."""
        with self._lock:
            if self._closed:
                return False
            if not self._fits(lambda: worth.vector, worth.kind):
                return False
            self._compared_with(worth.kind, worth.vector.size).add(unit(worth.vector, worth.kind))
            self._times.append(self._clock())
        try:
            waiting = self._taken(shown, worth)
        except OSError as error:  # The picture's own file is gone.
            return self._count("failed", error)
        with self._lock:
            full = self._waiting_bytes and self._waiting_bytes + waiting.size_bytes > WAITING_BYTES
            if not full:
                self._start()
                try:
                    self._queue.put_nowait(waiting)
                    self._waiting_bytes += waiting.size_bytes
                    return True
                except queue.Full:
                    pass
            self._counts["dropped"] += 1
            return False

    def state(self) -> CaptureState:
        """What was kept so far."""
        with self._lock:
            return CaptureState(
                folder=str(self.settings.folder), **self._counts, size_bytes=self._size, warning=self._warning
            )

    def close(self) -> None:
        """Write what waits, for ten seconds at most; a second call does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed, writer = True, self._writer
        if writer is not None:
            with contextlib.suppress(queue.Full):
                self._queue.put(None, timeout=_CLOSING_S)
            writer.join(_CLOSING_S)
        if dropped := self._counts["dropped"]:
            self.settings.say(
                f"capture: {dropped} images that were worth keeping came faster than {self.settings.folder} takes them"
                " and were dropped."
            )

    def _fits(self, vector: Callable[[], NDArray[Any]], kind: str) -> bool:
        """Whether an image is kept now; else why not is counted."""
        now, why = self._clock(), ""
        if now < self._paused_until:
            why = "failed"
        elif len(self._times) == self.settings.per_hour and now - self._times[0] < HOUR_S:
            why = "over_rate"
        elif self._is_known(vector(), kind):
            why = "alike"
        elif self._queue.full():
            why = "dropped"
        if why:
            self._counts[why] += 1
        return not why

    def _taken(self, shown: Shown, worth: Worth) -> _Waiting:
        """What is written, as it is now: the caller may change its array, or delete its file.

        Raises:
            OSError: the file cannot be read any more.
        """
        picture, name = shown.picture, shown.name
        kept: bytes | NDArray[Any] | Image.Image
        if isinstance(picture, bytes):
            kept, size = picture, len(picture)
        elif isinstance(picture, str | Path):
            content = Path(picture).read_bytes()
            kept, size, name = content, len(content), name or str(picture)
        elif isinstance(picture, np.ndarray):
            kept, size = picture.copy(), picture.nbytes
        else:
            kept, size = picture.copy(), 4 * picture.size[0] * picture.size[1]
        return _Waiting(
            worth=worth,
            name=name,
            picture=kept,
            bgr=shown.channels == "bgr",
            size_bytes=size,
            time=self._wall(),
        )

    def _start(self) -> None:
        if self._writer is None:
            self._writer = threading.Thread(target=self._write_all, name="edgetl-capture", daemon=True)
            self._writer.start()

    def _write_all(self) -> None:
        while (waiting := self._queue.get()) is not None:
            try:
                self._write(waiting)
            except OSError as error:
                self._count("failed", error)
            except (
                ImageError,
                TensorError,
            ):  # It was predicted on, so this is the writer's own limit: a strange mode.
                self._count("failed")
            finally:
                with self._lock:
                    self._waiting_bytes -= waiting.size_bytes

    def _write(self, waiting: _Waiting) -> None:
        content, suffix = self._encoded(waiting)
        at = datetime.fromtimestamp(waiting.time, tz=UTC)
        sha256 = sha256_bytes(content)
        name = f"{at:%Y%m%dT%H%M%S}-{sha256[:12]}{suffix}"
        bundle, variant = self._origin
        worth = waiting.worth
        about = line(
            CapturedImage(
                file=name,
                sha256=sha256,
                time=f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z",
                reasons=worth.reasons,
                answer=worth.answer,
                label=worth.label,
                score=round(float(worth.score), 6) if np.isfinite(worth.score) else 0.0,
                source=waiting.name,
                bundle=bundle,
                variant=variant,
                kind=worth.kind,
                vector=_packed(unit(worth.vector, worth.kind)),
            )
        )
        needed = len(content) + len(about)
        limit = int(self.settings.limit_mb * _MIB)
        if self._size + needed > limit:
            self._look(compare=False)  # Someone may have made room.
            if self._size + needed > limit:
                self._full()
                return
        _write_file(self._folder, name, content)
        _append(self._folder / LINES, about)
        with self._lock:
            self._counts["kept"] += 1
            self._size += needed

    def _encoded(self, waiting: _Waiting) -> tuple[bytes, str]:
        """A file's own bytes; of anything else a PNG, 8-bit RGB, or of samples a WAV."""
        picture = waiting.picture
        if (sound := self._spec.sound) is not None:
            return _encoded_sound(picture, sound.rate)
        if isinstance(picture, bytes):
            from PIL import Image

            try:
                with Image.open(io.BytesIO(picture)) as opened:
                    suffix = _SUFFIXES.get(opened.format or "")
            except (OSError, ValueError, SyntaxError):
                suffix = None
            if suffix is not None:
                return picture, suffix
            raise ImageError("The image: it is of no format that is kept.")
        from edgetl.inputs.image import to_rgb

        if waiting.bgr and isinstance(picture, np.ndarray) and picture.ndim == 3:
            picture = picture[..., ::-1]
        buffer = io.BytesIO()
        to_rgb(picture, self._spec).save(buffer, "PNG")
        return buffer.getvalue(), ".png"

    def _look(self, *, compare: bool = True) -> None:
        """Add up what the folder holds, and learn the vectors by which its images are compared.

        Raises:
            OSError: it cannot be read.
        """
        with os.scandir(self._folder) as entries:
            size = sum(entry.stat(follow_symlinks=False).st_size for entry in entries if entry.is_file())
        with self._lock:
            self._size = size
        if not compare:
            return
        try:
            content = (self._folder / LINES).read_bytes()
        except FileNotFoundError:
            return
        for image in read(content.splitlines())[0]:
            if image.vector and (vector := _unpacked(image.vector)) is not None:
                self._compared_with(image.kind, vector.size).add(vector)

    def _is_known(self, vector: NDArray[Any], kind: str) -> bool:
        return self._compared_with(kind, vector.size).has(vector, self.settings.alike)

    def _compared_with(self, kind: str, length: int) -> _Compared:
        """The kept images of that kind and length; a model of another width has its own."""
        if (found := self._compared.get((kind, length))) is None:
            found = self._compared[kind, length] = _Compared(length, kind)
        return found

    def _full(self) -> None:
        limit = f"{self.settings.limit_mb:g} MiB"
        self._pause(
            f"capture: {self.settings.folder} holds {self._size / _MIB:.1f} MiB and may hold {limit}, so no"
            " further images are kept; move some away, or raise the limit."
        )
        self._count("failed")

    def _fail(self, error: OSError) -> None:
        self._pause(
            f"capture: {self.settings.folder} cannot be written ({cause(error)}), so no images are kept for now."
            f" {remedy(error)}".rstrip()
        )

    def _count(self, what: str, error: OSError | None = None) -> bool:
        with self._lock:
            self._counts[what] += 1
        if error is not None:
            self._fail(error)
        return False

    def _pause(self, sentence: str) -> None:
        """Try nothing for a while, and say why, once in a session."""
        with self._lock:
            self._paused_until = self._clock() + RETRY_S
            first, self._warning = not self._warning, self._warning or sentence
        if first:
            self.settings.say(sentence)


def _encoded_sound(sound: object, rate: int) -> tuple[bytes, str]:
    """A recording's own bytes; of samples a WAV of 16 bits."""
    from edgetl.inputs.recordings import ending_of
    from edgetl.inputs.wave import wave_file

    if isinstance(sound, bytes) and (suffix := ending_of(sound)):
        return sound, suffix
    if not isinstance(sound, np.ndarray) or sound.ndim != 1:
        raise SoundError("The recording: it is of no format that is kept.")
    samples = sound.astype(np.float32) / np.float32(32768) if sound.dtype.kind == "i" else sound
    return wave_file(samples, rate), ".wav"


class _Compared:
    """Vectors of length 1 of kept images, in a ring of bounded size."""

    def __init__(self, length: int, kind: str) -> None:
        self._rows = np.zeros((max(16, _COMPARED_BYTES // (4 * length)), length), dtype=np.float32)
        if kind == _THUMBNAIL:
            self._rows[0] = length**-0.5  # By which the mean is found: kept vectors have none.
        self._least = _least(length, kind)
        self._count, self._plain = 0, False

    def add(self, vector: NDArray[np.float32]) -> None:
        """Keep a vector, as `unit` makes it."""
        self._rows[1 + self._count % (len(self._rows) - 1)] = vector
        self._count += 1
        self._plain |= not vector.any()

    def has(self, values: NDArray[Any], alike: float) -> bool:
        """Whether one is alike; a plain one, in which there is nothing, is like other plain ones.

        It is not made a vector of length 1 before, which would take as long again: kept ones are without a mean, and
        the length follows by Pythagoras.
        """
        vector = np.asarray(values, dtype=np.float32).reshape(-1)
        likeness = self._rows[: 1 + self._count] @ vector
        length = math.sqrt(max(0.0, float(vector @ vector) - float(likeness[0]) ** 2))
        if not self._least < length < math.inf:
            return self._plain
        return self._count > 0 and float(likeness[1:].max()) >= alike * length


def _least(length: int, kind: str) -> float:
    """The length up to which there is nothing in a vector."""
    return _PLAIN * length**0.5 if kind == _THUMBNAIL else 0.0


def unit(values: NDArray[Any], kind: str) -> NDArray[np.float32]:
    """A vector of length 1, of a thumbnail less its mean; all zeros where there is nothing in it."""
    vector = np.asarray(values, dtype=np.float32).reshape(-1)
    if kind == _THUMBNAIL:
        vector = vector - vector.mean()
    length = math.sqrt(float(vector @ vector))
    if not _least(len(vector), kind) < length < math.inf:
        return np.zeros_like(vector)
    return vector / np.float32(length)


def _packed(vector: NDArray[np.float32]) -> str:
    top = float(np.abs(vector).max()) or 1.0
    return base64.b64encode(np.round(vector * (127.0 / top)).astype(np.int8).tobytes()).decode()


def _unpacked(text: str) -> NDArray[np.float32] | None:
    try:
        values = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.int8)
    except ValueError:
        return None
    return unit(values, "packed") if len(values) else None


def _clear(folder: Path, *, before: float) -> None:
    """Remove what a writer left unfinished, but for what another process may be writing."""
    for path in folder.glob(f".*{_UNFINISHED}"):
        if path.stat().st_mtime < before:
            path.unlink(missing_ok=True)


def _write_file(folder: Path, name: str, content: bytes) -> None:
    """Write a file that is whole or not there, whenever the power goes.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    temporary = folder / f".{name}{_UNFINISHED}"
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / name)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync(folder)


def _append(path: Path, about: bytes) -> None:
    """Append a line, after the end of one that may be torn."""
    with path.open("a+b") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                about = b"\n" + about
        file.write(about)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Have the folder's new name on the disk, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # Some network file systems do not.
            os.fsync(handle)
    finally:
        os.close(handle)
