"""Devices side by side, in the terminal and as a page."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from edgetl.deploy.fleet.record import DeviceRecord, DeviceState, FleetRecord, Outcome
from edgetl.report.fleet import side_by_side, summary
from edgetl.report.page.fleet import render
from edgetl.report.terminal.fleet import fleet
from tests.deploy.fleet.devices import check
from tests.history.records import record as timed

STATE = DeviceState(
    machine="aarch64", python="3.11", edgetl="0.1.0", free_bytes=12_000_000_000, clock_s=-90.0
)
DEVICES = (
    DeviceRecord(
        device="line-1",
        host="pi@10.0.0.1",
        outcome=Outcome.DONE,
        sentence="Done.",
        seconds=3.2,
        current="flowers-1a2b.edgetl",
        before="flowers-0f0f.edgetl",
        sent_bytes=1_300_000,
        state=STATE,
        check=check(),
        bench=timed(4.0),
    ),
    DeviceRecord(
        device="line-2",
        host="line-2",
        outcome=Outcome.AWAY,
        sentence="The host line-2 cannot be reached: <no route>.",
        seconds=15.0,
    ),
)


def of(command: str) -> FleetRecord:
    return FleetRecord(command=command, fleet="fleet.toml", devices=DEVICES, seconds=15.2)


def test_a_deployment_in_the_terminal() -> None:
    stream = io.StringIO()
    fleet(Console(file=stream, width=120), of("deploy"))
    assert stream.getvalue() == (
        "device  outcome  runs          before          sent  golden  variant  engine      p50      p90   took\n"
        "─────────────────────────────────────────────────────────────────────────────────────────────────────\n"
        "line-1  done     flowers-1a2b  flowers-0f0f  1.3 MB  same    int8     cpu     4.00 ms  4.64 ms  3.2 s\n"
        "line-2  away     -             -                  -  -       -        -             -        -   15 s\n"
        "\n"
        "line-2: The host line-2 cannot be reached: <no route>.\n"
        "2 devices: 1 done, 1 away.\n"
    )


@pytest.mark.parametrize(
    ("command", "cells"),
    [
        ("status", ("aarch64", "3.11", "0.1.0", "flowers-1a2b", "12.0 GB", "-90 s", "0", "3.2 s")),
        ("init", ("aarch64", "3.11", "0.1.0", "flowers-1a2b", "3.2 s")),
        ("verify", ("flowers-1a2b", "same", "3.2 s")),
        ("rollback", ("flowers-1a2b", "flowers-0f0f", "1.3 MB", "same", "3.2 s")),
        ("capture", ("-", "-", "-", "-", "-", "3.2 s")),
    ],
)
def test_each_command_has_its_columns(command: str, cells: tuple[str, ...]) -> None:
    side = side_by_side(of(command))
    assert side.rows[0] == ("line-1", "done", *cells)
    assert len(side.heads) == len(side.rows[0]) == len(side.rows[1])
    assert summary(of(command)) == "2 devices: 1 done, 1 away."


def test_a_page_escapes_what_devices_say_and_names_their_machines() -> None:
    page = render(of("bench"))
    assert "&lt;no route&gt;" in page
    assert "Cortex-A76 x4, Linux aarch64" in page
    assert "<script" not in page
    assert page.count("<tr") == 3
