"""What `edgetl tune` found the fastest on this machine: a small file a bundle in the user's cache, read by `load`.

It holds for the bundle's bytes, this machine, the engines that are installed and a number of threads. All of that is
looked up again when it is read, so the looking must be cheap: no engine is imported, no program is started.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from edgetl.bundle.archive import Bundle
from edgetl.files import write_json
from edgetl.process import usable_cores
from edgetl.records.codec import from_json
from edgetl.records.frozen import dataclass
from edgetl.runtime.engines.table import ENGINES, engine_of
from edgetl.runtime.targets import Choice, EngineName, tuned_path
from edgetl.shell import command

SCHEMA_VERSION = 1
_KNOWN = frozenset(name for engine in ENGINES.values() for name in engine.packages)
# Linux describes a processor in a record of about one KiB per core, of which the first is enough.
_RECORD_BYTES = 4096
_NAMED = (
    "vendor_id",
    "model name",
    "cpu family",
    "model",
    "stepping",
    "CPU implementer",
    "CPU part",
    "Hardware",
)


@dataclass(frozen=True, kw_only=True)
class Winner:
    """The fastest with one number of threads, and what that holds for.

    Attributes:
        variant: the variant's name.
        target: the engine.
        reason: why, in one sentence.
        date: when it was measured, YYYY-MM-DD.
        machine: `this_machine()` then.
        versions: `engine_versions()` then.
        threads: the number of threads that it is the fastest with; None in older files, which go by their key.
    """

    variant: str
    target: EngineName
    reason: str
    date: str
    machine: str
    versions: dict[str, str]
    threads: int | None = None


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """The file: a winner for each number of threads that was asked for, by that number as text; and the one of all
    numbers that were tried."""

    schema_version: int = SCHEMA_VERSION
    by_threads: dict[str, Winner]
    of_all: Winner | None = None


def keep(bundle: Bundle, threads: int | None, winner: Winner) -> Path:
    """Save a winner next to those of other numbers of threads, atomically; return the file.

    `threads` is the number that was asked for, None where the winner's own was found.

    Raises:
        StorageError: it cannot be written.
    """
    from edgetl.locks import turn

    path = tuned_path(bundle)
    with turn(path.parent / ".lock"):
        try:
            known = _read(path, bundle)
        except (OSError, ValueError, RecursionError):
            known = Tuned(by_threads={})
        if threads is None:
            known = replace(known, of_all=winner)
        else:
            known = replace(known, by_threads={**known.by_threads, str(threads): winner})
        write_json(path, known)
    return path


def recall(path: Path, bundle: Bundle, threads: int | None) -> Choice | str:
    """The saved winner, or in a few words why none of the file holds here and now, and the remedy.

    A winner whose engine is gone is returned all the same: that it cannot be opened is an error, and nothing takes
    its place.

    Args:
        path: the file, `tuned_path(bundle)`.
        bundle: the bundle.
        threads: threads of the engine; None takes the best number, or else what was measured with every usable core.
    """
    renew = f"measure again with: {command('tune', bundle.path)}"
    try:
        known = _read(path, bundle)
    except (OSError, ValueError, RecursionError):
        return f"what edgetl tune saved in {path} cannot be read: {renew}"
    winner = known.of_all if threads is None else None
    count = usable_cores() if threads is None else threads
    if (winner := winner or known.by_threads.get(str(count))) is None:
        numbers = sorted(known.by_threads, key=int) + (["the best number of"] if known.of_all else [])
        asked = () if threads is None else ("--threads", str(threads))
        return (
            f"edgetl tune measured here with {' and '.join(numbers)} threads, not with {count}: "
            f"measure with: {command('tune', bundle.path, *asked)}"
        )
    if winner.machine != (here := this_machine()):
        return (
            f"what edgetl tune measured on {winner.date} is stale, as it was on {winner.machine} and this is {here}: "
            f"{renew}"
        )
    found = engine_versions()
    gone = not any(name in found for name in engine_of(winner.target).packages)
    if found != winner.versions and not gone:
        changed = _changes(winner.versions, found)
        return f"what edgetl tune measured on {winner.date} is stale, as engines changed ({changed}): {renew}"
    return Choice(
        variant=winner.variant,
        target=winner.target,
        reason=winner.reason,
        measured_here=True,
        threads=winner.threads or count,
    )


def this_machine(root: Path = Path("/")) -> str:
    """What distinguishes machines and is read in well under a millisecond: processor, cores, board, NVIDIA's GPUs.

    `edgetl.bench.machine.describe` says more, and starts a program to do so.

    Args:
        root: where `proc` is; another folder in tests.
    """
    lines = _start(root / "proc/cpuinfo").splitlines()
    fields: dict[str, str] = {}
    for name, colon, value in (line.partition(":") for line in lines):
        if colon and name.strip() in _NAMED:
            fields.setdefault(name.strip(), value.strip())
    # Elsewhere than on Linux: the processor on Windows, the kernel with the chip's name on macOS.
    named = " ".join(fields.values()) or os.environ.get("PROCESSOR_IDENTIFIER") or platform.version()
    stated = [
        f"{platform.machine()} {named} x{usable_cores()}",
        _start(root / "proc/device-tree/model").rstrip("\0"),
    ]
    gpus = sorted(root.glob("proc/driver/nvidia/gpus/*/information"))
    stated += [line.strip() for gpu in gpus for line in _start(gpu).splitlines() if line.startswith("Model")]
    if gpus:
        stated += _start(root / "proc/driver/nvidia/version").splitlines()[:1]
    return ", ".join(" ".join(text.split()) for text in stated if text)


def engine_versions() -> dict[str, str]:
    """Package to version of every engine that is installed, by the names of their metadata's folders.

    As `importlib.metadata` finds them, without importing it, which would cost a start more than all the rest.
    """
    found: dict[str, str] = {}
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")  # noqa: PTH208
        except OSError:  # A zip, or a folder that is not there.
            continue
        for name in names:
            if name.endswith((".dist-info", ".egg-info")):
                package, _, version = name.rpartition(".")[0].partition("-")
                package = re.sub(r"[-_.]+", "-", package).lower()
                if package in _KNOWN:
                    found.setdefault(package, version)
    return found


def _read(path: Path, bundle: Bundle) -> Tuned:
    """Raises ValueError where it is no such file, or not one of this bundle."""
    values = json.loads(path.read_text(encoding="utf-8"))
    found = from_json(Tuned, values)
    if found.schema_version != SCHEMA_VERSION or not (found.by_threads or found.of_all):
        raise ValueError(f"schema_version is {found.schema_version}, expected {SCHEMA_VERSION}")
    winners = {**found.by_threads, **({"0": found.of_all} if found.of_all else {})}
    for threads, winner in winners.items():
        int(threads)
        if bundle.manifest.variant(winner.variant) is None or winner.target is EngineName.AUTO:
            raise ValueError(f"the bundle has no {winner.variant} on {winner.target}")
    return found


def _changes(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """`openvino 2026.3.0, now 2026.4.1`, for each that differs."""
    names = sorted(n for n in {**before, **now} if before.get(n) != now.get(n))
    return ", ".join(f"{n} {before.get(n, 'absent')}, now {now.get(n, 'absent')}" for n in names)


def _start(path: Path) -> str:
    """The first few KiB of a file that may be missing."""
    try:
        with path.open("rb", buffering=0) as file:
            return file.read(_RECORD_BYTES).decode(errors="replace")
    except OSError:
        return ""
