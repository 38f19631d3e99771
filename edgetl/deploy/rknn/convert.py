"""A bundle's network as a .rknn file for a Rockchip board's NPU, converted and simulated by the vendor's toolkit.

The toolkit, which `edgetl.packages` names, is under Rockchip's own licence and takes 5.6 GB, so it stays in a Python of
its own, in which `edgetl.deploy.rknn.worker` runs. Its simulator computes what the NPU computes and says nothing of its
speed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgetl.bundle.archive import open_bundle
from edgetl.bundle.manifest import Precision
from edgetl.data.splits import spread
from edgetl.deploy.bounds import BOUNDS, hold
from edgetl.deploy.parity import BATCH, base_variant
from edgetl.deploy.rknn import worker
from edgetl.deploy.rknn.options import PYTHON_VARIABLE, RknnOptions
from edgetl.errors import BundleError, DataError, MissingDependencyError, ModelError
from edgetl.failures import cause, death
from edgetl.files import atomic_path
from edgetl.inputs.image import PreprocessSpec, load_pixels, normalise
from edgetl.packages import PIP_NAMES, pip_install
from edgetl.progress import SILENT, Progress
from edgetl.records.variants import RknnRecord
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from edgetl.runtime.inputs import find_images
from edgetl.tasks.all import task_of
from edgetl.tasks.base import joined

CALIBRATED, COMPARED = 100, 40
"""Images at most, by which ranges are measured, and on which the simulator is held to float32."""
_LAST_WORDS = 400
_TOOLKIT = PIP_NAMES["rknn"]
_REMEDY = (
    f"Make a Python for it, python3 -m venv rknn && rknn/bin/{pip_install('rknn')}, and name it: --python"
    f" rknn/bin/python, or {PYTHON_VARIABLE}."
)


def write_rknn(
    bundle: Path, images: Sequence[str], options: RknnOptions, out: Path, *, progress: Progress = SILENT
) -> RknnRecord:
    """Convert the bundle's float32 model, simulate it, and write it whether or not it agrees.

    Every third image is kept for the comparison with float32; the toolkit measures ranges on the others. Labels are
    not needed. The file takes (1, S, S, 3) uint8 pictures and normalises inside.

    Args:
        bundle: the bundle.
        images: files, folders or globs, of what the device will see.
        options: how to convert.
        out: the file.
        progress: where to report.

    Raises:
        BundleError: the bundle cannot be used, has no float32 ONNX model, or looks at sounds.
        DataError: there are fewer than three images.
        ImageError: an image cannot be used.
        MissingDependencyError: the toolkit is not there.
        ModelError: the toolkit refuses the model.
        StorageError: the file cannot be written.
    """
    opened = open_bundle(bundle)
    spec, task = opened.manifest.preprocess, task_of(opened.manifest.task)
    if spec.sound is not None:
        raise BundleError(
            f"{bundle} looks at sounds, and a .rknn file is made for pictures; take edgetl onnx."
        )
    content = opened.read(base_variant(opened).member)
    paths = find_images(images, progress=progress)
    compared = spread(paths[::3], COMPARED)
    calibrated = spread([path for at, path in enumerate(paths) if at % 3], CALIBRATED)
    if not calibrated:
        raise DataError(
            f"rknn needs three images or more, to measure ranges by and to compare on; there are {len(paths)}."
        )
    python = _python(options.python)
    pixels = np.stack([load_pixels(path, spec) for path in compared])
    with OnnxBackend(content) as backend:
        tensor = backend.input.name
        rows = [backend.run(normalise(pixels[at : at + BATCH], spec)) for at in range(0, len(pixels), BATCH)]
    expected = joined(rows)
    # The file is opened first: minutes later is late to learn that it cannot be written.
    with atomic_path(out) as made, tempfile.TemporaryDirectory(prefix="edgetl-rknn-") as name:
        folder = Path(name)
        _write_request(folder, content, options, spec, tensors=(tensor, *expected))
        np.save(folder / worker.PIXELS, pixels)
        for at, path in enumerate(calibrated):
            Image.fromarray(load_pixels(path, spec)).save(folder / worker.CALIBRATION / f"{at:04}.png")
        _run(python, folder, len(pixels), progress)
        found = _outputs(folder)
        toolkit = json.loads((folder / worker.RESULT).read_text(encoding="utf-8"))["toolkit"]
        made.write_bytes((folder / worker.MODEL).read_bytes())
    precision = Precision.INT8 if options.int8 else Precision.FP16
    held = hold(task, expected, found, BOUNDS[precision])
    return RknnRecord(
        path=str(out),
        platform=str(options.platform),
        precision=str(precision),
        size_bytes=out.stat().st_size,
        toolkit=toolkit,
        calibrated=len(calibrated),
        compared=len(pixels),
        max_error=held.maximum,
        mean_error=held.mean,
        same=float(held.same.mean()),
        reason="; ".join(held.reasons),
        window=spec.window,
    )


def _python(named: Path | None) -> str:
    """The interpreter with the toolkit.

    Raises:
        MissingDependencyError: there is none, or it has no toolkit.
    """
    given = str(named) if named is not None else os.environ.get(PYTHON_VARIABLE, "")
    if not given:
        raise MissingDependencyError(f"{_TOOLKIT}, in a Python of its own,", _REMEDY)
    found = shutil.which(given)
    if found is None:
        raise MissingDependencyError(f"A Python at {given} that has {_TOOLKIT}", _REMEDY)
    asked = subprocess.run(
        [found, "-c", "import importlib.util as u, sys; sys.exit(u.find_spec('rknn') is None)"],
        capture_output=True,
        check=False,
    )
    if asked.returncode:
        raise MissingDependencyError(f"{_TOOLKIT} in the Python at {given}", _REMEDY)
    return str(Path(found).absolute())  # not resolved: the link is what makes it an environment's


def _write_request(
    folder: Path, content: bytes, options: RknnOptions, spec: PreprocessSpec, *, tensors: Sequence[str]
) -> None:
    """What the worker reads; `tensors` names the input and the outputs."""
    (folder / worker.CALIBRATION).mkdir()
    (folder / worker.ONNX).write_bytes(content)
    request = {
        "toolkit": _TOOLKIT,
        "platform": str(options.platform),
        "int8": options.int8,
        "mean": [255 * value for value in spec.mean],
        "std": [255 * value for value in spec.std],
        "input": tensors[0],
        "outputs": list(tensors[1:]),
    }
    (folder / worker.REQUEST).write_text(json.dumps(request), encoding="utf-8")


def _run(python: str, folder: Path, images: int, progress: Progress) -> None:
    """Run the worker to its end.

    Raises:
        ModelError: it failed.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    try:
        with (
            (folder / "log").open("wb") as log,
            progress.task("Converting and simulating", total=worker.STEPS + images) as task,
            subprocess.Popen(
                [python, worker.__file__, str(folder)],
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=folder,  # The toolkit leaves files where it runs.
                env=environment,
                text=True,
                errors="replace",
            ) as process,
        ):
            assert process.stdout is not None
            said = ""
            try:
                for line in process.stdout:
                    if line.strip() == worker.DONE:
                        task.advance()
                    else:
                        said = (said + line)[-_LAST_WORDS:]
                code = process.wait()
            except BaseException:
                process.kill()  # Left alone, it would be waited for.
                raise
    except OSError as error:
        raise ModelError(f"{python} cannot be run: {cause(error)}.") from error
    if code:
        words = (folder / "log").read_text(encoding="utf-8", errors="replace").strip()[-_LAST_WORDS:] or said
        raise ModelError(
            f"{_TOOLKIT} did not convert the model ({death(code)}); nothing was written. Its last words:"
            f" {' '.join(words.split())}"
        )


def _outputs(folder: Path) -> dict[str, NDArray[np.float32]]:
    with np.load(folder / worker.OUTPUTS, allow_pickle=False) as found:
        return {name: np.asarray(found[name], np.float32) for name in found.files}
