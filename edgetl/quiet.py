"""Importing an inference engine without its reports home.

ONNX Runtime writes a device identifier and a database of events below the user's cache folder, with a thread that
sends them; a process that was forked waits for that thread for ever when it exits. OpenVINO counts its uses in the
user's home and sends an event to Google Analytics at every import. Neither asks first.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ONNX_RUNTIME_SWITCH = "ORT_DISABLE_TELEMETRY"
_OPENVINO_REPORTER = "openvino_telemetry"


@contextmanager
def quietly() -> Iterator[None]:
    """Import engines inside: they write no file and open no connection of their own.

    What users decided stays as it is: `ORT_DISABLE_TELEMETRY` where it is set, and the answer that they gave to
    OpenVINO's `opt_in_out`.
    """
    os.environ.setdefault(ONNX_RUNTIME_SWITCH, "1")
    if _OPENVINO_REPORTER in sys.modules or _answer_to_openvino():
        yield
        return
    sys.modules[_OPENVINO_REPORTER] = None  # type: ignore[assignment]  # OpenVINO then takes its own stub.
    try:
        yield
    finally:
        del sys.modules[_OPENVINO_REPORTER]


def _answer_to_openvino() -> bool:
    """Whether the user has said what OpenVINO may send."""
    if sys.platform == "win32":
        folder = Path(os.environ.get("LOCALAPPDATA", "")) / "Intel Corporation"
    else:
        folder = Path(os.path.expanduser("~")) / "intel"  # noqa: PTH111  # Path.home() raises where there is none.
    return (folder / _OPENVINO_REPORTER).exists()
