"""One device at work: which step it is at, and its record in the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from edgetl.deploy.fleet.config import Device
from edgetl.deploy.fleet.record import DeviceRecord, Outcome


class Reporter:
    """Says how far the work on a device is, and makes its record."""

    def __init__(self, device: Device, say: Callable[[int, str], None]) -> None:
        """`say` takes finished steps and a short note, e.g. `line-1: upload 1.2 MB`."""
        self._device, self._say = device, say
        self._started = time.monotonic()
        self.at = ""
        self.steps = 0

    def step(self, name: str) -> None:
        """A step begins, and the one before it is finished."""
        finished = 1 if self.at else 0
        self.at, self.steps = name, self.steps + finished
        self._say(finished, f"{self._device.name}: {name}")

    def bytes(self, there: int) -> None:
        """So many bytes of a file are there."""
        self._say(0, f"{self._device.name}: {self.at} {there / 1e6:.1f} MB")

    def record(self, outcome: Outcome, sentence: str, **found: Any) -> DeviceRecord:
        """The device's record."""
        return DeviceRecord(
            device=self._device.name,
            host=self._device.host,
            outcome=outcome,
            sentence=sentence,
            step=self.at,
            seconds=round(time.monotonic() - self._started, 3),
            **found,
        )
