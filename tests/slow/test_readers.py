"""Who else reads the models: ONNX Runtime Web under Node, OpenCV's DNN module, MNN and ncnn, each held to ONNX Runtime.

`pytest -m slow -s tests/slow/test_readers.py` prints the table that `edgetl guide deploy` has. The readers come with
the extra `bench`; ONNX Runtime Web is fetched by npm into `.cache/readers`. What is not there is skipped. Each reader
runs in a process of its own, since some of them end it. Weights are random, see `lively`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from edgetl.config import Target
from edgetl.export.bake import bake_preprocess
from edgetl.export.half_weights import store_half
from edgetl.export.onnx import to_onnx
from edgetl.inputs.image import PreprocessSpec
from edgetl.models.backbones import create
from edgetl.quantize.compact import compact
from edgetl.quantize.graph import Graph
from edgetl.quantize.plan import make_plan
from edgetl.quantize.targets import rules_for
from edgetl.quantize.weight_only import store_int8
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from edgetl.tasks.base import LOGITS, Classification
from tests.slow.test_export_coverage import LABELS, images, lively
from tests.slow.test_litert_coverage import integers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
WEB = Path(".cache/readers")
WEB_VERSION = "1.30.0"
SIZE, SECONDS = 64, 300
FLOAT, INTEGERS = 1e-4, 0.1
"""Allowed differences of logits, relative to the largest."""
NETWORKS = ("efficientnet_lite0", "mobilenetv3_small_050")

OPENCV = """
import sys, cv2, numpy as np
model, source, result = sys.argv[1:]
network = cv2.dnn.readNetFromONNX(model)
rows = []
for image in np.load(source):
    network.setInput(np.ascontiguousarray(image[None]))
    rows.append(network.forward().reshape(1, -1))
np.save(result, np.concatenate(rows))
"""
# MNN.tools is left alone: it installs packages.
MNN = """
import sys, numpy as np, _tools
model, source, result = sys.argv[1:]
converted = model + ".mnn"
_tools.mnnconvert(
    ["mnnconvert", "-f", "ONNX", "--modelFile", model, "--MNNModel", converted, "--bizCode", "test"]
)
import MNN
network = MNN.nn.load_module_from_file(converted, [], [])
rows = []
for image in np.load(source)[:, None]:
    kind = MNN.expr.uint8 if image.dtype == np.uint8 else MNN.expr.float
    given = MNN.expr.const(image, list(image.shape), MNN.expr.NCHW, kind)
    found = network.forward([given])
    found = found[0] if isinstance(found, (list, tuple)) else found
    rows.append(np.array(MNN.expr.convert(found, MNN.expr.NCHW).read(), np.float32).reshape(1, -1))
np.save(result, np.concatenate(rows))
"""
NCNN = """
import subprocess, sys, numpy as np, ncnn, pnnx
model, source, result = sys.argv[1:]
images = np.load(source)
kind = "u8" if images.dtype == np.uint8 else "f32"
shape = ",".join(str(length) for length in (1, *images.shape[1:]))
names = ("ncnnparam", "ncnnbin", "ncnnpy", "pnnxparam", "pnnxbin", "pnnxpy", "pnnxonnx")
files = {name: f"{model}.{name}" for name in names}
done = subprocess.run(
    [pnnx.EXEC_PATH, model, f"inputshape=[{shape}]{kind}", "fp16=0", *(f"{k}={v}" for k, v in files.items())],
    capture_output=True,
    text=True,
)
if done.returncode:
    sys.exit(f"pnnx: {done.stderr[-300:]}")
network = ncnn.Net()
for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
    setattr(network.opt, name, False)
if network.load_param(files["ncnnparam"]) or network.load_model(files["ncnnbin"]):
    sys.exit("ncnn cannot load what pnnx made")
rows = []
for image in images:
    run = network.create_extractor()
    run.input(network.input_names()[0], ncnn.Mat(np.ascontiguousarray(image)).clone())
    code, found = run.extract(network.output_names()[0])
    if code:
        sys.exit(f"ncnn ends with {code}")
    rows.append(np.array(found, np.float32).reshape(1, -1))
np.save(result, np.concatenate(rows))
"""
ONNXRUNTIME_WEB = """
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
const [home, model, source, result, shape, type] = process.argv.slice(2);
const ort = createRequire(home + "/here.js")("onnxruntime-web");
ort.env.wasm.numThreads = 1;
const bytes = readFileSync(source);
const values = type === "uint8"
  ? new Uint8Array(bytes) : new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
const session = await ort.InferenceSession.create(readFileSync(model), { executionProviders: ["wasm"] });
const images = new ort.Tensor(type, values, shape.split(",").map(Number));
const found = (await session.run({ [session.inputNames[0]]: images }))[session.outputNames[0]];
writeFileSync(result, Buffer.from(found.data.buffer, found.data.byteOffset, found.data.byteLength));
"""


class RefusedError(Exception):
    """A reader takes no such model."""


@dataclass(frozen=True)
class Form:
    """A model as it may ship, what it is given, and what ONNX Runtime makes of that."""

    name: str
    file: Path
    images: Path
    expected: NDArray[np.float32]


Reader = Callable[[Form, Path], NDArray[np.float32]]


def in_python(script: str) -> Reader:
    """A reader that is a Python package."""

    def read(form: Form, folder: Path) -> NDArray[np.float32]:
        result = folder / "result.npy"
        run([sys.executable, "-c", script, str(form.file), str(form.images), str(result)])
        found: NDArray[np.float32] = np.load(result)
        return found

    return read


def in_node(form: Form, folder: Path) -> NDArray[np.float32]:
    """ONNX Runtime Web, in WebAssembly."""
    given = np.load(form.images)
    script, source, result = folder / "read.mjs", folder / "given.raw", folder / "result.raw"
    script.write_text(ONNXRUNTIME_WEB)
    given.tofile(source)
    shape = ",".join(map(str, given.shape))
    files = [str(file) for file in (form.file, source, result)]
    run(["node", str(script), str(WEB.resolve()), *files, shape, given.dtype.name])
    return np.fromfile(result, np.float32).reshape(form.expected.shape)


READERS: dict[str, Reader] = {
    "ONNX Runtime Web": in_node,
    "OpenCV": in_python(OPENCV),
    "MNN": in_python(MNN),
    "ncnn": in_python(NCNN),
}
FORMS = ("fp32", "fp32-half-weights", "fp32-int8-weights", "fp32-uint8", "int8-cpu-x86")
REFUSED = {
    ("MNN", "int8-cpu-x86"),
    ("ncnn", "int8-cpu-x86"),
    ("ncnn", "fp32-uint8"),
}
WRONG = {("OpenCV", "mobilenetv3_small_050", "int8-cpu-x86")}
"""Read without a word, and computed wrong."""


def run(command: list[str]) -> None:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise RefusedError(said[-1][:200] if said else f"it ends with {done.returncode}")


def why_absent(reader: str) -> str:
    """Why a reader cannot be had here; "" where it can."""
    packages = {"OpenCV": ("cv2",), "MNN": ("MNN", "_tools"), "ncnn": ("ncnn", "pnnx")}
    if reader in packages:
        absent = [name for name in packages[reader] if find_spec(name) is None]
        return f"{', '.join(absent)} is not installed: pip install edgetl[bench]" if absent else ""
    if (WEB / "node_modules" / "onnxruntime-web").is_dir():
        return ""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "node and npm are not there"
    WEB.mkdir(parents=True, exist_ok=True)
    (WEB / "package.json").write_text(json.dumps({"private": True}))
    done = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", f"onnxruntime-web@{WEB_VERSION}"],
        cwd=WEB,
        capture_output=True,
        text=True,
        check=False,
    )
    return f"npm cannot fetch onnxruntime-web: {done.stderr.strip()[-200:]}" if done.returncode else ""


def forms_of(name: str, folder: Path) -> list[Form]:
    """A network in every form."""
    spec, given = PreprocessSpec(size=SIZE), images(SIZE, 8)
    pixels = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3)).astype(np.uint8)
    network = lively(create(name, len(LABELS), "none"), given)
    exported = to_onnx(network, task=Classification(labels=LABELS), spec=spec, opset=18)
    weighted = make_plan(Graph(exported), rules_for(Target.CPU_X86)).weighted
    models: dict[str, onnx.ModelProto] = {
        "fp32": exported,
        "fp32-half-weights": store_half(exported),
        "fp32-int8-weights": store_int8(Graph(exported), weighted),
        "fp32-uint8": bake_preprocess(exported, spec),
        "int8-cpu-x86": compact(integers(exported, Target.CPU_X86, given)),
    }
    assert tuple(models) == FORMS
    found = []
    for form, model in models.items():
        file, source = folder / f"{form}.onnx", folder / f"{form}.npy"
        file.write_bytes(model.SerializeToString())
        mine = pixels if form.endswith("uint8") else given[:4]
        np.save(source, mine)
        with OnnxBackend(file, threads=1) as backend:
            found.append(Form(form, file, source, backend.run(mine)[LOGITS]))
    return found


def read(reader: str, form: Form, folder: Path) -> NDArray[np.float32] | str:
    """What the reader makes of the images, or why it takes no such model."""
    try:
        return READERS[reader](form, folder)
    except RefusedError as error:
        return str(error)


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Form]]:
    return {name: forms_of(name, tmp_path_factory.mktemp("forms")) for name in NETWORKS}


@pytest.mark.parametrize("reader", READERS)
def test_what_it_takes(reader: str, forms: dict[str, list[Form]], tmp_path: Path) -> None:
    if reason := why_absent(reader):
        pytest.skip(f"{reader}: {reason}")
    print()
    for network, made in forms.items():
        for form in made:
            found = read(reader, form, tmp_path)
            if isinstance(found, str):
                print(f"{reader:18} {network:22} {form.name:18} refused: {found}", flush=True)
                assert (reader, form.name) in REFUSED, f"{network}, {form.name}: {found}"
                continue
            apart = float(np.abs(found - form.expected).max() / np.abs(form.expected).max())
            print(f"{reader:18} {network:22} {form.name:18} {apart:.0e}", flush=True)
            assert (reader, form.name) not in REFUSED, (
                f"{network}, {form.name} is read now: say so in the guide"
            )
            within = apart <= (INTEGERS if form.name.startswith("int8") else FLOAT)
            assert within is ((reader, network, form.name) not in WRONG), (
                f"{network}, {form.name}: {apart:.2g}"
            )
