"""Compile in a process of its own: a crash, an abort or a full memory there is an error here, and no more."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from edgetl import errors
from edgetl.errors import ModelError, from_plain
from edgetl.export.tensorrt.builder import PERCENT, BuiltEngine, check_onnx
from edgetl.export.tensorrt.options import BuildOptions
from edgetl.export.tensorrt.worker import Request
from edgetl.failures import death
from edgetl.files import read_json, sha256_bytes, write_json
from edgetl.progress import SILENT, Progress
from edgetl.records.variants import EngineRecord

_LAST_WORDS = 300


def build_engine(
    onnx: Path | bytes,
    options: BuildOptions,
    *,
    reuse: bool = True,
    progress: Progress = SILENT,
) -> BuiltEngine:
    """Compile an ONNX model, or return the engine that was compiled from the same model under the same conditions.

    Args:
        onnx: the model, or its file.
        options: what to compile for.
        reuse: a cached engine will do; else it is built anew.
        progress: where to report.

    Raises:
        ConfigError: a GPU, the image size or the DLA is not to be had.
        MissingDependencyError: TensorRT is not installed, or needs a GPU that is not here.
        ModelError: TensorRT refuses the model or dies over it, or the engine is not of the precision that was asked.
        StorageError: the engine cannot be cached.
    """
    if isinstance(onnx, Path):
        if not onnx.is_file():
            raise ModelError(f"There is no ONNX model at {onnx}.")
        onnx = onnx.read_bytes()
    check_onnx(onnx)
    with tempfile.TemporaryDirectory(prefix="edgetl-build-") as name:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(onnx)
        request = Request(options=options, onnx_sha256=sha256_bytes(onnx), reuse=reuse)
        write_json(folder / "request.json", request)
        _run(_command(folder), folder, options, progress)
        if (folder / "error.json").is_file():
            raise from_plain(json.loads((folder / "error.json").read_text(encoding="utf-8")))
        return BuiltEngine((folder / "engine").read_bytes(), read_json(folder / "result.json", EngineRecord))


def _command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "edgetl.export.tensorrt.worker", str(folder)]


def _run(command: list[str], folder: Path, options: BuildOptions, progress: Progress) -> None:
    """Run the worker to its end, passing its progress on."""
    package = str(Path(errors.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, "PYTHONPATH": path}
        ) as process,
        progress.task(f"Compiling with {options.target}", total=PERCENT) as task,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                event = _event(line)
                if "warning" in event:
                    progress.warning(str(event["warning"]))
                elif "percent" in event:
                    task.advance(int(event["percent"]), note=str(event.get("note", "")))
            code = process.wait()
        except BaseException:
            process.kill()
            raise
    if code and not (folder / "error.json").is_file():
        words = (folder / "log").read_text(encoding="utf-8", errors="replace").strip()[-_LAST_WORDS:]
        raise ModelError(
            f"{options.target} died while it compiled the model ({death(code)}); nothing was written."
            + (f" Its last words: {' '.join(words.split())}" if words else "")
        )


def _event(line: str) -> dict[str, Any]:
    """One line of the worker's; anything else that a library printed there is passed over."""
    with contextlib.suppress(ValueError):
        event = json.loads(line)
        if isinstance(event, dict):
            return event
    return {}
