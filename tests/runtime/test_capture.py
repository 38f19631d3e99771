"""Images worth a label are kept: few, unlike, whole after a power cut; and what goes wrong never stops the answers."""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edgetl.errors import ConfigError
from edgetl.files import sha256_bytes
from edgetl.inputs.looks import thumbnail
from edgetl.records import captured
from edgetl.records.captured import LINES, CapturedImage
from edgetl.runtime import capture as module
from edgetl.runtime.capture import HOUR_S, RETRY_S, WAITING, Capture, Capturer, Worth
from edgetl.runtime.inputs import open_source, predict_all
from edgetl.runtime.session import Channels, Picture, load
from edgetl.runtime.stream import Shown
from edgetl.tasks.base import TaskSpec
from tests.bundles import SPEC
from tests.cli.typed import edgetl as typed
from tests.runtime.scenes import encoded, scene, watched_bundle, write_scenes
from tests.runtime.test_confidence import sure
from tests.runtime.test_tasks import COLOURS, TASKS, linear_bundle

NOON = 1_800_000_000.0


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def worth(pixels: NDArray[np.uint8], score: float = 0.4) -> Worth:
    return Worth(
        reasons=("unsure",),
        answer=f"red {score:.1%}",
        label="red",
        score=score,
        kind="thumbnail",
        vector=thumbnail(pixels),
    )


def offered(capturer: Capturer, picture: Picture | None, seed: int = 0, channels: Channels = "rgb") -> bool:
    """Offer a scene, as that picture."""
    pixels = scene(seed)
    return capturer.offer(
        Shown(encoded(pixels) if picture is None else picture, channels, f"scene {seed}"), worth(pixels)
    )


def started(settings: Capture, clock: Callable[[], float] | None = None) -> Capturer:
    return Capturer(
        settings, SPEC, bundle="flowers", variant="fp32", clock=clock or Clock(), wall=lambda: NOON
    )


def settle(capturer: Capturer) -> None:
    """Wait until nothing waits to be written."""
    for _ in range(10_000):
        if not capturer._waiting_bytes:
            return
        time.sleep(0.001)
    pytest.fail("the writer hangs")


def kept(folder: Path) -> list[CapturedImage]:
    """What the folder's lines say, each checked against its picture."""
    found, broken = captured.read((folder / LINES).read_bytes().splitlines())
    assert not broken
    for image in found:
        content = (folder / image.file).read_bytes()
        assert sha256_bytes(content) == image.sha256
        Image.open(io.BytesIO(content)).load()
    return found


def test_an_image_is_kept_with_what_was_answered(tmp_path: Path) -> None:
    capturer = started(Capture(tmp_path / "new" / "kept"))
    assert offered(capturer, None)
    capturer.close()
    [image] = kept(tmp_path / "new" / "kept")
    assert image.file.startswith("20270115T080000-")
    assert image.time == "2027-01-15T08:00:00.000Z"
    assert (image.reasons, image.label, image.score) == (("unsure",), "red", 0.4)
    assert (image.source, image.bundle, image.variant) == ("scene 0", "flowers", "fp32")
    state = capturer.state()
    assert (state.kept, state.dropped, state.failed, state.warning) == (1, 0, 0, "")
    assert state.size_bytes == sum(path.stat().st_size for path in (tmp_path / "new" / "kept").iterdir())
    assert state.sentence == f"Kept 1 image in {tmp_path / 'new' / 'kept'}."


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
def test_a_files_own_bytes_are_kept(kind: str, tmp_path: Path) -> None:
    capturer = started(Capture(tmp_path / "kept"))
    first, second = encoded(scene(0), kind), encoded(scene(1), kind)
    (tmp_path / "a").write_bytes(second)
    assert offered(capturer, first, 0)
    assert offered(capturer, tmp_path / "a", 1)
    (tmp_path / "a").unlink()  # as a folder that is watched does
    capturer.close()
    suffix = {"JPEG": ".jpg", "PNG": ".png", "BMP": ".bmp"}[kind]
    found = kept(tmp_path / "kept")
    assert [(tmp_path / "kept" / image.file).read_bytes() for image in found] == [first, second]
    assert {Path(image.file).suffix for image in found} == {suffix}


def test_arrays_become_png_as_they_were_when_offered(tmp_path: Path) -> None:
    capturer = started(Capture(tmp_path))
    frame = scene(0)[..., ::-1].copy()
    assert offered(capturer, frame, 0, "bgr")
    frame[:] = 0  # as a camera's buffer is
    assert offered(capturer, Image.fromarray(scene(1)), 1)
    assert offered(capturer, scene(2)[..., 1].astype(np.uint16) * 257, 2)
    capturer.close()
    colour, second, grey = (np.asarray(Image.open(tmp_path / image.file)) for image in kept(tmp_path))
    assert (colour == scene(0)).all()
    assert (second == scene(1)).all()
    assert np.abs(grey[..., 0].astype(int) - scene(2)[..., 1]).max() <= 1


def test_no_two_are_alike_also_after_a_restart(tmp_path: Path) -> None:
    settings = Capture(tmp_path)
    first = started(settings)
    assert [offered(first, None, seed) for seed in (0, 1, 0, 2)] == [True, True, False, True]
    darker = (scene(0) * 0.8).astype(np.uint8)
    assert not first.offer(Shown(encoded(darker), "rgb", ""), worth(darker)), (
        "light alone is no other picture"
    )
    first.close()
    again = started(settings)
    assert [offered(again, None, seed) for seed in (0, 1, 2, 3)] == [False, False, False, True]
    again.close()
    assert again.state().alike == 3
    assert len(kept(tmp_path)) == 4


def test_plain_pictures_are_alike(tmp_path: Path) -> None:
    capturer = started(Capture(tmp_path))
    found = []
    for level in (0, 90, 255):
        plain = np.full((40, 40, 3), level, np.uint8)
        found.append(capturer.offer(Shown(plain, "rgb", ""), worth(plain)))
    capturer.close()
    assert found == [True, False, False]


def test_an_hour_has_its_share(tmp_path: Path) -> None:
    clock = Clock()
    capturer = started(Capture(tmp_path, per_hour=3), clock)
    taken = []
    for at in range(12):
        clock.now = at * HOUR_S / 4
        taken += [offered(capturer, None, 2 * at + k) for k in (0, 1)]
        settle(capturer)
    capturer.close()
    times = [at // 2 * HOUR_S / 4 for at, took in enumerate(taken) if took]
    for start in range(len(times)):
        assert sum(times[start] <= one < times[start] + HOUR_S for one in times) <= 3
    assert len(times) == 9
    assert capturer.state().over_rate == 24 - 9


def test_a_slow_disk_never_holds_a_prediction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    going, said = threading.Event(), list[str]()
    write = module._write_file

    def slow(folder: Path, name: str, content: bytes) -> None:
        going.wait(20)
        write(folder, name, content)

    monkeypatch.setattr(module, "_write_file", slow)
    capturer = started(Capture(tmp_path, per_hour=1000, say=said.append))
    taken = [offered(capturer, None, seed) for seed in range(WAITING + 6)]
    assert sum(taken) <= WAITING + 1
    assert capturer.state().dropped == len(taken) - sum(taken) >= 5
    going.set()
    capturer.close()
    assert len(kept(tmp_path)) == sum(taken) == capturer.state().kept
    assert len(said) == 1
    assert "came faster than" in said[0]
    assert "dropped, since they came faster" in capturer.state().sentence


def test_large_arrays_do_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    going = threading.Event()
    monkeypatch.setattr(module, "_write_file", lambda *_: going.wait(20))
    monkeypatch.setattr(module, "WAITING_BYTES", 100)
    capturer = started(Capture(tmp_path, say=lambda _: None))
    assert offered(capturer, scene(0), 0), "one may always wait"
    assert not offered(capturer, scene(1), 1)
    going.set()
    capturer.close()
    assert capturer.state().dropped == 1


def test_a_full_folder_is_one_warning(tmp_path: Path) -> None:
    clock, said = Clock(), list[str]()
    size = len(encoded(scene(0)))
    capturer = started(Capture(tmp_path, limit_mb=2.7 * size / (1 << 20), say=said.append), clock)
    for seed in range(4):
        offered(capturer, None, seed)
        settle(capturer)
    assert capturer.state().kept in (1, 2)
    assert len(said) == 1
    assert "and may hold" in said[0]
    assert "move some away, or raise the limit" in said[0]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2.7 * size
    for path in tmp_path.iterdir():
        path.unlink()
    clock.now += RETRY_S
    assert offered(capturer, None, 9), "room was made"
    capturer.close()
    assert len(kept(tmp_path)) == 1
    assert len(said) == 1


def test_a_folder_that_vanishes_is_one_warning_and_not_made_again(tmp_path: Path) -> None:
    clock, said, folder = Clock(), list[str](), tmp_path / "disk"
    capturer = started(Capture(folder, say=said.append), clock)
    offered(capturer, None, 0)
    settle(capturer)
    shutil.rmtree(folder)
    for seed in range(1, 5):
        offered(capturer, None, seed)
        settle(capturer)
        clock.now += RETRY_S
    assert not folder.exists()
    folder.mkdir()
    assert offered(capturer, None, 7)
    capturer.close()
    assert len(kept(folder)) == 1
    assert len(said) == 1
    assert "cannot be written (no such file or folder)" in said[0]
    assert capturer.state().warning == said[0]
    assert capturer.state().failed == 4


def test_a_read_only_folder_is_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = list[str]()

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "_write_file", refuse)
    capturer = started(Capture(tmp_path, say=said.append))
    for seed in range(3):
        offered(capturer, None, seed)
        settle(capturer)
    capturer.close()
    assert len(said) == 1
    assert "cannot be written (permission denied), so no images are kept for now. Check its owner" in said[0]


def test_a_place_where_no_folder_can_be_made_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("x")
    with caplog.at_level(logging.WARNING):
        capturer = started(Capture(tmp_path / "file" / "kept"))
        assert not offered(capturer, None)
        capturer.close()
    assert len(caplog.records) == 1
    assert "a file stands where a folder was expected" in caplog.text


def test_a_torn_line_costs_itself_alone(tmp_path: Path) -> None:
    first = started(Capture(tmp_path))
    offered(first, None, 0)
    first.close()
    with (tmp_path / LINES).open("ab") as file:
        file.write(b'{"file": "x.png", "sha2')  # the power went
    again = started(Capture(tmp_path))
    offered(again, None, 1)
    again.close()
    found, broken = captured.read((tmp_path / LINES).read_bytes().splitlines())
    assert (len(found), broken) == (2, 1)


def test_what_was_left_unfinished_goes(tmp_path: Path) -> None:
    old, new = tmp_path / ".a.png.captured.tmp", tmp_path / ".b.png.captured.tmp"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (NOON - 2 * HOUR_S,) * 2)
    os.utime(new, (NOON - 1,) * 2)
    started(Capture(tmp_path)).close()
    assert not old.exists()
    assert new.exists(), "another process may be writing it"


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    said = list[str]()
    capturer = started(Capture(tmp_path, say=said.append))
    offered(capturer, None)
    capturer.close()
    assert list(tmp_path.iterdir()) == []
    assert "no space left on the device" in said[0]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"limit_mb": 0.0}, r"^capture: the limit is 0 MiB, expected more than 0\.$"),
        ({"per_hour": 0}, r"^capture: 0 images an hour are asked for, expected at least 1\.$"),
        ({"below": 1.5}, r"^capture: below is 1\.5, expected a number in 0\.\.1\.$"),
        ({"coverage": 1.0}, r"^capture: coverage is 1, expected a share above 0 and below 1\.$"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    wrong: dict[str, float], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Capture(tmp_path, **wrong)  # type: ignore[arg-type]


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    with pytest.raises(ConfigError, match=r"^capture: .*a is a file; name a folder\.$"):
        Capture(tmp_path / "a")


# --- in a session -------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_every_way_to_predict_keeps_what_it_is_not_sure_of(task: TaskSpec, tmp_path: Path) -> None:
    path = linear_bundle(tmp_path, task)
    files = write_scenes(tmp_path / "files", 6)
    for name, predict in (
        ("one", lambda session: [session.predict(one) for one in sorted(files.iterdir())]),
        ("many", lambda session: session.predict(sorted(files.iterdir()))),
        ("folder", lambda session: list(predict_all(session, open_source([str(files)])))),
        ("arrays", lambda session: session.predict([scene(at) for at in range(6)])),
        ("explained", lambda session: session.predict([scene(at) for at in range(6)], explain=True)),
    ):
        settings = Capture(tmp_path / name, below=1.0, per_hour=4)
        with load(path, threads=1, capture=settings) as session:
            predict(session)
        assert session.captured.kept == 4, name
        found = kept(tmp_path / name)
        assert {image.reasons for image in found} == {("unsure",)}
        if name in ("one", "many", "folder"):
            assert Path(found[0].source).parent == files
            assert (tmp_path / name / found[0].file).read_bytes() == Path(found[0].source).read_bytes()
    with load(path, threads=1, capture=Capture(tmp_path / "none", below=0.0)) as session:
        session.predict([scene(at) for at in range(6)])
        assert session.captured.kept == 0


def test_sets_of_labels_say_what_is_unsure(tmp_path: Path) -> None:
    path = linear_bundle(tmp_path, COLOURS, confidence=sure(COLOURS))
    with load(path, threads=1, capture=Capture(tmp_path / "kept", below=0.0, coverage=0.98)) as session:
        answers = session.predict([scene(at) for at in range(8)], coverage=0.98)
    several = sum(len(one.possible or ()) > 1 for one in answers)
    assert several
    assert session.captured.kept + session.captured.alike + session.captured.dropped == several


def test_images_that_show_a_drift_are_kept(tmp_path: Path) -> None:
    path = watched_bundle(tmp_path)
    settings = Capture(tmp_path / "kept", below=0.0)
    with load(path, threads=1, drift=True, capture=settings) as session:
        session.predict([scene(at) for at in range(60)])
        assert session.captured.kept == 0
        session.predict([scene(at, light=0.4) for at in range(100, 160)])
        assert session.drift.drifted
    assert {image.reasons for image in kept(tmp_path / "kept")} == {("drifted",)}


def test_a_session_goes_on_without_its_folder(tmp_path: Path) -> None:
    said = list[str]()
    settings = Capture(tmp_path / "kept", below=1.0, say=said.append)
    with load(linear_bundle(tmp_path, COLOURS), threads=1, capture=settings) as session:
        shutil.rmtree(tmp_path / "kept")
        answers = session.predict([scene(at) for at in range(10)])
    assert len(answers) == 10
    # A further sentence may say how many came too fast: that depends on the disk.
    assert sum("cannot be written" in sentence for sentence in said) == 1
    with (
        load(tmp_path / "b.edgetl", threads=1) as session,
        pytest.raises(ConfigError, match=r"load it with capture=Capture\(FOLDER\)\.$"),
    ):
        _ = session.captured


def test_the_command_keeps_images(tmp_path: Path) -> None:
    path, files = linear_bundle(tmp_path, COLOURS), write_scenes(tmp_path / "files", 20)
    words = ("predict", path, files, "--capture", tmp_path / "kept")
    done = typed(*words, "--capture-per-hour", "3", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 20
    assert "Kept " in done.stderr
    assert f"in {tmp_path / 'kept'}" in " ".join(done.stderr.split())
    assert 0 < len(kept(tmp_path / "kept")) <= 3
    done = typed(*words, "--capture-mb", "-1")
    assert done.returncode == 2
    assert "capture: the limit is -1 MiB, expected more than 0." in " ".join(done.stderr.split())
    done = typed("predict", path, files, "--capture", path)
    assert done.returncode == 2
    assert "is a file; name a folder." in " ".join(done.stderr.split())


def test_unknown_images_are_kept(tmp_path: Path) -> None:
    path = linear_bundle(tmp_path, COLOURS)
    with load(path, threads=1, capture=Capture(tmp_path / "kept", below=0.0)) as session:
        seen = session.see(scene(0))
        plain = session.answer(seen)
        assert session.watch is not None
        for unknown in (None, False, True):
            session.watch.take(session, seen, replace(plain, unknown=unknown))
    assert [image.reasons for image in kept(tmp_path / "kept")] == [("unknown",)]
