"""Long life: memory stays flat over many predictions, also with eight threads on one session."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

import edgetl
from edgetl.bundle.pack import pack
from edgetl.cli.output import emit_lines
from edgetl.runtime.inputs import ImageResult, open_source, predict_all
from edgetl.runtime.video import Live
from tests.bundles import contents, picture
from tests.cameras import camera

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]

FRAMES = int(os.environ.get("EDGETL_SOAK_FRAMES", str(3600 * 30)))
"""An hour of thirty frames per second, as fast as they can be labelled."""
PREDICTIONS = int(os.environ.get("EDGETL_SOAK", "200000"))
WARM_UP = 0.1
"""Share of the predictions after which memory must not grow: arenas and buffers have their size by then."""


def resident_bytes() -> int:
    """What this process holds in memory now."""
    gc.collect()
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("soak")
    pack(contents(folder), folder / "b.edgetl")
    return folder / "b.edgetl"


def grow(work: Callable[[int], None], count: int, name: str) -> float:
    """Growth of memory after the warm-up, as a share, over `count` predictions in ten parts."""
    work(round(count * WARM_UP))
    before, part = resident_bytes(), round(count * (1 - WARM_UP) / 10)
    sizes = []
    for _ in range(10):
        work(part)
        sizes.append(resident_bytes())
    growth = max(sizes) / before - 1
    megabytes = ", ".join(f"{size / 1e6:.1f}" for size in (before, *sizes))
    print(f"\n{name}: {count} predictions, growth {growth:+.2%} ({megabytes} MB)")
    return growth


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_one_thread_keeps_its_memory(bundle: Path) -> None:
    inputs: list[object] = [picture(i, kind=("PNG", "JPEG")[i % 2]) for i in range(8)]
    inputs += [np.random.default_rng(i).integers(0, 256, (60 + i, 50, 3), dtype=np.uint8) for i in range(8)]
    with edgetl.load(bundle, threads=1) as session:
        expected = [session.predict(image) for image in inputs]  # type: ignore[call-overload]

        def work(count: int) -> None:
            for number in range(count):
                at = number % len(inputs)
                assert session.predict(inputs[at]) == expected[at]  # type: ignore[call-overload]

        assert grow(work, PREDICTIONS // 2, "one thread") < 0.01


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_eight_threads_on_one_session_keep_their_memory_and_their_answers(bundle: Path) -> None:
    inputs = [picture(i, kind=("PNG", "JPEG")[i % 2]) for i in range(8)]
    with edgetl.load(bundle, threads=2) as session:
        expected = [session.predict(image) for image in inputs]

        def work(count: int) -> None:
            wrong: list[int] = []

            def one(start: int) -> None:
                for number in range(start, start + count // 8):
                    if session.predict(inputs[number % 8]) != expected[number % 8]:
                        wrong.append(number)

            threads = [threading.Thread(target=one, args=(start,)) for start in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert wrong == []

        assert grow(work, PREDICTIONS // 2, "eight threads") < 0.01


def open_files() -> int:
    """File handles of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_opening_and_closing_leaves_nothing_behind(bundle: Path) -> None:
    handles = set[int]()

    def work(count: int) -> None:
        for _ in range(count):
            with edgetl.load(bundle, threads=2) as session:
                session.predict([picture(0), picture(1)])
        handles.add(open_files())

    assert grow(work, max(200, PREDICTIONS // 200), "opened sessions") < 0.02
    assert len(handles) == 1, f"file handles: {sorted(handles)}"
    assert threading.active_count() < 4


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("every_frame", [True, False])
def test_an_hour_of_a_stream_keeps_its_memory(bundle: Path, every_frame: bool) -> None:
    pytest.importorskip("cv2", reason="streams need: pip install 'edgetl[video]'")
    frames = FRAMES if every_frame else FRAMES * 2  # The server gives more than are taken.
    with edgetl.load(bundle, threads=1) as session, camera(frames, size=(320, 240)) as url:
        source = open_source([url], live=Live(every_frame=every_frame, timeout=60.0))
        results: Iterator[ImageResult] = predict_all(session, source)
        taken = FRAMES if every_frame else FRAMES // 4

        with Path(os.devnull).open("w") as sink:

            def work(count: int) -> None:
                emit_lines(islice(results, count), stream=sink)

            assert grow(work, taken, f"stream, every frame: {every_frame}") < 0.01
