"""What a device loads leaves nothing behind in the user's home and opens no connection."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from edgetl.bundle.pack import pack
from edgetl.quiet import ONNX_RUNTIME_SWITCH
from tests.bundles import contents, picture

# In one process: Python's own audit events, then what the process itself has open when it is done.
WATCH = """
import os, pathlib, sys, time
seen = []

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.bind", "socket.sendto"):
        seen.append((event, *map(str, arguments[1:])))
    elif event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        if arguments[0] != os.devnull:
            seen.append((event, str(arguments[0])))

sys.addaudithook(watch)
{code}
time.sleep(0.5)  # Reports are sent by threads.
fds = pathlib.Path("/proc/self/fd")
open_now = [os.readlink(fd) for fd in fds.iterdir() if fd.exists()] if fds.exists() else []
seen += [("still open", name) for name in open_now if "socket" in name or os.environ["HOME"] in name]
print(*seen, sep="\\n", file=sys.stderr)
"""
CODE = {
    "predict": """
sys.argv = ["edgetl", "predict", {bundle!r}, {image!r}, "--target", {target!r}, "--json"]
from edgetl.cli import process
try:
    process()
except SystemExit as end:
    assert not end.code, end.code
""",
    "doctor": """
sys.argv = ["edgetl", "doctor"]
from edgetl.cli import process
try:
    process()
except SystemExit as end:
    assert not end.code, end.code
""",
    "onnxruntime": "from edgetl.runtime.engines.onnxruntime import import_engine; import_engine()",
    "cv2": "import cv2",
    "PIL": "from PIL import Image; Image.init()",
    "rich": "import rich.console, rich.progress",
    "typer": "import typer",
    "cryptography": "from cryptography.hazmat.primitives.asymmetric import ed25519",
    "tensorrt": "import tensorrt",
    "tensorrt_rtx": "import tensorrt_rtx",
    "cuda": "from cuda.bindings import runtime",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("quiet")
    pack(contents(folder), folder / "flowers.edgetl")
    (folder / "a.png").write_bytes(picture())
    return {"bundle": str(folder / "flowers.edgetl"), "image": str(folder / "a.png")}


def _leaves(code: str, home: Path, **environment: str) -> tuple[list[str], list[str]]:
    """What the code wrote or connected to by Python's events, and the files that then lie in an empty home."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "SYSTEMROOT") if name in os.environ}
    places = {"HOME": str(home), "USERPROFILE": str(home), "LOCALAPPDATA": str(home)}
    done = subprocess.run(
        [sys.executable, "-B", "-c", WATCH.format(code=code)],
        env={**kept, **places, "XDG_CACHE_HOME": str(home / "cache"), **environment},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    events = [line for line in done.stderr.splitlines() if line.startswith("('")]
    return events, sorted(str(p.relative_to(home)) for p in home.rglob("*"))


@pytest.mark.parametrize("target", ["cpu", "openvino"])
def test_predict_leaves_nothing(target: str, files: dict[str, str], tmp_path: Path) -> None:
    if target == "openvino":
        pytest.importorskip("openvino", reason="OpenVINO is not installed")
    code = CODE["predict"].format(**files, target=target)
    assert _leaves(code, tmp_path) == ([], [])


def test_doctor_leaves_nothing(tmp_path: Path) -> None:
    assert _leaves(CODE["doctor"], tmp_path) == ([], [])


@pytest.mark.parametrize("package", [name for name in CODE if name not in ("predict", "doctor")])
def test_what_a_device_loads_leaves_nothing(package: str, tmp_path: Path) -> None:
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    assert _leaves(CODE[package], tmp_path) == ([], [])


def test_the_user_s_own_setting_of_the_switch_stays(tmp_path: Path) -> None:
    code = f"{CODE['onnxruntime']}; assert os.environ[{ONNX_RUNTIME_SWITCH!r}] == '0'"
    _leaves(code, tmp_path, **{ONNX_RUNTIME_SWITCH: "0"})


@pytest.mark.skipif(sys.platform == "win32", reason="the answer lies elsewhere there")
@pytest.mark.parametrize(("answer", "own"), [(None, False), ("0", True), ("1", True)])
def test_the_user_s_answer_to_openvino_stays(answer: str | None, own: bool, tmp_path: Path) -> None:
    if answer is not None:
        (tmp_path / "intel").mkdir()
        (tmp_path / "intel" / "openvino_telemetry").write_text(answer)
    code = (
        "from edgetl.quiet import quietly\n"
        "with quietly():\n"
        "    hidden = sys.modules.get('openvino_telemetry', 0) is None\n"
        f"assert hidden is {not own} and 'openvino_telemetry' not in sys.modules"
    )
    _leaves(code, tmp_path)
