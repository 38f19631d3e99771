"""Standard streams that never end a command in a traceback, whatever they can encode and wherever they lead.

Standard output carries results: where it cannot be written, that is an error in one sentence. A reader that has gone,
as `head` goes when it has seen enough, is none: the command ends without a word, as other tools do. Standard error
carries what is said on the way: where it cannot be written, the work goes on. Characters that a stream cannot encode
are written as escapes, which JSON reads back.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from edgetl.errors import StorageError
from edgetl.failures import cause, remedy
from edgetl.files import UNENCODABLE

READER_GONE = 128 + 13
"""Exit code, as a shell shows a process that SIGPIPE ended; never one of a gate."""


@contextmanager
def safe() -> Iterator[None]:
    """Put safe streams in the place of `sys.stdout` and `sys.stderr` inside the block."""
    _occupy()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Output(before[0]), _Log(before[1])
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _occupy() -> None:
    """Lead closed standard streams nowhere: else the next file that is opened would get their text."""
    if os.name != "posix":
        return
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # takes the lowest free number


class _Stream:
    """Passes everything on to a stream, which may be closed."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        if isinstance(inner, io.TextIOWrapper):
            inner.reconfigure(errors=UNENCODABLE)

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":  # writing past this object would be writing past what it is for
            raise AttributeError(name)
        return getattr(self._inner, name)

    @property
    def encoding(self) -> str:
        """What it encodes to; a closed one takes anything."""
        return getattr(self._inner, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Whether a person sees it."""
        return self._inner is not None and bool(self._inner.isatty())

    def write(self, text: str) -> int:
        """Write text; how many characters."""
        try:
            return int(self._open().write(text))
        except (OSError, ValueError) as error:
            self._refused(error)
            return len(text)

    def writelines(self, lines: Any) -> None:
        """Write one after the other."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Hand what was written to the system."""
        try:
            if self._inner is not None:
                self._inner.flush()
        except (OSError, ValueError) as error:
            self._refused(error)

    def _open(self) -> Any:
        if self._inner is None:
            raise ValueError("it is closed")
        return self._inner

    def _refused(self, error: OSError | ValueError) -> None:
        raise NotImplementedError

    def _drop(self) -> None:
        """Lead what is still in the buffer nowhere, so that the interpreter does not try again when it ends."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._inner.fileno())
            os.close(nowhere)


class _Output(_Stream):
    def _refused(self, error: OSError | ValueError) -> None:
        self._drop()
        if isinstance(error, BrokenPipeError):
            raise SystemExit(READER_GONE) from None
        if isinstance(error, OSError):
            raise StorageError(
                f"Standard output cannot be written: {cause(error)}. {remedy(error)}".rstrip()
            ) from error
        raise StorageError(
            "Standard output cannot be written: it is closed. Redirect it to a file."
        ) from error


class _Log(_Stream):
    def _refused(self, error: OSError | ValueError) -> None:
        self._drop()
