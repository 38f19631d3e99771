"""All devices: what was answered is kept, limits hold, Ctrl-C ends every connection."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from edgetl.bench.tune import Trial, TrialOutcome, TuneRecord
from edgetl.deploy.fleet.ask import verify
from edgetl.deploy.fleet.config import Fleet
from edgetl.deploy.fleet.link import Calls, Link
from edgetl.deploy.fleet.place import Place
from edgetl.deploy.fleet.record import DeviceRecord, Outcome
from edgetl.deploy.fleet.run import Keeping, run
from edgetl.deploy.fleet.work import Reporter
from edgetl.errors import DeviceAwayError, DeviceError
from edgetl.progress import SilentProgress
from edgetl.records.gate import Verdict
from edgetl.runtime.targets import EngineName
from tests.cli.typed import edgetl, hears_ctrl_c
from tests.deploy.fleet.devices import Lab, check
from tests.deploy.fleet.test_deploy import report
from tests.history.records import MACHINE, record

ROOT = Path(__file__).parents[3]


def link_of(fleet: Fleet) -> Link:
    return Link(fleet.devices[0], fleet, Calls(), None)


def test_no_more_devices_than_asked_for_are_worked_on_at_once(lab: Lab) -> None:
    names = [f"d{number}" for number in range(12)]
    fleet = lab.fleet("parallel = 3", **dict.fromkeys(names, ""))
    lock, now, most = threading.Lock(), 0, 0

    def work(place: Place, reporter: Reporter) -> DeviceRecord:
        nonlocal now, most
        with lock:
            now, most = now + 1, max(most, now + 1)
        time.sleep(0.02)
        with lock:
            now -= 1
        return reporter.record(Outcome.DONE, "Done.")

    found = run(fleet, "status", work)
    assert [device.device for device in found.devices] == names
    assert most == 3


def test_records_that_are_kept_are_not_asked_for_again(lab: Lab) -> None:
    fleet = lab.fleet(a="", b="")
    asked: list[str] = []

    def work(place: Place, reporter: Reporter) -> DeviceRecord:
        asked.append(place.device.name)
        if place.device.name == "b" and len(asked) < 3:
            raise DeviceAwayError("it is away.")
        return reporter.record(Outcome.DONE, "Done.", bench=record(3.0))

    keeping = Keeping(folder=lab.folder / "kept", question=["bench", 10])
    first = run(fleet, "bench", work, keeping=keeping)
    assert [d.outcome.value for d in first.devices] == ["done", "away"]
    assert first.exit_code == 2
    second = run(fleet, "bench", work, keeping=keeping)
    assert second.devices[0] == first.devices[0]
    assert second.exit_code == 0
    assert sorted(asked) == ["a", "b", "b"]
    run(fleet, "bench", work, keeping=Keeping(folder=lab.folder / "kept", question=["bench", 20]))
    assert len(asked) == 5


def test_the_bar_counts_steps_and_ends_full(lab: Lab) -> None:
    lab.device("line-1")
    fleet = lab.fleet(**{"line-1": "", "away": ""})
    moved: list[tuple[int, str]] = []

    class Bar:
        def advance(self, steps: int = 1, note: str = "") -> None:
            moved.append((steps, note))

    class Bars(SilentProgress):
        @contextmanager
        def task(self, description: str, total: int) -> Iterator[Bar]:
            assert (description, total) == ("fleet verify, steps", 4)
            yield Bar()

    run(fleet, "verify", lambda place, reporter: verify(place, None, reporter), progress=Bars())
    assert sum(steps for steps, _ in moved) == 4
    assert {note for _, note in moved} >= {"line-1: look", "line-1: refused", "away: away"}


def test_a_bug_is_no_outcome_of_a_device(lab: Lab) -> None:
    def work(place: Place, reporter: Reporter) -> DeviceRecord:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(lab.fleet(a="", b=""), "status", work)


def test_an_upload_that_stands_still_is_broken_off(lab: Lab) -> None:
    lab.device("line-1")
    with pytest.raises(
        DeviceAwayError, match=r"it stood still for 1 s and was broken off. .* raise stall_s in"
    ):
        link_of(lab.fleet("stall_s = 1")).call("sleep 30", data=[b"x" * 100_000] * 100)


def test_what_takes_too_long_is_not_tried_again(lab: Lab) -> None:
    lab.device("line-1")
    link = link_of(replace(lab.fleet(), retries=5))
    link.call("true")
    with pytest.raises(DeviceAwayError, match=r"it took longer than 0\.2 s there"):
        link.tried("sleep 30", limit_s=0.2)
    assert lab.calls("line-1") == 2


def test_a_device_that_never_stops_talking_is_broken_off(lab: Lab) -> None:
    lab.device("line-1")
    with pytest.raises(DeviceError, match="it answered more than 1 MB"):
        link_of(lab.fleet()).call(
            "while :; do echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; done", most_bytes=1_000_000
        )


def test_what_is_quoted_arrives_as_it_is(lab: Lab) -> None:
    lab.device("line-1")
    answer = link_of(lab.fleet()).call("echo 'it'\"'\"'s $HOME'; echo said >&2; exit 7")
    assert (answer.code, answer.text, answer.last_words) == (7, "it's $HOME\n", "said")


def test_without_ssh_the_remedy_is_named(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.device("line-1")
    path = lab.write()
    monkeypatch.setenv("PATH", str(lab.folder / "nothing"))
    done = edgetl("fleet", "status", path)
    assert done.returncode == 2
    assert "Error: The OpenSSH client (ssh) is not available. Install it with your system" in done.stderr


def test_the_commands_as_they_are_typed(lab: Lab, bundles: tuple[Path, Path]) -> None:
    lab.device("line-1")
    lab.device("line-2")
    path = lab.write(**{"line-1": "", "line-2": "", "away": ""})
    done = edgetl("fleet", "deploy", path, bundles[0])
    assert done.returncode == 2, done
    assert "3 devices: 2 done, 1 away." in done.stdout
    assert "away: The host away cannot be reached: " in done.stdout
    here = ("--only", "line-1", "--only", "line-2")
    lab.answers("line-2", "verify", check(False), code=1)
    done = edgetl("fleet", "verify", path, *here, "--json", "--out", lab.folder / "kept")
    assert (done.returncode, done.stderr.partition(":")[0]) == (1, "line-2")
    assert [d["outcome"] for d in json.loads(done.stdout)["devices"]] == ["done", "failed"]
    assert edgetl("fleet", "verify", path, *here, "--out", lab.folder / "kept").returncode == 1
    done = edgetl("fleet", "bench", path, *here, "--scenario", "offline", "--page", lab.folder / "page.html")
    assert done.returncode == 0, done
    assert lab.asked("line-1")[-1].endswith("--runs 200 --scenario offline --json")
    page = (lab.folder / "page.html").read_text()
    assert "line-2" in page
    assert "Cortex-A76 x4, Linux aarch64" in page
    lab.answers("line-1", "gate", report(Verdict.UNSURE), code=3)
    lab.answers("line-2", "gate", report(Verdict.PASS))
    done = edgetl("fleet", "gate", path, bundles[1], *here)
    assert done.returncode == 3, done
    assert "cannot tell" in done.stdout
    back = edgetl("fleet", "gate", path, "--only", "line-1")
    assert (back.returncode, "it has no bundle from before" in back.stdout.lower()) == (2, True)
    trial = Trial(
        target=EngineName.CPU, outcome=TrialOutcome.CHOSEN, variant="fp32", latency=record(2.5).latency
    )
    tuned = TuneRecord(
        bundle="b",
        threads=2,
        best_threads=1,
        trials=(trial,),
        variant="fp32",
        target=EngineName.CPU,
        reason="it is the fastest",
        date="2026-11-29",
        saved="s",
        versions={},
        machine=MACHINE,
    )
    lab.answers("line-1", "tune", tuned)
    done = edgetl("fleet", "tune", path, "--only", "line-1")
    assert (done.returncode, "2.5" in done.stdout) == (0, True)
    done = edgetl("fleet", "status", path, *here)
    assert (done.returncode, "2 devices: 2 done." in done.stdout) == (0, True)
    (lab.folder / "line-1" / "edgetl" / "captured").mkdir()
    done = edgetl("fleet", "capture", path, "--only", "line-1", "-o", lab.folder / "home")
    assert (done.returncode, "line-1" in done.stdout) == (0, True)


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([Outcome.DONE, Outcome.DONE], 0),
        ([Outcome.UNSURE, Outcome.AWAY], 2),
        ([Outcome.REFUSED, Outcome.FAILED, Outcome.UNSURE], 1),
        ([Outcome.DONE, Outcome.UNSURE], 3),
    ],
)
def test_the_exit_code_is_the_worst(outcomes: list[Outcome], code: int) -> None:
    from edgetl.deploy.fleet.record import FleetRecord

    devices = tuple(DeviceRecord(device="d", host="h", outcome=o, sentence="s") for o in outcomes)
    assert FleetRecord(command="gate", fleet="f", devices=devices).exit_code == code


def test_ctrl_c_ends_every_connection_at_once(lab: Lab) -> None:
    path = lab.write(**{"slow": ""})
    command = [sys.executable, "-m", "edgetl", "fleet", "status", str(path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=hears_ctrl_c,
    ) as process:
        time.sleep(0.5)
        for _ in range(100):
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            threads = Path(f"/proc/{process.pid}/task").glob("*/children") if children.exists() else []
            if any(path.read_text().strip() for path in threads):
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert "Stopped after 0 of 1 devices. The same command goes on where it stopped." in err
