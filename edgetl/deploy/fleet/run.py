"""A command over all devices: in parallel, each for itself; one that is away or slow stops no other."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from edgetl.deploy.fleet.config import Device, Fleet
from edgetl.deploy.fleet.link import Calls, Link, sockets_folder
from edgetl.deploy.fleet.place import Place
from edgetl.deploy.fleet.record import DeviceRecord, FleetRecord, Outcome
from edgetl.deploy.fleet.work import Reporter
from edgetl.errors import DeviceAwayError, DeviceError, Interrupted
from edgetl.files import read_json, sha256_json, write_json
from edgetl.progress import SILENT, Progress, ProgressTask
from edgetl.records.codec import from_json, to_json
from edgetl.records.frozen import dataclass

STEPS = {
    "init": 5,
    "deploy": 6,
    "status": 1,
    "verify": 2,
    "bench": 2,
    "gate": 3,
    "tune": 2,
    "capture": 4,
    "rollback": 3,
}
"""Steps of each command on a device, at most; only for the bar."""
Work = Callable[[Place, Reporter], DeviceRecord]
"""What is done on one device."""


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """Where records are kept, so that a second run asks only devices that gave none.

    Attributes:
        folder: one file for each device.
        question: what was asked, plain values; records of another question are not taken.
    """

    folder: Path
    question: Any


@dataclass(frozen=True, kw_only=True)
class _Kept:
    question: str
    record: Any


def run(
    fleet: Fleet,
    command: str,
    work: Work,
    *,
    bundle: str = "",
    keeping: Keeping | None = None,
    progress: Progress = SILENT,
) -> FleetRecord:
    """Do something on every device.

    Args:
        fleet: the devices.
        command: what is done, for the record.
        work: done on each; its errors of `DeviceError` become the device's outcome.
        bundle: the bundle that is carried, for the record.
        keeping: where records are kept.
        progress: shows how many steps of how many devices are done.

    Raises:
        Interrupted: the user stopped it; what was done on the devices stays.
    """
    started, steps = time.monotonic(), STEPS.get(command, 1)
    found: dict[str, DeviceRecord] = {}
    for device in fleet.devices:
        if keeping is not None and (kept := _kept(keeping, device)) is not None:
            found[device.name] = kept
    todo = [device for device in fleet.devices if device.name not in found]
    calls = Calls()
    with (
        sockets_folder() as sockets,
        progress.task(f"fleet {command}, steps", steps * len(fleet.devices)) as bar,
        ThreadPoolExecutor(max_workers=max(1, min(fleet.parallel, len(todo)))) as pool,
    ):
        bar.advance(steps * len(found))
        waiting = {
            pool.submit(_one, device, fleet, calls, sockets, work, bar, steps): device for device in todo
        }
        try:
            for future in as_completed(waiting):
                record = future.result()
                found[record.device] = record
                if keeping is not None and record.outcome not in (Outcome.AWAY, Outcome.REFUSED):
                    _keep(keeping, waiting[future], record)
        except BaseException as error:
            for future in waiting:
                future.cancel()
            calls.stop()
            if isinstance(error, KeyboardInterrupt):
                raise Interrupted(
                    f"Stopped after {len(found)} of {len(fleet.devices)} devices. The same command goes on where it"
                    " stopped."
                ) from None
            raise
    return FleetRecord(
        command=command,
        fleet=str(fleet.path),
        bundle=bundle,
        devices=tuple(found[device.name] for device in fleet.devices),
        seconds=round(time.monotonic() - started, 3),
    )


def _one(
    device: Device,
    fleet: Fleet,
    calls: Calls,
    sockets: Path | None,
    work: Work,
    bar: ProgressTask,
    steps: int,
) -> DeviceRecord:
    reporter = Reporter(device, bar.advance)
    link = Link(device, fleet, calls, sockets)
    try:
        record = work(Place(link, fleet), reporter)
    except DeviceError as error:
        away = isinstance(error, DeviceAwayError)
        text = str(error)
        record = reporter.record(Outcome.AWAY if away else Outcome.REFUSED, text[:1].upper() + text[1:])
    finally:
        link.close()
    bar.advance(steps - reporter.steps, f"{device.name}: {record.outcome.value}")
    return record


def _question(keeping: Keeping, device: Device) -> str:
    return sha256_json({"question": keeping.question, "device": to_json(device)})


def _keep(keeping: Keeping, device: Device, record: DeviceRecord) -> None:
    kept = _Kept(question=_question(keeping, device), record=to_json(record))
    write_json(keeping.folder / f"{device.name}.json", kept)


def _kept(keeping: Keeping, device: Device) -> DeviceRecord | None:
    """An earlier answer to the same question; None where there is none."""
    try:
        kept = read_json(keeping.folder / f"{device.name}.json", _Kept)
        return from_json(DeviceRecord, kept.record) if kept.question == _question(keeping, device) else None
    except (OSError, ValueError, RecursionError):
        return None
