"""What users name: globs, raw frames, videos, cameras; files and folders are in `test_evaluate`."""

from __future__ import annotations

import io
import itertools
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgetl.bundle.pack import pack
from edgetl.errors import ConfigError, DataError, ImageError, MissingDependencyError, SourceError
from edgetl.inputs.frame import Frame
from edgetl.runtime import Session, load
from edgetl.runtime.inputs import (
    FrameFormat,
    Source,
    find_images,
    has_end,
    open_source,
    parse_frame_format,
    predict_all,
)
from edgetl.runtime.video import frames, is_video
from tests.bundles import contents, picture


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    folder = tmp_path_factory.mktemp("inputs")
    pack(contents(folder), folder / "flowers.edgetl")
    with load(folder / "flowers.edgetl", threads=2) as opened:
        yield opened


FRAMES = np.random.default_rng(0).integers(0, 256, (5, 30, 40, 3), dtype=np.uint8)
FORMAT = FrameFormat(width=40, height=30)


class Pipe(io.RawIOBase):
    """Gives a few bytes at a time, as a pipe does."""

    def __init__(self, content: bytes) -> None:
        self._left = memoryview(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = min(len(buffer), 1000, len(self._left))
        buffer[:count], self._left = self._left[:count], self._left[count:]
        return count


def test_globs_match_images_alone(tmp_path: Path) -> None:
    for name in ("a.png", "b.jpg", "c.txt", "deep/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(picture())
    assert [p.name for p in find_images([str(tmp_path / "*")])] == ["a.png", "b.jpg"]
    assert [p.name for p in find_images([str(tmp_path / "**" / "*.png")])] == ["a.png", "d.png"]
    with pytest.raises(DataError, match=r"No image matches .*\*\.gif"):
        find_images([str(tmp_path / "*.gif")])


def test_a_file_with_brackets_in_its_name_is_no_glob(tmp_path: Path) -> None:
    (tmp_path / "a[1].png").write_bytes(picture())
    assert find_images([str(tmp_path / "a[1].png")]) == (tmp_path / "a[1].png",)


def test_raw_frames_come_from_a_pipe(session: Session) -> None:
    source = open_source(["-"], frame_format=FORMAT, stdin=Pipe(FRAMES.tobytes()))
    results = list(predict_all(session, source))
    assert [r.path for r in results] == [f"frame#{i}" for i in range(5)]
    assert [r.prediction for r in results] == session.predict(FRAMES)


def test_raw_frames_may_be_bgr(session: Session) -> None:
    form = FrameFormat(width=40, height=30, channels="bgr")
    source = open_source(["-"], frame_format=form, stdin=io.BytesIO(FRAMES[..., ::-1].tobytes()))
    assert [r.prediction for r in predict_all(session, source)] == session.predict(FRAMES)


def test_a_cut_frame_is_reported_after_the_whole_ones(session: Session) -> None:
    source = open_source(["-"], frame_format=FORMAT, stdin=Pipe(FRAMES.tobytes()[:-7]))
    results = list(predict_all(session, source))
    assert [r.prediction is None for r in results] == [False] * 4 + [True]
    assert results[-1].error == (
        "frame#4: standard input ended after 3593 of 3600 bytes; is a frame 40x30 pixels of three bytes?"
    )


def test_a_stream_of_no_frames_at_all_is_an_error(session: Session) -> None:
    with pytest.raises(ImageError, match=r"^Standard input ended before the first frame\.$"):
        list(predict_all(session, open_source(["-"], frame_format=FORMAT, stdin=Pipe(b""))))  # type: ignore[arg-type]


def test_what_is_wrong_with_a_picture_on_standard_input_names_it(session: Session) -> None:
    for content, why in ((b"", "the file is empty"), (picture(3)[:60], "is ")):
        with pytest.raises(ImageError, match=f"^standard input: {why}"):
            list(predict_all(session, open_source(["-"], stdin=io.BytesIO(content))))


def test_standard_input_without_a_format_is_one_image(session: Session) -> None:
    [result] = predict_all(session, open_source(["-"], stdin=io.BytesIO(picture(3))))
    assert (result.path, result.prediction) == ("standard input", session.predict(picture(3)))


class Endless(io.RawIOBase):
    """Starts like this, and goes on with zeros for ever."""

    def __init__(self, start: bytes) -> None:
        self._start = start

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        piece, self._start = self._start[: len(buffer)], self._start[len(buffer) :]
        buffer[:] = piece.ljust(len(buffer), b"\0")
        return len(buffer)


@pytest.mark.parametrize(
    ("start", "reason"), [(b"", "is not an image"), (picture(0)[:16], "more than 0 GiB are refused")]
)
def test_a_picture_without_end_is_one_that_cannot_be_read(
    session: Session, monkeypatch: pytest.MonkeyPatch, start: bytes, reason: str
) -> None:
    monkeypatch.setattr("edgetl.inputs.image.MAX_BYTES", 1 << 22)
    with pytest.raises(ImageError, match=reason):
        list(predict_all(session, open_source(["-"], stdin=Endless(start))))  # type: ignore[arg-type]


def test_a_named_pipe_is_read_as_a_file_is_and_a_device_no_further_than_its_start(
    session: Session, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(picture(3),))
    writer.start()
    pipe, device = predict_all(session, open_source([str(tmp_path / "pipe"), "/dev/zero"]))
    writer.join()
    assert pipe.prediction == session.predict(picture(3))
    assert "/dev/zero: is not an image" in device.error


def test_a_file_too_long_for_a_picture_is_refused_unread(
    session: Session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(picture(0))
    monkeypatch.setattr("edgetl.inputs.image.MAX_BYTES", 16)
    with pytest.raises(ImageError, match=r"a\.png: more than 0 GiB are refused"):
        list(predict_all(session, open_source([str(tmp_path / "a.png")])))


def test_a_stream_without_end_is_labelled_as_it_comes(session: Session) -> None:
    taken: list[int] = []

    def endless() -> Iterator[object]:
        for number in itertools.count():
            taken.append(number)
            yield from open_source(["-"], stdin=io.BytesIO(picture(number % 3))).items

    results = predict_all(session, Source(items=endless(), count=None))  # type: ignore[arg-type]
    first = next(results)
    assert first.prediction is not None
    assert len(taken) <= 6
    results.close()  # type: ignore[attr-defined]


def test_a_result_does_not_wait_for_many_later_frames(session: Session) -> None:
    taken, decoded = [], threading.Event()

    def slow() -> Iterator[int]:
        for number in range(8):
            taken.append(number)
            decoded.clear()
            yield number
            assert decoded.wait(10)
            time.sleep(0.05)  # Time for the model.

    def framed(_: int) -> tuple[np.ndarray, Frame]:
        decoded.set()
        return session.framed(picture())

    with load(session.bundle.path, threads=4) as opened:  # Eight frames would be taken ahead.
        next(iter(opened.seen(slow(), framed)))
    assert len(taken) < 6


@pytest.mark.parametrize("size", ["640", "640x", "axb", "640x480x3", "2x2", "99999x99999", "-4x8"])
def test_frame_sizes_are_checked(size: str) -> None:
    with pytest.raises(ConfigError, match="frame size: got "):
        parse_frame_format(size, "rgb")


def test_pixel_formats_are_checked() -> None:
    assert parse_frame_format("640x480", "bgr") == FrameFormat(width=640, height=480, channels="bgr")
    with pytest.raises(ConfigError, match="pixel format: got 'yuv', expected rgb or bgr"):
        parse_frame_format("640x480", "yuv")
    with pytest.raises(ConfigError, match="name - as the image"):
        open_source(["a.png"], frame_format=FORMAT)


def test_what_has_an_end() -> None:
    assert has_end(["a.jpg", "clip.mp4", "-"], None)
    assert not has_end(["camera:0"], None)
    assert not has_end(["rtsp://camera/1"], None)
    assert not has_end(["-"], FORMAT)
    assert [
        n for n in ("a.MP4", "camera:1", "/dev/video0", "http://x/y", "a.png", "camera") if is_video(n)
    ] == [
        "a.MP4",
        "camera:1",
        "/dev/video0",
        "http://x/y",
    ]


def test_without_opencv_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(
        MissingDependencyError,
        match=r"opencv-python-headless, which reads .*, is not available\. .*pip install opencv-python-headless",
    ):
        next(frames("camera:0"))


def test_a_video_s_frames_are_labelled_among_images(session: Session, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2", reason="videos need: pip install opencv-python-headless")
    clip = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*"MJPG"), 10, (40, 30))
    for frame in FRAMES:
        writer.write(frame)
    writer.release()
    (tmp_path / "a.png").write_bytes(picture())
    results = list(predict_all(session, open_source([str(clip), str(tmp_path / "a.png")])))
    assert [r.path for r in results] == [*(f"{clip}#{i}" for i in range(5)), str(tmp_path / "a.png")]
    decoded = [frame.pixels for frame in frames(str(clip))]
    assert [r.prediction for r in results[:5]] == [session.predict(f, channels="bgr") for f in decoded]
    assert list(predict_all(session, open_source([str(clip)], limit=2))) == results[:2]
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(ImageError, match=r"broken\.mp4: the video cannot be opened"):
        list(predict_all(session, open_source([str(tmp_path / "broken.mp4")])))
    with pytest.raises(ImageError, match=r"gone\.mp4: there is no such file"):
        next(frames(str(tmp_path / "gone.mp4")))
    with pytest.raises(SourceError, match=r"camera:97: the camera cannot be opened"):
        next(frames("camera:97"))
