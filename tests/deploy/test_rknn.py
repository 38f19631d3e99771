"""Models for Rockchip's NPUs, with a toolkit that stands in for the vendor's: it computes in ONNX Runtime.

`EDGETL_RKNN_PYTHON` names a Python with the real one, for the test that is marked slow.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from edgetl.bundle.pack import pack
from edgetl.deploy.rknn import worker
from edgetl.deploy.rknn.convert import write_rknn
from edgetl.deploy.rknn.options import PYTHON_VARIABLE, Platform, RknnOptions
from edgetl.errors import BundleError, DataError, MissingDependencyError, ModelError, StorageError
from edgetl.inputs.image import Resize
from edgetl.inputs.spec import SoundSpec
from edgetl.progress import ProgressTask, SilentProgress
from tests.bundles import SPEC, contents, picture
from tests.cli.typed import edgetl

API = """
import json, sys
from pathlib import Path
import numpy as np
import onnxruntime as ort
from PIL import Image

class RKNN:
    def __init__(self, verbose): self.offset = {offset}
    def config(self, **how):
        self.how = how
        print("noise of the toolkit")
        return 0
    def load_onnx(self, **how):
        self.how |= how
        self.session = ort.InferenceSession(how["model"], providers=["CPUExecutionProvider"])
        return {loaded}
    def build(self, do_quantization, dataset):
        pictures = [np.asarray(Image.open(name)) for name in Path(dataset).read_text().splitlines()]
        self.how |= dict(int8=do_quantization, pictures=[list(p.shape) for p in pictures])
        return 0
    def export_rknn(self, path):
        Path(path).write_text(json.dumps(self.how))
        return 0
    def init_runtime(self): return 0
    def inference(self, inputs, data_format):
        assert data_format == ["nhwc"]
        mean, std = (np.array(self.how[k][0], np.float32) for k in ("mean_values", "std_values"))
        planes = ((inputs[0] - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
        found = self.session.run(self.how["outputs"], {{self.how["inputs"][0]: planes}})
        return [self.offset + each for each in found]
    def release(self): pass
"""


def toolkit(folder: Path, *, offset: str = "0.0", loaded: int = 0) -> Path:
    """A Python with a toolkit whose outputs are off by so much, or which refuses to load a model."""
    site = folder / "site"
    (site / "rknn").mkdir(parents=True)
    (site / "rknn" / "__init__.py").touch()
    (site / "rknn" / "api.py").write_text(API.format(offset=offset, loaded=loaded), encoding="utf-8")
    about = site / "rknn_toolkit2-2.5.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: rknn-toolkit2\nVersion: 2.5.0\n")
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{site}" exec "{sys.executable}" "$@"\n', encoding="utf-8")
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return python


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rknn")
    pack(contents(folder), folder / "flowers.edgetl")
    return folder / "flowers.edgetl"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for seed in range(7):
        (folder / f"{seed}.png").write_bytes(picture(seed))
    return folder


def test_the_toolkit_gets_pictures_and_their_scale_and_is_held_to_float32(
    bundle: Path, pictures: Path, tmp_path: Path
) -> None:
    options = RknnOptions(platform=Platform.RK3566, python=toolkit(tmp_path))
    record = write_rknn(bundle, [str(pictures)], options, tmp_path / "m.rknn")
    made = json.loads((tmp_path / "m.rknn").read_text())
    assert (made["target_platform"], made["int8"], len(made["pictures"])) == ("rk3566", True, 4)
    assert made["pictures"][0][2] == 3
    assert made["input_size_list"][0][1:] == [3, *made["pictures"][0][:2]]
    assert (record.toolkit, record.calibrated, record.compared, record.same) == (
        "rknn-toolkit2 2.5.0",
        4,
        3,
        1.0,
    )
    # What the stand-in computed is the network itself, so that scale and layout are right.
    assert record.max_error is not None
    assert record.max_error < 1e-4
    assert (record.reason, record.precision) == ("", "int8")
    assert record.sentence.startswith("Simulated, it agrees with float32")


@pytest.mark.parametrize(
    ("offset", "said"), [("9.0", "its largest error is"), ("float('nan')", "NaN or infinite")]
)
def test_a_simulation_that_is_off_is_said_and_exits_with_1(
    bundle: Path, pictures: Path, tmp_path: Path, offset: str, said: str
) -> None:
    python, out = toolkit(tmp_path, offset=offset), tmp_path / "m.rknn"
    done = edgetl("rknn", bundle, pictures, "--half", "--python", python, "-o", out)
    assert done.returncode == 1
    assert said in " ".join(done.stdout.split())
    assert "only the board can say" in " ".join(done.stdout.split())
    assert json.loads(out.read_text())["int8"] is False


def test_what_the_toolkit_refuses_is_one_error_with_its_last_words(
    bundle: Path, pictures: Path, tmp_path: Path
) -> None:
    options = RknnOptions(python=toolkit(tmp_path, loaded=-1))
    with pytest.raises(
        ModelError, match=r"did not convert the model \(exit code 1\).*load_onnx failed with code -1"
    ):
        write_rknn(bundle, [str(pictures)], options, tmp_path / "m.rknn")
    assert not (tmp_path / "m.rknn").exists()


def test_too_few_images(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(picture(1))
    with pytest.raises(DataError, match=r"needs three images or more.*there are 1"):
        write_rknn(bundle, [str(tmp_path)], RknnOptions(python=toolkit(tmp_path)), tmp_path / "m.rknn")


def test_a_model_of_sounds_is_refused(pictures: Path, tmp_path: Path) -> None:
    sounds = replace(SPEC, resize=Resize.SQUASH, sound=SoundSpec(rate=8000, seconds=1.0, high_hz=4000.0))
    pack(replace(contents(tmp_path), preprocess=sounds), tmp_path / "b.edgetl")
    with pytest.raises(BundleError, match=r"looks at sounds, and a \.rknn file is made for pictures"):
        write_rknn(tmp_path / "b.edgetl", [str(pictures)], RknnOptions(), tmp_path / "m.rknn")


def test_a_python_that_cannot_be_run(bundle: Path, pictures: Path, tmp_path: Path) -> None:
    python = toolkit(tmp_path)
    python.write_text('#!/bin/sh\n[ "$1" = -c ] && rm "$0"\n', encoding="utf-8")
    with pytest.raises(ModelError, match="cannot be run: "):
        write_rknn(bundle, [str(pictures)], RknnOptions(python=python), tmp_path / "m.rknn")


def test_a_file_that_cannot_be_written_is_said_before_the_toolkit_runs(
    bundle: Path, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    python = toolkit(tmp_path, loaded=-1)  # which would be another error
    with pytest.raises(StorageError, match=r"m\.rknn"):
        write_rknn(bundle, [str(pictures)], RknnOptions(python=python), tmp_path / "file" / "m.rknn")


def test_ctrl_c_stops_the_toolkit_and_leaves_nothing(bundle: Path, pictures: Path, tmp_path: Path) -> None:
    class Stopped(SilentProgress):
        @contextmanager
        def task(self, description: str, total: int) -> Iterator[ProgressTask]:
            class Stopping:
                def advance(self, count: int = 1, note: str = "") -> None:
                    raise KeyboardInterrupt

            with super().task(description, total) as silent:
                yield Stopping() if description.startswith("Converting") else silent

    python, begun = toolkit(tmp_path), time.monotonic()
    python.write_text(
        f'#!/bin/sh\n[ "$1" = -c ] && exit\necho "{worker.DONE}"\nexec sleep 60\n', encoding="utf-8"
    )
    with pytest.raises(KeyboardInterrupt):
        write_rknn(
            bundle, [str(pictures)], RknnOptions(python=python), tmp_path / "m.rknn", progress=Stopped()
        )
    assert time.monotonic() - begun < 30
    assert not list(tmp_path.glob("*.rknn*"))


def test_a_python_that_is_absent_or_has_no_toolkit(
    bundle: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(PYTHON_VARIABLE, raising=False)
    remedy = "pip install rknn-toolkit2, and name it: --python"
    said = {
        None: "rknn-toolkit2, in a Python of its own,",
        tmp_path / "none": "that has rknn-toolkit2",
        Path(sys.executable): "rknn-toolkit2 in the Python at",
    }
    for python, what in said.items():
        with pytest.raises(MissingDependencyError, match=f"{what}.*{remedy}"):
            write_rknn(bundle, [str(pictures)], RknnOptions(python=python), tmp_path / "m.rknn")
    toolkit(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(PYTHON_VARIABLE, "./python")  # the worker runs in another folder
    assert write_rknn(bundle, [str(pictures)], RknnOptions(), tmp_path / "m.rknn").same == 1.0


@pytest.mark.slow
def test_the_vendors_own_toolkit(bundle: Path, pictures: Path, tmp_path: Path) -> None:
    if not os.environ.get(PYTHON_VARIABLE):
        pytest.skip(f"{PYTHON_VARIABLE} names no Python that has rknn-toolkit2")
    for int8 in (True, False):
        record = write_rknn(bundle, [str(pictures)], RknnOptions(int8=int8), tmp_path / "m.rknn")
        print(record)
        assert record.size_bytes == (tmp_path / "m.rknn").stat().st_size
        assert record.max_error is not None
