"""One device's connection: a command of `sh` there through the system's `ssh`, with limits of time and size.

The user's own settings hold: keys, jump hosts, known hosts. Nothing is ever asked (BatchMode). Where the client can,
all commands of a device share one connection (ControlMaster of ssh_config(5)).
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgetl.deploy.fleet.config import Device, Fleet
from edgetl.errors import DeviceAwayError, DeviceError, Interrupted, MissingDependencyError

MARK = "edgetl-fleet-answer"
"""What a device's shell says before this line is its own greeting."""
PIECE = 1 << 16
"""Bytes that are sent or read at once."""
_MOST_BYTES = 64 << 20
_MOST_ERROR_BYTES = 1 << 14
_LOST = 255
"""Exit code of `ssh` itself."""
_SOCKET_NAME = 60
"""Characters that ssh adds to the folder of its sockets; a socket's path may have about 100."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a command there gave: its exit code, its output, the end of what it said on standard error."""

    code: int
    out: bytes
    error: str

    @property
    def text(self) -> str:
        """The output as text."""
        return self.out.decode("utf-8", "replace")

    @property
    def last_words(self) -> str:
        """The last line of standard error that says something."""
        lines = [line.strip() for line in self.error.splitlines() if line.strip()]
        return lines[-1] if lines else ""


class Calls:
    """The programs that run now, so that all of them can be ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End every program, and start no further one."""
        self._stopped.set()
        with self._lock:
            for process in self._running:
                _end(process)

    def pause(self, seconds: float) -> None:
        """Wait, or less where all is to end."""
        self._stopped.wait(seconds)
        self.check()

    def check(self) -> None:
        """Go on, unless all is to end.

        Raises:
            Interrupted: it is.
        """
        if self._stopped.is_set():
            raise Interrupted("Stopped. The same command goes on where it stopped.")

    @contextmanager
    def started(self, words: list[str], *, feed: bool) -> Iterator[subprocess.Popen[bytes]]:
        """Start a program and see to its end."""
        # The same words of ssh and of the devices, whatever language is set.
        environment = os.environ | {"LC_ALL": "C.UTF-8"}
        with self._lock:
            self.check()
            process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE if feed else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                process_group=0 if os.name == "posix" else None,
            )
            self._running.add(process)
        try:
            yield process
        finally:
            if process.poll() is None:
                _end(process)
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
            with self._lock:
                self._running.discard(process)


class Link:
    """A device's connection. Used by one thread."""

    def __init__(self, device: Device, fleet: Fleet, calls: Calls, sockets: Path | None) -> None:
        """`sockets` is a folder for shared connections; None where there is none."""
        self.device, self._fleet, self._calls = device, fleet, calls
        self._options = _options(fleet, sockets)
        self._shared = sockets is not None
        self._reached = self._broke = False

    def call(
        self,
        script: str,
        *,
        data: Iterable[bytes] | None = None,
        sink: IO[bytes] | None = None,
        limit_s: float | None = None,
        most_bytes: int = _MOST_BYTES,
    ) -> Answer:
        """Run a script of `sh` there.

        Args:
            script: of POSIX `sh`, on one line.
            data: what it gets on standard input; then the limit is that of a stall.
            sink: a file that takes its output, in place of `Answer.out`.
            limit_s: seconds that it may take; `Fleet.step_s` where unset.
            most_bytes: of output; more is an error.

        Raises:
            DeviceAwayError: the device cannot be reached, is too slow, or the connection broke.
            DeviceError: it refuses the connection, or answers what no device would.
            Interrupted: all is to end.
        """
        assert "\n" not in script
        self._broke = False
        full = f"echo {MARK}; {script}"
        words = [_ssh(), *self._options, "--", self.device.host, f"exec sh -c {shlex.quote(full)}"]
        limit = self._fleet.stall_s if data is not None else limit_s or self._fleet.step_s
        with self._calls.started(words, feed=data is not None) as process, _Watch(process, limit) as watch:
            errors = _Tail(process)
            if data is not None:
                _feed(process, data, watch)
            out, begun = _read(process, sink, most_bytes, watch if data is not None else None)
            process.wait()
            error = errors.text()
        self._calls.check()
        if watch.late:
            what = (
                f"stood still for {limit:g} s" if data is not None else f"took longer than {limit:g} s there"
            )
            raise DeviceAwayError(
                f"it {what} and was broken off. Run the command again when it is less busy, or raise"
                f" {'stall_s' if data is not None else 'step_s'} in {self._fleet.path}."
            )
        answer = Answer(code=process.returncode, out=out, error=error)
        if begun:
            self._reached = True
        if answer.code == _LOST or answer.code < 0:
            self._broke = self._reached
            raise self._lost(answer, begun)
        if not begun:
            raise DeviceError(
                f"its shell ran no command ({answer.last_words or f'exit code {answer.code}'}). It needs `sh`."
            )
        return answer

    def tried(self, script: str, *, limit_s: float | None = None) -> Answer:
        """As `call`, for a script that may be run twice: where a connection breaks that was there, it is made again."""
        for turn in range(self._fleet.retries + 1):
            try:
                return self.call(script, limit_s=limit_s)
            except DeviceAwayError:
                if turn == self._fleet.retries or not self._broke:
                    raise
                self._calls.pause(min(2.0**turn, 30.0))
        raise AssertionError

    @property
    def broke(self) -> bool:
        """Whether the last command's connection broke, of a device that had answered before."""
        return self._broke

    def pause(self, seconds: float) -> None:
        """Wait, or less where all is to end."""
        self._calls.pause(seconds)

    def close(self) -> None:
        """End the shared connection."""
        if not (self._shared and self._reached):
            return
        words = [_ssh(), *self._options, "-O", "exit", "--", self.device.host]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(words, capture_output=True, timeout=5, check=False)

    def _lost(self, answer: Answer, begun: bool) -> DeviceError:
        """Why `ssh` failed, from its own words."""
        host, said = self.device.host, answer.error
        where = "its line `host` in " + str(self._fleet.path)
        login = shlex.join(["ssh", *self._own_config(), host])
        if begun:
            return DeviceAwayError(
                f"the connection broke ({answer.last_words or 'without a word'}). Run the command again: it goes on"
                " where it stopped."
            )
        if re.search(r"Could not resolve hostname|Name or service not known", said):
            return DeviceAwayError(f"the host {host} is not known. Check {where}, or your ssh settings.")
        if "IDENTIFICATION HAS CHANGED" in said:
            return DeviceError(
                f"the host key of {host} is not the one that was known: it was set up anew, or it is not that device."
                f" Where you are sure, forget the old one with ssh-keygen -R and log in once with: {login}"
            )
        if "Host key verification failed" in said:
            return DeviceError(
                f"the host key of {host} is not known. Log in once and compare it with: {login}"
            )
        if re.search(r"Permission denied|Too many authentication failures", said):
            return DeviceError(
                f"the host {host} refuses the key. Add yours there with: ssh-copy-id {shlex.quote(host)}; or load the"
                " right one with ssh-add."
            )
        if re.search(r"Bad configuration option|Bad owner or permissions|terminating", said):
            return DeviceError(
                f"ssh does not take its settings: {answer.last_words}. Check them with: {login}"
            )
        if "Connection refused" in said:
            return DeviceAwayError(f"nothing listens at {host}: {answer.last_words}. Is sshd running there?")
        said = answer.last_words or "ssh gave no reason"
        return DeviceAwayError(f"the host {host} cannot be reached: {said.rstrip('.')}. Try: {login}")

    def _own_config(self) -> list[str]:
        return ["-F", str(self._fleet.ssh_config)] if self._fleet.ssh_config else []


def _ssh() -> str:
    found = shutil.which("ssh")
    if found is None:
        raise MissingDependencyError(
            "The OpenSSH client (ssh)", "Install it with your system, e.g.: apt install openssh-client"
        )
    return found


def _options(fleet: Fleet, sockets: Path | None) -> list[str]:
    options = {
        "BatchMode": "yes",
        "ConnectTimeout": f"{max(1, round(fleet.connect_s))}",
        "ServerAliveInterval": "10",
        "ServerAliveCountMax": "3",
        "ClearAllForwardings": "yes",
        "PermitLocalCommand": "no",
        "RemoteCommand": "none",
        "RequestTTY": "no",
    }
    if sockets is not None:
        options |= {"ControlMaster": "auto", "ControlPath": f"{sockets}/%C", "ControlPersist": "60"}
    own = ["-F", str(fleet.ssh_config)] if fleet.ssh_config else []
    return [*own, "-T", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]


@contextmanager
def sockets_folder() -> Iterator[Path | None]:
    """A folder for shared connections; None where the client has none (Windows), or no path is short enough."""
    if sys.platform == "win32":
        yield None
        return
    short = next((p for p in (tempfile.gettempdir(), "/tmp") if len(p) + _SOCKET_NAME < 90), None)
    if short is None or not os.access(short, os.W_OK):
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="edgetl-", dir=short, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


class _Watch:
    """Ends a program that takes too long."""

    def __init__(self, process: subprocess.Popen[bytes], limit_s: float) -> None:
        self._process, self._limit = process, limit_s
        self._until = time.monotonic() + limit_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self.late = False

    def moved(self) -> None:
        """Begin to count anew."""
        self._until = time.monotonic() + self._limit

    def _wait(self) -> None:
        while (left := self._until - time.monotonic()) > 0:
            if self._over.wait(left):
                return
        self.late = True
        _end(self._process)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


class _Tail:
    """Reads standard error and keeps its end."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._kept = b""
        self._stream = process.stderr
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._stream is not None
        with contextlib.suppress(OSError, ValueError), self._stream as stream:
            while piece := os.read(stream.fileno(), PIECE):
                self._kept = (self._kept + piece)[-_MOST_ERROR_BYTES:]

    def text(self) -> str:
        """What was kept; a shared connection of an old client may hold the stream open, and is not waited for."""
        self._thread.join(1.0)
        return self._kept.decode("utf-8", "replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program, with those that it started: a jump host's, which would hold its streams open."""
    if sys.platform == "win32":
        process.kill()
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def _feed(process: subprocess.Popen[bytes], data: Iterable[bytes], watch: _Watch) -> None:
    """Write to standard input; where the reader has gone, its exit code says why."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        for piece in data:
            process.stdin.write(piece)
            process.stdin.flush()
            watch.moved()
        process.stdin.close()


def _read(
    process: subprocess.Popen[bytes], sink: IO[bytes] | None, most_bytes: int, watch: _Watch | None
) -> tuple[bytes, bool]:
    """The output after the mark, or nothing where it goes to `sink`; and whether the mark came.

    Raises:
        DeviceError: it is longer than `most_bytes`.
    """
    assert process.stdout is not None
    mark, before, kept, begun, size = f"{MARK}\n".encode(), b"", list[bytes](), False, 0
    while piece := os.read(process.stdout.fileno(), PIECE):
        if watch is not None:
            watch.moved()
        if not begun:
            before += piece
            _, found, piece = before.partition(mark)
            begun = bool(found)
            if not begun:
                before = before[-_MOST_ERROR_BYTES:]
                continue
        size += len(piece)
        if size > most_bytes:
            _end(process)
            raise DeviceError(f"it answered more than {most_bytes / 1e6:.0f} MB where less was asked for.")
        if sink is None:
            kept.append(piece)
        else:
            sink.write(piece)
    return b"".join(kept), begun
