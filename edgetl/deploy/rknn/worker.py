"""Runs in the Python that has Rockchip's toolkit, where edgetl is not installed: converts and simulates.

Usage: python worker.py FOLDER, with the files that are named here. It prints a line of `DONE` after every step and
every image.
"""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

REQUEST, ONNX, PIXELS, CALIBRATION = "request.json", "model.onnx", "pixels.npy", "calibration"
"""What it reads: settings, the model, (N, S, S, 3) uint8 pictures to simulate on, and a folder of those to calibrate
by, as PNG."""
MODEL, OUTPUTS, RESULT = "model.rknn", "outputs.npz", "result.json"
"""What it writes: the model, what the simulator gave, by name, and the toolkit's version."""
DONE, STEPS = "edgetl: done", 5


def convert(folder: Path) -> None:
    """Convert, and simulate on the pictures.

    Raises:
        RuntimeError: a step of the toolkit failed.
    """
    import numpy as np
    from rknn.api import RKNN

    request = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
    pixels = np.load(folder / PIXELS, allow_pickle=False)
    size = int(pixels.shape[1])
    listed = folder / "calibration.txt"
    pictures = sorted((folder / CALIBRATION).glob("*.png"))
    listed.write_text("".join(f"{picture}\n" for picture in pictures), encoding="utf-8")
    tool = RKNN(verbose=False)
    try:
        scale = {"mean_values": [request["mean"]], "std_values": [request["std"]]}
        _done("config", tool.config(target_platform=request["platform"], **scale))
        shapes = {
            "inputs": [request["input"]],
            "input_size_list": [[1, 3, size, size]],
            "outputs": request["outputs"],
        }
        _done("load_onnx", tool.load_onnx(model=str(folder / ONNX), **shapes))
        _done("build", tool.build(do_quantization=request["int8"], dataset=str(listed)))
        _done("export_rknn", tool.export_rknn(str(folder / MODEL)))
        _done("init_runtime", tool.init_runtime())
        rows = [_answers(tool, picture[None]) for picture in pixels]
    finally:
        tool.release()
    outputs: dict[str, Any] = {
        name: np.concatenate([row[at] for row in rows]) for at, name in enumerate(request["outputs"])
    }
    np.savez(folder / OUTPUTS, **outputs)
    package = request["toolkit"]
    result = {"toolkit": f"{package} {metadata.version(package)}"}
    (folder / RESULT).write_text(json.dumps(result), encoding="utf-8")


def _answers(tool: Any, picture: Any) -> Any:
    """One image's outputs, in the order of their names."""
    found = tool.inference(inputs=[picture], data_format=["nhwc"])
    _done("inference", 1 if found is None else 0)
    return found


def _done(step: str, code: int) -> None:
    if code != 0:
        raise RuntimeError(f"{step} failed with code {code}")
    sys.stdout.write(f"{DONE}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    convert(Path(sys.argv[1]))
