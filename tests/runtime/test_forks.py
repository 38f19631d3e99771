"""A session that a forked child inherits: it neither hangs at exit nor at use. Each case is a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgetl.bundle.pack import pack
from tests.bundles import contents, picture

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

PARENT = """
import os, sys, warnings
import edgetl
from edgetl.errors import EdgetlError, ForkError
warnings.simplefilter("ignore")  # Python warns of forks beside threads; this is about them.
bundle, image, engine, threads = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
session = edgetl.load(bundle, target=engine, threads=threads)
wanted = session.predict(image).label
several = session.outputs_of([image] * 50)
next(several)

def refused(work):
    try:
        work()
    except ForkError as error:
        assert "load i" in str(error) and "child" in str(error)
    else:
        raise SystemExit(3)
"""
END = """
assert session.predict(image).label == wanted  # The parent's own still works.
"""
CHILDREN = {
    "exits": "pass",
    "closes": "session.close(); session.close()",
    "drops it": "del session, several; import gc; gc.collect()",
    "predicts": "refused(lambda: session.predict(image)); refused(lambda: session.predict([image] * 3))",
    "goes on with a stream": "refused(lambda: list(several))",
    "loads its own": "assert edgetl.load(bundle, target=engine, threads=threads).predict(image).label == wanted",
    "is refused its own": "refused(lambda: edgetl.load(bundle, target=engine))",
    "forks again": "p = os.fork(); code = os.waitpid(p, 0)[1] if p else 0; sys.exit(1 if code else 0)",
}
FORK = """
child = os.fork()
if child == 0:
    {act}
    sys.exit(0)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
assert code == 0, code
"""
WORKERS = """
import multiprocessing

def work(number):
    {act}
    return number

context = multiprocessing.get_context("fork")
with context.Pool(2) as pool:
    assert pool.map(work, range(4)) == [0, 1, 2, 3]
one = context.Process(target=work, args=(0,))
one.start(); one.join()
assert one.exitcode == 0, one.exitcode
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("forks")
    pack(contents(folder), folder / "flowers.edgetl")
    (folder / "a.png").write_bytes(picture())
    return str(folder / "flowers.edgetl"), str(folder / "a.png")


def _runs(script: str, files: tuple[str, str], engine: str, threads: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PARENT + script + END, *files, engine, str(threads)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("act", [act for act in CHILDREN if act != "is refused its own"])
def test_a_forked_child(act: str, files: tuple[str, str]) -> None:
    _runs(FORK.format(act=CHILDREN[act]), files, "cpu", 2)


@pytest.mark.parametrize("act", ["closes", "predicts"])
def test_a_child_of_a_session_on_one_thread(act: str, files: tuple[str, str]) -> None:
    _runs(FORK.format(act=CHILDREN[act]), files, "cpu", 1)


@pytest.mark.parametrize("act", ["drops it", "predicts", "is refused its own"])
def test_a_child_of_a_session_on_openvino(act: str, files: tuple[str, str]) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    _runs(FORK.format(act=CHILDREN[act]), files, "openvino", 2)


@pytest.mark.parametrize("act", ["predicts", "loads its own"])
def test_workers_of_multiprocessing(act: str, files: tuple[str, str]) -> None:
    _runs(WORKERS.format(act=CHILDREN[act]), files, "cpu", 2)
