"""What a command over many devices returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from edgetl.bench.tune import TuneRecord
from edgetl.bundle.golden import GoldenCheck
from edgetl.records.bench import BenchRecord
from edgetl.records.gate import GateReport


class Outcome(StrEnum):
    """What became of a device.

    `failed`: what was measured there forbids it, exit code 1. `refused`: the device, its connection or the input is at
    fault, exit code 2. `away`: it cannot be reached, is too slow, or the connection broke, exit code 2. `unsure`: a
    gate cannot tell, exit code 3.
    """

    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"
    AWAY = "away"
    UNSURE = "unsure"

    @property
    def exit_code(self) -> int:
        """The exit code that a command for this device alone would have."""
        return _CODES[self]


_CODES: Mapping[Outcome, int] = {
    Outcome.DONE: 0,
    Outcome.FAILED: 1,
    Outcome.REFUSED: 2,
    Outcome.AWAY: 2,
    Outcome.UNSURE: 3,
}


@dataclass(frozen=True, kw_only=True)
class DeviceState:
    """What stands on a device; text is empty and numbers are None where it does not say.

    Attributes:
        machine: of the processor, as `uname -m` has it.
        system: the kernel's name, as `uname -s` has it.
        python: version of its Python.
        edgetl: version of edgetl in the environment that runs.
        current: file of the bundle that runs.
        previous: file of the one before.
        bundles: whole bundles there.
        free_bytes: that the disk of the folder has left.
        clock_s: seconds by which its clock is before ours.
        captured: images that it keeps.
        captured_bytes: their size.
        incoming_bytes: of uploads that are not finished.
    """

    machine: str = ""
    system: str = ""
    python: str = ""
    edgetl: str = ""
    current: str = ""
    previous: str = ""
    bundles: int = 0
    free_bytes: int | None = None
    clock_s: float | None = None
    captured: int = 0
    captured_bytes: int = 0
    incoming_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Brought:
    """What was brought home of a device's images.

    Attributes:
        folder: where they are now.
        images: those that lie there.
        new: those that came now.
        size_bytes: of those that came now.
        left: those still to come, over the limit of this command.
        gone: those that have a line there and no picture.
        broken: those whose bytes are not those of their line, on the device already.
        torn: lines that cannot be read.
        removed: pictures that were removed there after they had arrived.
    """

    folder: str
    images: int
    new: int
    size_bytes: int
    left: int = 0
    gone: int = 0
    broken: int = 0
    torn: int = 0
    removed: int = 0


@dataclass(frozen=True, kw_only=True)
class DeviceRecord:
    """What became of one device.

    Attributes:
        device: its name.
        host: as `ssh` has it.
        outcome: the outcome.
        sentence: it in words.
        step: the step that was reached.
        seconds: how long it took.
        current: file of the bundle that runs there now, where it is known.
        before: the one that ran before, where it was changed.
        sent_bytes: that were sent of the bundle or of wheels.
        state: what stands there.
        check: the golden images' outputs there.
        bench: the measurement there.
        gate: the gate there.
        tuned: what is fastest there.
        brought: images that were brought home.
    """

    device: str
    host: str
    outcome: Outcome
    sentence: str
    step: str = ""
    seconds: float = 0.0
    current: str = ""
    before: str = ""
    sent_bytes: int = 0
    state: DeviceState | None = None
    check: GoldenCheck | None = None
    bench: BenchRecord | None = None
    gate: GateReport | None = None
    tuned: TuneRecord | None = None
    brought: Brought | None = None


@dataclass(frozen=True, kw_only=True)
class FleetRecord:
    """What became of all devices, in the order of the file.

    Attributes:
        command: which, e.g. `deploy`.
        fleet: the file of devices.
        bundle: the bundle that was carried there, where there was one.
        devices: one record each.
        seconds: how long all of it took.
    """

    command: str
    fleet: str
    devices: tuple[DeviceRecord, ...]
    bundle: str = ""
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """1 where a device failed; else 2 where one is away or refused; else 3 where a gate cannot tell; else 0."""
        found = {device.outcome.exit_code for device in self.devices}
        return next((code for code in (1, 2, 3) if code in found), 0)
