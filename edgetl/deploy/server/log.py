"""What a server says while it runs: one JSON object per line on standard error."""

from __future__ import annotations

import json
import logging
import sys
import threading
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO


class Log:
    """Writes lines; safe to be called from any thread. A reader that has gone away is no reason to stop serving."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream, self._lock = stream, threading.Lock()

    def info(self, event: str, **fields: Any) -> None:
        """Say what happened."""
        self._write("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Say what somebody should look at."""
        self._write("warning", event, fields)

    def error(self, event: str, error: BaseException, **fields: Any) -> None:
        """Say what is a bug of ours, with its traceback."""
        shown = "".join(traceback.format_exception(error))
        self._write("error", event, {**fields, "error": f"{error}", "traceback": shown})

    def handler(self) -> logging.Handler:
        """For the loggers of libraries."""
        return _Handler(self)

    def _write(self, level: str, event: str, fields: dict[str, Any]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = json.dumps({"time": now, "level": level, "event": event, **fields}, default=str)
        with self._lock:
            try:
                stream = self._stream or sys.stderr
                stream.write(line + "\n")
                stream.flush()
            except (OSError, ValueError):
                pass


class _Handler(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            self._log.error("server", error, message=record.getMessage())
        else:
            self._log.warning("server", message=record.getMessage())
