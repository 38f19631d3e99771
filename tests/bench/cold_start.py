"""A fresh process to its first prediction, and its peak memory, against bare scripts; interleaved in one run.

It runs in ONNX Runtime and, where that is installed, in LiteRT, from a bundle of the same network for it alone.
The bare script imports numpy and onnxruntime, loads the same ONNX file and runs it on zeros: it decodes no image. The
second one also decodes and resizes the photograph with Pillow, as edgetl does. All start from compiled bytecode, as
installed packages do, whatever the environment or the checkout says.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx

from edgetl.bundle.archive import open_bundle
from edgetl.bundle.golden import GoldenSet
from edgetl.bundle.manifest import ModelFormat, Provenance
from edgetl.bundle.pack import Contents, VariantSource, pack
from edgetl.inputs.image import load_pixels, normalise
from edgetl.quiet import ONNX_RUNTIME_SWITCH
from edgetl.tasks.base import joined
from tests.bench.claims import Claim
from tests.bench.subjects import SMALL, Subject, photographs, subject

RUNS = int(os.environ.get("EDGETL_BENCH_STARTS", "25"))
OWN_NAME, LITERT = "edgetl", "edgetl, LiteRT"
AIMS = {OWN_NAME: (1.3, 1.2), LITERT: (0.8, None)}
"""Over the bare script on ONNX Runtime: time to the first prediction, and peak memory."""
PEAK = """
import edgetl.bench.memory as memory
print(memory.peak_memory_bytes())
"""
BARE = """
import numpy as np
import onnxruntime
session = onnxruntime.InferenceSession({model!r}, providers=["CPUExecutionProvider"])
session.run(None, {{"images": np.zeros((1, 3, {size}, {size}), np.float32)}})
"""
BARE_IMAGE = """
import numpy as np
import onnxruntime
from PIL import Image
session = onnxruntime.InferenceSession({model!r}, providers=["CPUExecutionProvider"])
image = Image.open({photo!r}).convert("RGB").resize(({size}, {size}))
images = (np.asarray(image, np.float32) / 255 - np.float32(0.45)) / np.float32(0.22)
session.run(None, {{"images": np.ascontiguousarray(images.transpose(2, 0, 1)[None])}})
"""
OWN = """
import edgetl
edgetl.load({bundle!r}).predict({photo!r})
"""


def run() -> Iterator[Claim]:
    """Yield the claims. `EDGETL_BENCH_STARTS` sets the starts of each script (default 25)."""
    with tempfile.TemporaryDirectory() as folder:
        what = subject(Path(folder))
        photo = Path(folder) / "photo.jpg"
        photo.write_bytes(photographs(1, SMALL)[0])
        bundles = {OWN_NAME: what.bundle}
        if find_spec("ai_edge_litert") is not None:
            bundles[LITERT] = _for_litert(what, Path(folder) / "litert.edgetl")
        scripts = {
            name: text.format(model=str(what.model), photo=str(photo), size=what.spec.size)
            for name, text in {"bare": BARE, "bare with an image": BARE_IMAGE}.items()
        } | {name: OWN.format(bundle=str(bundle), photo=str(photo)) for name, bundle in bundles.items()}
        environment = _compiled(Path(folder) / "bytecode")
        peaks = {name: _peak(script, environment) for name, script in scripts.items()}
        seconds = _starts(scripts, environment)
    yield from _claims(what, *seconds, peaks)


def _claims(
    what: Subject,
    seconds: dict[str, list[float]],
    processor: dict[str, list[float]],
    peaks: dict[str, int],
) -> Iterator[Claim]:
    yield Claim(name="the model", measured=what.name)
    if LITERT not in seconds:
        yield Claim(name=LITERT, measured="absent (pip install ai-edge-litert)")
    for own, (start, memory) in AIMS.items():
        if own not in seconds:
            continue
        for name in ("bare", "bare with an image"):
            aims = (start, memory) if name == "bare" else (None, None)
            ratio = statistics.median(b / a for a, b in zip(seconds[name], seconds[own], strict=True))
            yield _at_most(f"{own}: start to first prediction over {name}, median of pairs", ratio, aims[0])
            spent = statistics.median(processor[own]) / statistics.median(processor[name])
            # Steady where other programs take the cores; it does not see what runs side by side.
            yield _at_most(f"{own}: processor time to first prediction over {name}", spent, None)
            yield _at_most(f"{own}: peak memory over {name}", peaks[own] / peaks[name], aims[1])
    for name, values in seconds.items():
        measured = f"{statistics.median(values) * 1e3:.0f} ms, {peaks[name] / 1e6:.0f} MB"
        yield Claim(name=f"{name}: start to first prediction, peak memory", measured=measured)


def _for_litert(what: Subject, path: Path) -> Path:
    """The subject's bundle with a .tflite file in place of its model."""
    from edgetl.export.litert.convert import to_tflite
    from edgetl.runtime.engines.litert import LiteRtBackend

    model = to_tflite(onnx.load(what.model))
    opened = open_bundle(what.bundle)
    images = tuple(opened.golden_images())
    pixels = np.stack([load_pixels(image, what.spec) for image in images])
    with LiteRtBackend(model, threads=1) as backend:
        outputs = joined([backend.run(normalise(row[None], what.spec)) for row in pixels])
    source = VariantSource(
        name="litert",
        precision=opened.variant().precision,
        target="litert",
        model=model,
        format=ModelFormat.TFLITE,
    )
    contents = Contents(
        name=opened.manifest.name,
        task=opened.manifest.task,
        preprocess=what.spec,
        variants=[source],
        default=source.name,
        golden=GoldenSet(images=images, pixels=pixels, outputs={source.name: outputs}),
        provenance=Provenance(),
    )
    pack(contents, path)
    return path


def _at_most(name: str, value: float, aim: float | None) -> Claim:
    if aim is None:
        return Claim(name=name, measured=f"{value:.2f}x")
    return Claim(name=name, measured=f"{value:.2f}x", aim=f"<= {aim:g}x", holds=value <= aim)


def _compiled(folder: Path) -> dict[str, str]:
    """An environment in which the first start of a script compiles what it imports, into `folder`, for the others."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    # Without the engine's reports home, which edgetl turns off and a bare script would pay for.
    return {ONNX_RUNTIME_SWITCH: "1", **kept, "PYTHONPYCACHEPREFIX": str(folder)}


def _starts(
    scripts: dict[str, str], environment: dict[str, str]
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Wall and processor seconds of each script's starts, in turn; the first two are not counted."""
    wall: dict[str, list[float]] = {name: [] for name in scripts}
    processor: dict[str, list[float]] = {name: [] for name in scripts}
    for turn in range(RUNS + 2):
        for name, script in scripts.items():
            before, started = _children_seconds(), time.perf_counter()
            subprocess.run([sys.executable, "-c", script], check=True, env=environment)
            elapsed, after = time.perf_counter() - started, _children_seconds()
            if turn >= 2:
                wall[name].append(elapsed)
                processor[name].append(after - before)
    return wall, processor


def _children_seconds() -> float:
    """Processor time of the processes that have ended, in microseconds' steps; `os.times` counts in hundredths."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _peak(script: str, environment: dict[str, str]) -> int:
    """Median over three processes of the peak resident memory in bytes, asked for at the end."""
    found = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", script + PEAK],
            check=True,
            capture_output=True,
            text=True,
            env=environment,
        )
        found.append(int(done.stdout.split()[-1]))
    return sorted(found)[1]
