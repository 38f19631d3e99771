"""The process that compiles. `python -m edgetl.export.tensorrt.worker FOLDER`; see `process` for the other side.

The folder holds `request.json` and `model.onnx`. Progress goes to standard output, one JSON object per line:
`{"percent": 40, "note": "..."}` or `{"warning": "..."}`. At the end there is `engine` and `result.json`, or
`error.json` with the class and the message of one of `edgetl.errors`.
"""

from __future__ import annotations

import faulthandler
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetl.errors import EdgetlError, ModelError, to_plain
from edgetl.export.tensorrt import cache
from edgetl.export.tensorrt.builder import compile_engine, load_module
from edgetl.export.tensorrt.gpu import find_gpu
from edgetl.export.tensorrt.options import BuildOptions
from edgetl.files import read_json, sha256_bytes, write_bytes, write_json
from edgetl.progress import ProgressTask


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to build. `onnx_sha256` is the model's, taken by the parent; `reuse`: a cached engine will do."""

    options: BuildOptions
    onnx_sha256: str
    reuse: bool


def main(folder: Path) -> int:
    """Build; 0 where there is a result, 1 where there is an error for the user."""
    faulthandler.enable()
    try:
        _build(folder)
    except EdgetlError as error:
        write_json(folder / "error.json", to_plain(error))
        return 1
    return 0


def _build(folder: Path) -> None:
    request = read_json(folder / "request.json", Request)
    onnx, progress = (folder / "model.onnx").read_bytes(), _LineProgress()
    if sha256_bytes(onnx) != request.onnx_sha256:
        raise ModelError(
            "The ONNX model was altered after it was hashed; nothing was built. Get a fresh copy."
        )
    trt = load_module(request.options.target)
    gpu, version = find_gpu(), str(trt.__version__)
    key = cache.EngineKey.of(onnx, request.options, version, gpu)
    built = cache.load(key, progress.warning) if request.reuse else None
    if built is None:
        timing = cache.timing_cache(request.options, version, gpu)
        built = compile_engine(trt, onnx, request.options, gpu=gpu, timing_cache=timing, progress=progress)
        cache.store(key, built)
    write_bytes(folder / "engine", built.content)
    write_json(folder / "result.json", built.record)


class _LineProgress:
    """Reports to the parent."""

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[ProgressTask]:
        yield _LineTask()

    def message(self, text: str) -> None:
        _tell({"note": text})

    def warning(self, text: str) -> None:
        _tell({"warning": text})


class _LineTask:
    def advance(self, steps: int = 1, note: str = "") -> None:
        _tell({"percent": steps, "note": note})


def _tell(event: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
