"""A session that a forked child inherits: it neither hangs at exit nor at use. Each engine is a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgetl.bundle.pack import pack
from tests.bundles import contents, picture
from tests.runtime.test_litert import bundle_of, tflite

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
        assert "load " in str(error) and "child" in str(error)
    else:
        raise SystemExit(3)
"""
FORKS = """
import json, signal
for name, act in json.loads(sys.argv[5]).items():
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # One that hangs ends by a signal.
        exec(act)
        sys.exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == 0, (name, code)
"""
WORKERS = """
import multiprocessing

def work(act):
    exec(act, globals())
    return act

context = multiprocessing.get_context("fork")
acts = list(json.loads(sys.argv[6]).values())
with context.Pool(2) as pool:
    assert pool.map(work, acts) == acts
for act in acts:
    one = context.Process(target=work, args=(act,))
    one.start(); one.join()
    assert one.exitcode == 0, (act, one.exitcode)
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


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("forks")
    pack(contents(folder), folder / "flowers.edgetl")
    (folder / "a.png").write_bytes(picture())
    return str(folder / "flowers.edgetl"), str(folder / "a.png")


@pytest.mark.parametrize(
    ("engine", "threads", "acts", "workers"),
    [
        ("cpu", 2, [act for act in CHILDREN if act != "is refused its own"], ["predicts", "loads its own"]),
        ("cpu", 1, ["closes", "predicts"], []),
        ("openvino", 2, ["drops it", "predicts", "is refused its own"], []),
        ("litert", 2, ["exits", "drops it", "predicts", "loads its own"], []),
    ],
)
def test_forked_children(
    engine: str, threads: int, acts: list[str], workers: list[str], files: tuple[str, str], tmp_path: Path
) -> None:
    if engine == "openvino":
        pytest.importorskip("openvino", reason="OpenVINO is not installed")
    if engine == "litert":
        pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
        (folder := tmp_path / "litert").mkdir()
        files = str(bundle_of(folder, tflite(zero_point=0))), files[1]
    chosen = [json.dumps({name: CHILDREN[name] for name in names}) for names in (acts, workers)]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            PARENT + FORKS + (WORKERS if workers else "") + END,
            *files,
            engine,
            str(threads),
            *chosen,
        ],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
