"""Frames of videos, cameras and network streams, through OpenCV: the one place of the runtime that imports it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import ImageError
from edgetl.packages import missing

SUFFIXES = frozenset(
    {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".ts", ".mjpeg"}
)
"""Endings of files that are read as videos, whatever their case."""
_CAMERA = re.compile(r"camera:(\d+)")
_DEVICE = re.compile(r"/dev/video(\d+)")
_STREAM = re.compile(r"(rtsp|rtmp|http|https|udp)://")


def is_video(name: str) -> bool:
    """Whether a name is a video file's, a camera's (`camera:0`, `/dev/video0`) or a network stream's."""
    return is_live(name) or Path(name).suffix.lower() in SUFFIXES


def is_live(name: str) -> bool:
    """Whether a name is a camera's or a network stream's, which may have no end."""
    return any(pattern.match(name) for pattern in (_CAMERA, _DEVICE, _STREAM))


def frames(name: str) -> Iterator[NDArray[np.uint8]]:
    """The frames, each (H, W, 3) uint8 BGR; the device is given back at the end.

    Raises:
        ImageError: it cannot be opened or has no frames.
        MissingDependencyError: OpenCV is not installed.
    """
    capture, count = _open(name), 0
    try:
        while True:
            got, frame = capture.read()
            if not got:
                break
            count += 1
            yield frame
    finally:
        capture.release()
    if not count:
        raise ImageError(f"{name}: it gives no frames.")


def _open(name: str) -> Any:
    try:
        import cv2
    except ImportError as error:
        raise missing("cv2", purpose="which reads videos and cameras") from error
    camera = _CAMERA.fullmatch(name) or _DEVICE.fullmatch(name)
    if camera is None and not is_live(name) and not Path(name).is_file():
        raise ImageError(f"{name}: there is no such file.")
    log = cv2.utils.logging
    level = log.setLogLevel(log.LOG_LEVEL_SILENT)  # It would write its own complaints to standard error.
    try:
        capture = cv2.VideoCapture(int(camera[1]) if camera else name)
    finally:
        log.setLogLevel(level)
    if not capture.isOpened():
        capture.release()
        what = "camera" if camera else "stream" if is_live(name) else "video"
        raise ImageError(
            f"{name}: the {what} cannot be opened; is it there, free, and of a kind that OpenCV reads?"
        )
    return capture
