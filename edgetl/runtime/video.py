"""Frames of videos, cameras and network streams, through OpenCV: the one place of the runtime that imports it.

A video file has an end and waits for whoever reads it: every frame is given, and where fewer come than its header
names, that is said. A live source has neither. A thread takes its frames as they come and keeps the newest, so that a
reader slower than the source sees what is there now; where nothing comes any more, that is an error, unless it may be
opened again.
"""

from __future__ import annotations

import atexit
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import ImageError, SourceError
from edgetl.packages import missing
from edgetl.records.frozen import dataclass

SUFFIXES = frozenset(
    {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".ts", ".mjpeg"}
)
"""Endings of files that are read as videos, whatever their case."""
_CAMERA = re.compile(r"camera:(\d+)")
_DEVICE = re.compile(r"/dev/video(\d+)")
_STREAM = re.compile(r"(rtsp|rtmp|http|https|udp)://")
_WAITING = 8
"""Frames that wait for a reader who wants every one of a live source; then the source waits."""
_RETRY_SECONDS = 1.0
_GRACE_SECONDS = 2.0
"""For the read that a source is in when it is left; OpenCV ends its own at the same timeout."""
_BAD_FRAMES = 10
"""Frames in a row that cannot be decoded; OpenCV does not distinguish them from the end."""
# Headers of some containers give a duration, from which the number of frames is reckoned: a few may be off.
_FEW_FRAMES, _SMALL_SHARE = 2, 0.01


@dataclass(frozen=True, kw_only=True)
class VideoFrame:
    """One frame.

    Attributes:
        pixels: (H, W, 3) uint8 BGR.
        number: its place in the video or, from 0, among all frames that the source gave.
        seconds: a file's: its time in the video. A live source's: when it came, counted from the opening by a clock
            that nobody sets. None where a file does not say.
        time: when it came, UTC, ISO 8601 with milliseconds; empty for a file.
        dropped: frames before it, since the last one, that were left out.
    """

    pixels: NDArray[np.uint8]
    number: int
    seconds: float | None
    time: str = ""
    dropped: int = 0


@dataclass(frozen=True, kw_only=True)
class Live:
    """How a live source is read.

    Attributes:
        timeout: seconds without a frame after which the source counts as silent.
        reconnect: seconds for which a source that closed, fell silent or is not there is tried again; 0 for never.
        every_frame: wait for the reader instead of dropping frames.
        clock: monotonic seconds; another one in tests.
        wall: the wall clock, in seconds since 1970.
        sleep: waits for seconds.
    """

    timeout: float = 10.0
    reconnect: float = 0.0
    every_frame: bool = False
    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep


def is_video(name: str) -> bool:
    """Whether a name is a video file's, a camera's (`camera:0`, `/dev/video0`) or a network stream's."""
    return is_live(name) or Path(name).suffix.lower() in SUFFIXES


def is_live(name: str) -> bool:
    """Whether a name is a camera's or a network stream's, which may have no end."""
    return any(pattern.match(name) for pattern in (_CAMERA, _DEVICE, _STREAM))


def frames(
    name: str,
    live: Live | None = None,
    *,
    say: Callable[[str], None] = lambda _: None,
    open_: Callable[[str, float], Any] | None = None,
) -> Iterator[VideoFrame]:
    """The frames of a file or live source; the device is given back at the end.

    Args:
        name: a file, `camera:N`, `/dev/videoN` or a URL.
        live: how a live source is read.
        say: called with a sentence when a source is lost and tried again.
        open_: opens an OpenCV capture by name and timeout; another function in tests.

    Raises:
        ImageError: a file cannot be opened, has no frames, or ends before the last one that its header names; then
            all that came were given before.
        SourceError: a live source cannot be opened, closed, or gave nothing for `live.timeout` seconds.
        MissingDependencyError: OpenCV is not installed.
    """
    open_ = _open if open_ is None else open_
    live = Live() if live is None else live
    with _silent_decoder():
        if is_live(name):
            yield from _live_frames(name, live, say, open_)
        else:
            yield from _file_frames(name, open_(name, live.timeout), live)


def utc(seconds: float) -> str:
    """A wall clock's seconds since 1970 as ISO 8601, UTC, with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _file_frames(name: str, capture: Any, live: Live) -> Iterator[VideoFrame]:
    cv2, count = _opencv(), 0
    try:
        named, rate = _count(capture), capture.get(cv2.CAP_PROP_FPS)
        while True:
            pixels = _read(capture, live)
            if pixels is None:
                break
            at = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if at <= 0 < count:  # Not every container states it.
                at = count / rate if rate > 0 else -1.0
            yield VideoFrame(pixels=pixels, number=count, seconds=at if at >= 0 else None)
            count += 1
    finally:
        capture.release()
    if not count:
        raise ImageError(f"{name}: it gives no frames.")
    if named - count > max(_FEW_FRAMES, _SMALL_SHARE * named):
        raise ImageError(
            f"{name}: its header names {named} frames and {count} came, {named - count} are missing; "
            "the file is cut short or damaged."
        )


def _live_frames(
    name: str, live: Live, say: Callable[[str], None], open_: Callable[[str, float], Any]
) -> Iterator[VideoFrame]:
    began, lost, total = live.clock(), None, 0
    while True:
        try:
            capture = open_(name, live.timeout)
        except ImageError as error:
            reason = str(error)
        else:
            if _count(capture) > 0:  # A file behind a URL has an end.
                yield from _file_frames(name, capture, live)
                return
            reader = _Reader(capture, live, began, total)
            try:
                while (frame := reader.take()) is not None:
                    lost = None
                    yield frame
            finally:
                reader.stop()
            total = reader.total
            reason = f"{name}: {reader.reason} after {total} frames."
        now = live.clock()
        if lost is None:
            lost = now
            if live.reconnect:
                say(f"{reason} It is tried again for {live.reconnect:g} s.")
        if now - lost >= live.reconnect:
            again = f" for {live.reconnect:g} s" if live.reconnect else ""
            hint = "" if live.reconnect else " With --reconnect SECONDS it is opened again."
            raise SourceError(f"{reason}{f' It did not come back{again}.' if again else hint}")
        live.sleep(min(_RETRY_SECONDS, live.reconnect - (now - lost)))


class _Reader:
    """Reads a live source in a thread of its own, the only one to touch the capture: a read may hang for ever."""

    def __init__(self, capture: Any, live: Live, began: float, total: int) -> None:
        self._capture, self._live, self._began = capture, live, began
        self._frames = deque[VideoFrame]()
        self._changed = threading.Condition()
        self._stopped = self._ended = False
        self._last = live.clock()
        self._dropped = 0
        self.total, self.reason = total, ""
        self._thread = threading.Thread(target=self._run, daemon=True, name="edgetl-source")
        self._thread.start()
        # Python ends threads that come back from C++ code while it shuts down, and C++ then aborts the process.
        atexit.register(self.stop)

    def take(self) -> VideoFrame | None:
        """The next frame, the newest unless every one is wanted; None where no more come, and `reason` says why."""
        with self._changed:
            while not self._frames:
                silent = self._live.clock() - self._last
                if silent >= self._live.timeout:
                    self.reason = f"it gave nothing for {self._live.timeout:g} s"
                    return None
                if self._ended:
                    self.reason = "it closed"
                    return None
                self._changed.wait(min(self._live.timeout - silent, 0.5))
            frame = self._frames.popleft()
            self._changed.notify_all()
            return frame

    def stop(self) -> None:
        """Have the thread give the device back after the read that it is in, and wait for it unless that hangs."""
        atexit.unregister(self.stop)
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(_GRACE_SECONDS)

    def _run(self) -> None:
        try:
            while not self._stopped:
                pixels = _read(self._capture, self._live)
                with self._changed:
                    if pixels is None or self._stopped:
                        return
                    self._keep(pixels)
        finally:
            self._capture.release()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _keep(self, pixels: NDArray[np.uint8]) -> None:
        self._last = self._live.clock()
        came, wall = self._last - self._began, utc(self._live.wall())
        if self._live.every_frame:
            while len(self._frames) >= _WAITING and not self._stopped:
                self._changed.wait()
            self._last = self._live.clock()  # It was the reader who took long.
        elif self._frames:
            self._dropped = self._frames.pop().dropped + 1
        self._frames.append(
            VideoFrame(pixels=pixels, number=self.total, seconds=came, time=wall, dropped=self._dropped)
        )
        self._dropped = 0
        self.total += 1
        self._changed.notify_all()


def _read(capture: Any, live: Live) -> NDArray[np.uint8] | None:
    """The next frame that can be decoded; None at the end, or where nothing came."""
    until = live.clock() + live.timeout / 2
    for _ in range(_BAD_FRAMES):
        got, pixels = capture.read()
        if got:
            return np.asarray(pixels)
        if live.clock() >= until:  # It waited: there was nothing to decode.
            break
    return None


def _count(capture: Any) -> int:
    """Frames that the header names; 0 or less where there is none."""
    return int(capture.get(_opencv().CAP_PROP_FRAME_COUNT))


@contextmanager
def _silent_decoder() -> Iterator[None]:
    """Keep OpenCV's and FFmpeg's own lines off standard error; what matters in them is in our errors."""
    # FFmpeg's logging is set up once, when the first capture is opened; -8 is its AV_LOG_QUIET.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    log = _opencv().utils.logging
    level = log.setLogLevel(log.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        log.setLogLevel(level)


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise missing("cv2", purpose="which reads videos and cameras") from error
    return cv2


def _open(name: str, timeout: float) -> Any:
    cv2 = _opencv()
    camera = _CAMERA.fullmatch(name) or _DEVICE.fullmatch(name)
    if not is_live(name) and not Path(name).is_file():
        raise ImageError(f"{name}: there is no such file.")
    if camera is None and is_live(name):
        limit = max(1, int(timeout * 1000))
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit, cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit]
        capture = cv2.VideoCapture(name, cv2.CAP_ANY, limits)
    else:
        capture = cv2.VideoCapture(int(camera[1]) if camera else name)
    if not capture.isOpened():
        capture.release()
        what = "camera" if camera else "stream" if is_live(name) else "video"
        raise ImageError(
            f"{name}: the {what} cannot be opened; is it there, free, and of a kind that OpenCV reads?"
        )
    return capture
