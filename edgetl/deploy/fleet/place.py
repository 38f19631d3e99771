"""What is asked of a device's folder: to look at it, to take a file, to switch a link, to run edgetl there."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from edgetl import shell
from edgetl.deploy.fleet.config import Fleet
from edgetl.deploy.fleet.link import PIECE, Answer, Link
from edgetl.deploy.fleet.record import DeviceState
from edgetl.errors import DeviceAwayError, DeviceError
from edgetl.records.codec import from_json

R = TypeVar("R")

CURRENT, PREVIOUS = "current.edgetl", "previous.edgetl"
ENV_PYTHON = "env/bin/python"
SPARE_BYTES = 16 << 20
"""What the disk must have left beside what is sent."""
_NO_FOLDER, _NOT_WRITABLE = 90, 91
_SHORT_S = 120.0
_HASH = (
    "import hashlib,os,sys;f=open(sys.argv[1],'r+b');d=hashlib.sha256();"
    "[d.update(p) for p in iter(lambda:f.read(1<<20),b'')];os.fsync(f.fileno());print(d.hexdigest())"
)
"""SHA-256 of a file there, in hex, after it was forced to the disk."""
_REPLACE = "import os,sys;os.replace(sys.argv[1],sys.argv[2])"
_VERSION = "from edgetl._version import __version__;print(__version__)"
_PYTHON = "import platform,sys;print(sys.implementation.name,*sys.version_info[:2],*platform.libc_ver(),sep=chr(32))"


@dataclass(frozen=True, kw_only=True)
class PythonThere:
    """A device's Python: its implementation, version, and the C library with its version, `glibc` and (2, 36).

    Where Python does not know its C library, `libc` is empty.
    """

    implementation: str
    version: tuple[int, int]
    libc: str = ""
    libc_version: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A first look at a device: its state, its Python, and how much there is already of what is to be sent.

    `whole` says that the file stands there whole; `part_bytes` is how much of it came in earlier.
    """

    state: DeviceState
    python: PythonThere | None
    whole: bool = False
    part_bytes: int = 0


class Place:
    """The folder of a device, over its link."""

    def __init__(self, link: Link, fleet: Fleet) -> None:
        self.link, self._fleet, self.device = link, fleet, link.device
        self._folder = quoted(self.device.folder)

    def look(self, *, make: bool = False, file: str = "", incoming: str = "") -> Seen:
        """Look around, in one command.

        Args:
            make: make the folder where it is missing.
            file: what is to be sent, from the folder, e.g. `bundles/x.edgetl`.
            incoming: its name while it is on its way.

        Raises:
            DeviceError: it cannot be reached, the folder cannot be made, or its answer makes no sense.
        """
        python, captured = program(self.device.python), quoted(self.device.captured)
        enter = (
            f"mkdir -p {self._folder}/bundles {self._folder}/incoming && cd {self._folder} || exit {_NOT_WRITABLE}"
            if make
            else f"cd {self._folder} 2>/dev/null || echo folder missing"
        )
        asked = [
            "echo time $(date +%s)",
            "echo machine $(uname -m)",
            "echo system $(uname -s)",
            f"echo python $({python} -c {shlex.quote(_PYTHON)})",
            enter,
            "echo disk $(df -Pk . | tail -n 1)",
            f"echo edgetl $(test -x {ENV_PYTHON} && {ENV_PYTHON} -c {shlex.quote(_VERSION)})",
            f"echo current $(test -e {CURRENT} && readlink {CURRENT})",
            f"echo previous $(test -e {PREVIOUS} && readlink {PREVIOUS})",
            "echo bundles $(ls bundles | wc -l)",
            "echo incoming $(cat incoming/*.part | wc -c)",
            f"echo captured $(ls {captured} | wc -l) $(du -sk {captured})",
        ]
        if file:
            asked.append(f"test -f {quoted(file)} && echo whole yes")
            asked.append(f"echo part $(wc -c < incoming/{quoted(incoming)})")
        asked.append("exit 0")
        before = time.time()
        answer = self.link.tried("; ".join(asked), limit_s=min(_SHORT_S, self._fleet.step_s))
        after = time.time()
        if answer.code == _NOT_WRITABLE:
            raise DeviceError(
                f"the folder {self.device.folder} cannot be made or entered there: {answer.last_words}."
                f" Name another one in {self._fleet.path}."
            )
        found = dict(line.partition(" ")[::2] for line in answer.text.splitlines())
        if "folder" in found:
            return Seen(
                state=_state_without_folder(found, before, after), python=_python(found.get("python", ""))
            )
        return Seen(
            state=_state(found, before, after),
            python=_python(found.get("python", "")),
            whole=found.get("whole") == "yes",
            part_bytes=_number(found.get("part", "")) or 0,
        )

    def ready(self, seen: Seen) -> None:
        """Go on, where edgetl is installed there and its clock is right.

        Raises:
            DeviceError: it is not.
        """
        if not seen.state.edgetl:
            python = "" if seen.python else f" and it has no Python `{self.device.python}`"
            raise DeviceError(
                f"Nothing is installed in {self.device.folder} there{python}. Install edgetl with:"
                f" {shell.command('fleet', 'init', self._fleet.path, '--only', self.device.name)}"
            )
        self.clock(seen)

    def clock(self, seen: Seen) -> None:
        """Go on, where its clock is right.

        Raises:
            DeviceError: it is not.
        """
        off = seen.state.clock_s
        if off is None:
            raise DeviceError("it does not say what time it is (`date +%s`).")
        if abs(off) > self._fleet.clock_s:
            raise DeviceError(
                f"its clock is {_span(abs(off))} {'ahead' if off > 0 else 'behind'}: times of measurements and kept"
                " images would be wrong. Set it there, e.g. with timedatectl set-ntp true; or allow more with clock_s"
                f" in {self._fleet.path}."
            )

    def room(self, seen: Seen, needed: int) -> None:
        """Go on, where the disk takes so many bytes.

        Raises:
            DeviceError: it does not.
        """
        free = seen.state.free_bytes
        if free is not None and free < needed + SPARE_BYTES:
            raise DeviceError(
                f"its disk has {_size(free)} left in {self.device.folder}, and {_size(needed)} are to come, with"
                f" {_size(SPARE_BYTES)} to spare. Free some space there, or name another folder."
            )

    def send(
        self,
        source: Path,
        sha256: str,
        file: str,
        *,
        python: str,
        tell: Callable[[int], None],
        seen: Seen | None = None,
    ) -> int:
        """Send a file, from where an earlier upload stopped; it gets its name when all of it arrived unaltered.

        Args:
            source: the file here.
            sha256: of it, 64 hex digits.
            file: what it is called there, from the folder.
            python: the Python there that works out hashes.
            tell: called with the number of bytes that are there.
            seen: a look for that file that was just taken.

        Returns:
            Bytes that were sent.

        Raises:
            DeviceError: it was altered on the way, or the disk is full.
            DeviceAwayError: the connection broke, more often than `Fleet.retries`.
        """
        size, sent, broke = source.stat().st_size, 0, 0
        part = f"incoming/{incoming(sha256)}"
        while True:
            seen = seen or self.look(make=True, file=file, incoming=incoming(sha256))
            if seen.whole:
                return sent
            start = seen.part_bytes if seen.part_bytes <= size else 0
            self.room(seen, size - start)
            seen = None
            pieces = _Pieces(source, start, tell)
            try:
                if start < size:
                    into = f"> {part}" if start == 0 else f">> {part}"
                    self._took(self.link.call(f"cd {self._folder} && cat {into}", data=pieces))
                found = self._placed(part, sha256, file, python)
            except DeviceAwayError:
                broke += 1
                if broke > self._fleet.retries or not self.link.broke:
                    raise
                self.link.pause(min(2.0 ** (broke - 1), 30.0))
                continue
            finally:
                sent += pieces.read
            if found == sha256:
                return sent
            # Else what an earlier upload left was not the beginning of this file, and it is sent anew.
            if start == 0:
                raise DeviceError(
                    f"{source.name} was altered on the way: {size} bytes with the SHA-256 {sha256[:16]}... were sent,"
                    f" and {found[:16]}... arrived. It was thrown away there. Run the command again; where it happens"
                    " again, look at the disk there and at what stands between."
                )

    def _took(self, answer: Answer) -> None:
        if answer.code != 0:
            full = "No space left" in answer.error or "quota" in answer.error.lower()
            raise DeviceError(
                "its disk is full. Free some space there; the upload goes on where it stopped."
                if full
                else f"it cannot write in {self.device.folder}: {answer.last_words or f'exit code {answer.code}'}."
            )

    def _placed(self, part: str, sha256: str, file: str, python: str) -> str:
        """Give what arrived its name where its hash is right, and throw it away where it is not; the hash there."""
        target = quoted(file)
        # Where it was done before and the answer got lost, the file has its name already.
        answer = self.run(
            f"p={part}; test -f $p || p={target}; h=$({python} -c {shlex.quote(_HASH)} $p) || exit 1; echo $h;"
            f" if test $h != {sha256}; then rm -f $p;"
            f" elif test $p = {part}; then mkdir -p $(dirname {target}) && mv -f {part} {target}; fi"
        )
        if answer.code != 0:
            raise DeviceError(
                f"{file} cannot be checked or put in its place there: {answer.last_words or 'no reason was given'}."
            )
        return answer.text.strip()

    def switch(self, bundle: str, before: str) -> None:
        """Let the bundle run, and keep the link to the one before; each in one step.

        Args:
            bundle: from the folder, e.g. `bundles/x.edgetl`.
            before: the one that ran; empty where there was none.
        """
        commands = [self.linking(bundle, CURRENT)]
        if before and before != bundle:
            # First, so that a break in between leaves the old one running, and no bundle without a link.
            commands.insert(0, self.linking(before, PREVIOUS))
        answer = self.run(" && ".join(commands))
        if answer.code != 0:
            raise DeviceError(f"the link {CURRENT} cannot be switched there: {answer.last_words}.")

    def linking(self, target: str, link: str, python: str = ENV_PYTHON) -> str:
        """A command that lets a link lead to a target, in one step."""
        new = f"incoming/{link}.new"
        # The new link is read from where it will stand.
        return (
            f"rm -f {new} && ln -s {quoted(target)} {new} && {python} -c {shlex.quote(_REPLACE)} {new} {link}"
        )

    def tidy(self, *keep: str) -> None:
        """Remove bundles and uploads that nothing needs any more. That it fails does no harm."""
        kept = "|".join(quoted(name) for name in keep if name)
        with contextlib.suppress(DeviceError):
            self.run(
                f'for f in bundles/*.edgetl; do case "$f" in {kept}) ;; *) rm -f -- "$f" ;; esac; done;'
                " rm -f incoming/*.part"
            )

    def write(self, name: str, content: bytes) -> None:
        """Put a small file there, in one step."""
        new = f"incoming/{name}.new"
        answer = self.link.call(
            f"cd {self._folder} && cat > {new} && mv -f {new} incoming/{name}", data=[content]
        )
        if answer.code != 0:
            raise DeviceError(f"it cannot write in {self.device.folder}: {answer.last_words}.")

    def run(self, script: str, *, limit_s: float | None = None) -> Answer:
        """Run a script that may be run twice, in the folder."""
        answer = self.link.tried(f"cd {self._folder} || exit {_NO_FOLDER}; {script}", limit_s=limit_s)
        if answer.code == _NO_FOLDER:
            raise DeviceError(f"the folder {self.device.folder} is gone there: {answer.last_words}.")
        return answer

    def edgetl(self, kind: type[R], *words: str, codes: tuple[int, ...] = (0,)) -> tuple[R, int]:
        """Run a command of the installed edgetl there and read its record.

        Args:
            kind: the record's type.
            words: the command, without `--json`.
            codes: exit codes with which it prints a record.

        Returns:
            The record and the exit code.

        Raises:
            DeviceError: it ended otherwise; the message has its own words.
        """
        line = shlex.join([*words, "--json"])
        answer = self.run(f"exec {ENV_PYTHON} -m edgetl {line}")
        if answer.code not in codes or not answer.out.strip():
            raise DeviceError(f"its edgetl {words[0]} says: {_own_error(answer)}")
        try:
            return from_json(kind, json.loads(answer.out)), answer.code
        except (ValueError, RecursionError) as error:
            raise DeviceError(
                f"its edgetl {words[0]} gave an answer that this version does not read ({error}). Install this"
                f" version with: edgetl fleet init {self._fleet.path} --only {self.device.name}"
            ) from None


class _Pieces:
    """A file's bytes from a place on, in pieces; tells how far it is."""

    def __init__(self, source: Path, start: int, tell: Callable[[int], None]) -> None:
        self._source, self._start, self._tell = source, start, tell
        self.read = 0

    def __iter__(self) -> Iterator[bytes]:
        with self._source.open("rb") as file:
            file.seek(self._start)
            while piece := file.read(PIECE):
                self.read += len(piece)
                self._tell(self._start + self.read)
                yield piece


def _own_error(answer: Answer) -> str:
    """What edgetl there said: its error, else the last line."""
    found = re.findall(r"^Error: (.+)$", answer.error, re.MULTILINE)
    return found[-1] if found else answer.last_words or f"it ended with exit code {answer.code}"


def incoming(sha256: str) -> str:
    """What a file is called there while it is on its way."""
    return f"{sha256[:16]}.part"


def quoted(path: str) -> str:
    """A path for `sh`; one from the home folder holds wherever the shell is."""
    inside = path.removeprefix("~/")
    return shlex.quote(path) if inside == path else f'"$HOME"/{shlex.quote(inside)}'


def program(name: str) -> str:
    """A program for `sh`: a name on the PATH, or a path, from the home folder where it begins with no slash."""
    return quoted(name if "/" not in name or name.startswith(("/", "~/")) else f"~/{name}")


def _state(found: dict[str, str], before: float, after: float) -> DeviceState:
    captured = found.get("captured", "").split()
    incoming = _number(found.get("incoming", "")) or 0
    disk = re.search(r"(\d+)\s+(\d+)\s+(\d+)\s+\d+%", found.get("disk", ""))
    kept = _number(captured[0]) if captured else None
    size = _number(captured[1]) if len(captured) > 1 else None
    own = _state_without_folder(found, before, after)
    return DeviceState(
        machine=own.machine,
        system=own.system,
        python=own.python,
        clock_s=own.clock_s,
        edgetl=found.get("edgetl", "").strip(),
        current=_bundle_name(found.get("current", "")),
        previous=_bundle_name(found.get("previous", "")),
        bundles=_number(found.get("bundles", "")) or 0,
        free_bytes=int(disk[3]) << 10 if disk else None,
        # One file holds the lines.
        captured=max(0, (kept or 0) - 1) if size is not None else 0,
        captured_bytes=(size or 0) << 10,
        incoming_bytes=incoming,
    )


def _state_without_folder(found: dict[str, str], before: float, after: float) -> DeviceState:
    """What is known of a device whose folder is not there."""
    there = _number(found.get("time", ""))
    off = None
    if there is not None:
        # The answer was given somewhere in between, and is in whole seconds.
        off = 0.0 if before - 1 <= there <= after else round(there - (before + after) / 2, 1)
    python = _python(found.get("python", ""))
    return DeviceState(
        machine=found.get("machine", "").strip(),
        system=found.get("system", "").strip(),
        python=".".join(map(str, python.version)) if python else "",
        clock_s=off,
    )


def _bundle_name(target: str) -> str:
    name = target.strip().removeprefix("bundles/")
    return name if re.fullmatch(r"[A-Za-z0-9._-]+\.edgetl", name) else ""


def _python(text: str) -> PythonThere | None:
    words = text.split()
    if len(words) < 3 or not (words[1].isdigit() and words[2].isdigit()):
        return None
    libc, version = (words[3], words[4]) if len(words) > 4 else ("", "")
    numbers = tuple(int(part) for part in version.split(".") if part.isdigit())
    return PythonThere(
        implementation=words[0],
        version=(int(words[1]), int(words[2])),
        libc=libc if numbers else "",
        libc_version=numbers,
    )


def _number(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isdigit() else None


def _span(seconds: float) -> str:
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes, _ = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
