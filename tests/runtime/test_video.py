"""Live sources and video files: what closes, falls silent, comes too fast, or is cut short."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetl.bundle.pack import pack
from edgetl.errors import ImageError, SourceError
from edgetl.runtime import Session, load
from edgetl.runtime.inputs import ImageResult, open_source, predict_all
from edgetl.runtime.video import Live, frames, utc
from tests.bundles import contents, picture
from tests.cameras import camera
from tests.cli.typed import hears_ctrl_c

cv2 = pytest.importorskip("cv2", reason="videos need: pip install 'edgetl[video]'")
PIXELS = np.zeros((30, 40, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("video")
    pack(contents(folder), folder / "flowers.edgetl")
    return folder / "flowers.edgetl"


@pytest.fixture(scope="module")
def session(bundle: Path) -> Iterator[Session]:
    with load(bundle, threads=1) as opened:
        yield opened


class Capture:
    """An OpenCV capture that gives so many frames, each after `pace` was let through, and then ends or hangs."""

    def __init__(self, count: float, pace: threading.Semaphore | None = None, hang: bool = False) -> None:
        self.left, self.pace, self.hang, self.released = count, pace, hang, threading.Event()

    def read(self) -> tuple[bool, Any]:
        if self.left <= 0:
            if self.hang:
                self.released.wait(10)
            return False, None
        if self.pace is not None:
            self.pace.acquire()
        self.left -= 1
        return True, PIXELS

    def get(self, _: int) -> float:
        return -1.0

    def release(self) -> None:
        self.released.set()


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now, self.slept = 100.0, list[float]()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def _results(session: Session, url: str, live: Live) -> tuple[list[ImageResult], str]:
    found: list[ImageResult] = []
    with pytest.raises(SourceError) as caught:
        found.extend(predict_all(session, open_source([url], live=live)))  # Extends as far as it comes.
    return found, str(caught.value)


def test_a_stream_that_closes_is_an_error_after_its_frames(session: Session) -> None:
    with camera(12) as url:
        results, message = _results(session, url, Live(timeout=5.0, every_frame=True))
    assert message == f"{url}: it closed after 12 frames. With --reconnect SECONDS it is opened again."
    assert [r.path for r in results] == [*(f"{url}#{n}" for n in range(12)), url]
    assert results[-1].error == message
    moments = [r.seconds for r in results[:-1]]
    assert moments == sorted(moments)  # type: ignore[type-var]
    assert all(r.prediction and r.time.endswith("Z") for r in results[:-1])


def test_a_stream_that_falls_silent_is_an_error(session: Session) -> None:
    with camera(12, silent=True) as url:
        results, message = _results(session, url, Live(timeout=0.7, every_frame=True))
    assert "it gave nothing for 0.7 s after 12 frames" in message
    assert len(results) == 13


def test_a_stream_that_gives_nothing_cannot_be_opened(session: Session) -> None:
    with camera(0, silent=True) as url:
        results, message = _results(session, url, Live(timeout=0.3))
    assert "the stream cannot be opened" in message
    assert [r.prediction for r in results] == [None]


def test_the_command_says_so_with_exit_code_2(bundle: Path) -> None:
    command = [sys.executable, "-m", "edgetl", "predict", str(bundle)]
    with camera(12, broken=True) as url:
        options = ["--json-lines", "--every-frame", "--timeout", "5"]
        done = subprocess.run([*command, url, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) > 6
    assert all(line["seconds"] >= 0 and line["time"] for line in lines[:-1])
    said = done.stderr.splitlines()
    assert said[0].startswith("Runs fp32")
    assert [line.startswith("Error: ") for line in said[1:]] == [True], (
        done.stderr
    )  # No line of the decoder's own.


@pytest.mark.parametrize("silent", [False, True])
def test_the_process_ends_in_order_beside_a_reading_thread(silent: bool, bundle: Path) -> None:
    command = [sys.executable, "-m", "edgetl", "predict", str(bundle)]
    options = ["--json-lines", "--timeout", "0.5" if silent else "30"]
    with (
        camera(5 if silent else 10**9, silent=silent) as url,
        subprocess.Popen(
            [*command, url, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=hears_ctrl_c,
        ) as process,
    ):
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["prediction"]
        if not silent:
            process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == (2 if silent else 130)
    assert said.splitlines()[-1].startswith("Error: " if silent else "Stopped.")
    assert len(said.splitlines()) <= 3  # What runs, perhaps a count of dropped frames, and the end.


def test_a_lost_source_is_opened_again() -> None:
    clock, said, opened = Clock(), list[str](), list[Capture]()

    def open_(name: str, _: float) -> Capture:
        if len(opened) in (1, 2):
            opened.append(Capture(0))
            raise ImageError(f"{name}: the camera cannot be opened.")
        opened.append(Capture(3 if len(opened) < 5 else 0))
        return opened[-1]

    live = Live(reconnect=4.0, every_frame=True, clock=clock, sleep=clock.sleep)
    came = []
    with pytest.raises(SourceError, match=r"it closed after 9 frames\. It did not come back for 4 s\."):
        came.extend(f.number for f in frames("camera:0", live, say=said.append, open_=open_))
    assert came == list(range(9))  # From three openings, counted on.
    assert len(said) == 3
    assert said[0] == "camera:0: it closed after 3 frames. It is tried again for 4 s."
    assert clock.slept[-4:] == [1.0] * 4
    assert all(
        capture.released.wait(5) for capture in opened if capture.left <= 0 and capture not in opened[1:3]
    )


def test_a_camera_whose_driver_hangs_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgetl.runtime.video._GRACE_SECONDS", 0.05)
    hanging = Capture(2, hang=True)
    live = Live(timeout=0.2, every_frame=True)
    came = frames("camera:0", live, open_=lambda *_: hanging)
    assert [next(came).number, next(came).number] == [0, 1]
    with pytest.raises(SourceError, match=r"it gave nothing for 0\.2 s after 2 frames"):
        next(came)
    hanging.released.set()


@pytest.mark.parametrize("every_frame", [False, True])
def test_a_slow_reader_gets_the_newest_frame_or_every_one(every_frame: bool) -> None:
    pace = threading.Semaphore(1)
    capture = Capture(21, pace)
    came = frames("camera:0", Live(every_frame=every_frame), open_=lambda *_: capture)
    first = next(came)
    pace.release(20)
    if every_frame:
        rest = []
        with pytest.raises(SourceError):
            rest.extend(came)
        assert [f.number for f in rest] == list(range(1, 21))
        assert {f.dropped for f in rest} == {0}
        return
    assert capture.released.wait(5)  # The source has ended: twenty frames came while nobody looked.
    last = next(came)
    assert (first.number, last.number, last.dropped) == (0, 20, 19)
    with pytest.raises(SourceError):
        next(came)


def test_dropped_frames_are_counted(session: Session) -> None:
    said: list[str] = []
    pace = threading.Semaphore(1)

    class Shown:
        def warning(self, text: str) -> None:
            said.append(text)

    capture = Capture(21, pace)
    items = frames("camera:0", open_=lambda *_: capture)

    def source() -> Iterator[Any]:
        from edgetl.runtime.inputs import Item

        for frame in items:
            yield Item("f", frame.pixels, "bgr", frame.seconds, frame.time, frame.dropped)
            pace.release(20)
            assert capture.released.wait(5)
            if frame.number:
                return

    from edgetl.runtime.inputs import Source

    results = list(predict_all(session, Source(items=source(), count=None, live=True), progress=Shown()))  # type: ignore[arg-type]
    assert [r.dropped for r in results] == [0, 19]
    assert said == ["19 of 21 frames came faster than they could be labelled and were dropped."]


def _clip(path: Path, count: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (40, 30))
    generator = np.random.default_rng(0)
    for _ in range(count):
        writer.write(generator.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    writer.release()
    return path


def test_a_file_has_every_frame_and_its_time(tmp_path: Path) -> None:
    clip = _clip(tmp_path / "clip.avi", 30)
    came = list(frames(str(clip)))
    assert [f.number for f in came] == list(range(30))
    assert [f.seconds for f in came] == pytest.approx([n / 10 for n in range(30)], abs=0.051)
    assert {(f.time, f.dropped) for f in came} == {("", 0)}


def test_a_file_cut_short_says_how_many_frames_are_missing(session: Session, tmp_path: Path) -> None:
    clip = _clip(tmp_path / "clip.avi", 60)
    content = clip.read_bytes()
    clip.write_bytes(content[: len(content) // 2])
    results = list(predict_all(session, open_source([str(clip)])))
    good = sum(r.prediction is not None for r in results)
    assert 20 <= good <= 40
    assert results[-1].error == (
        f"{clip}: its header names 60 frames and {good} came, {60 - good} are missing; "
        "the file is cut short or damaged."
    )
    assert (
        len(list(predict_all(session, open_source([str(clip)], limit=5)))) == 5
    )  # Nobody asked for the end.


def test_a_live_source_among_files(session: Session, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture())
    results, message = [], ""
    try:
        for result in predict_all(session, open_source(["camera:97", str(tmp_path / "a.png")])):
            results.append(result)
    except SourceError as error:
        message = str(error)
    assert "camera:97: the camera cannot be opened" in message
    assert [r.prediction is None for r in results] == [True, False]


def test_wall_clock_times_are_utc() -> None:
    assert utc(0.25) == "1970-01-01T00:00:00.250Z"
