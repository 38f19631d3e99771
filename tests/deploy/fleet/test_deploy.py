"""A device always has the old bundle or the new one, whole; and what went wrong is one sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgetl.bundle.pack import pack
from edgetl.deploy.fleet.deploy import Deployment, deploy, deployment, rollback
from edgetl.deploy.fleet.link import Calls
from edgetl.deploy.fleet.record import DeviceRecord, Outcome
from edgetl.deploy.fleet.run import run
from edgetl.errors import DeviceAwayError, DeviceError
from edgetl.files import sha256_file
from edgetl.records.gate import GateCheck, GateReport, Verdict
from tests.bundles import contents
from tests.deploy.fleet.devices import Lab, check, place_of, runs, stand
from tests.history.records import MACHINE

Bundles = tuple[Path, Path]


def put(lab: Lab, bundle: Path, text: str = "", **wanted: object) -> DeviceRecord:
    """Deploy on the lab's first device."""
    fleet = lab.fleet(text)
    place, told = place_of(fleet, Calls())
    return deploy(place, deployment(bundle, fleet.require_signature, **wanted), told)


def refusal(lab: Lab, bundle: Path, text: str = "", **wanted: object) -> str:
    with pytest.raises(DeviceError) as raised:
        put(lab, bundle, text, **wanted)
    return str(raised.value)


def report(verdict: Verdict) -> GateReport:
    checked = GateCheck(
        name="latency",
        unit="ms",
        baseline=4.0,
        current=5.0,
        change=0.25,
        interval=None,
        limit=0.025,
        judged=True,
        verdict=verdict,
        sentence="The median is 25% longer.",
    )
    return GateReport(
        baseline="old", current="new", variant="fp32", target="cpu", checks=(checked,), machine=MACHINE
    )


def test_a_bundle_is_carried_proven_measured_and_runs(lab: Lab, bundles: Bundles) -> None:
    old, new = bundles
    root = lab.device("line-1")
    first = put(lab, old)
    assert (first.outcome, first.before, first.sent_bytes) == (Outcome.DONE, "", old.stat().st_size)
    assert first.bench is not None
    assert first.bench.latency.p50_ms == 4.0
    second = put(lab, new, runs=50)
    assert runs(root) == sha256_file(new)
    assert (second.current, second.before) == (f"flowers-two-{sha256_file(new)[:16]}.edgetl", first.current)
    assert [line.split(" ")[2] for line in lab.asked("line-1")[-3:]] == ["info", "verify", "bench"]
    assert lab.asked("line-1")[-1].endswith("--runs 50 --json")
    assert sha256_file(root / "previous.edgetl") == sha256_file(old)
    again = put(lab, new)
    assert (again.sent_bytes, again.before, again.outcome) == (0, "", Outcome.DONE)
    assert sha256_file(root / "previous.edgetl") == sha256_file(old)
    assert not list((root / "incoming").iterdir())


def test_busybox_is_enough(lab: Lab, bundles: Bundles) -> None:
    lab.busybox()
    root = lab.device("line-1")
    for bundle in bundles:
        assert put(lab, bundle).outcome is Outcome.DONE
    assert [runs(root), sha256_file(root / "previous.edgetl")] == [
        sha256_file(path) for path in reversed(bundles)
    ]
    place, _ = place_of(lab.fleet(), Calls())
    assert (place.look().state.bundles, place.look().state.clock_s) == (2, 0.0)


def test_bundles_that_nothing_leads_to_any_more_are_removed(
    lab: Lab, bundles: Bundles, tmp_path: Path
) -> None:
    root = lab.device("line-1")
    pack(replace(contents(tmp_path), name="third"), tmp_path / "third.edgetl")
    for bundle in (*bundles, tmp_path / "third.edgetl"):
        put(lab, bundle)
    assert len(list((root / "bundles").iterdir())) == 2
    assert sha256_file(root / "previous.edgetl") == sha256_file(bundles[1])


def test_a_rollback_goes_back_and_forth(lab: Lab, bundles: Bundles) -> None:
    old, new = bundles
    root = lab.device("line-1")
    put(lab, old)
    place, told = place_of(lab.fleet(), Calls())
    with pytest.raises(DeviceError, match="it has no bundle from before to go back to"):
        rollback(place, told)
    put(lab, new)
    assert rollback(place, told).outcome is Outcome.DONE
    assert runs(root) == sha256_file(old)
    lab.answers("line-1", "verify", check(False), code=1)
    stayed = rollback(place, told)
    assert stayed.outcome is Outcome.FAILED
    assert stayed.sentence.endswith(f"{stayed.current} stays.")
    assert runs(root) == sha256_file(old)
    lab.answers("line-1", "verify", check())
    assert rollback(place, told).outcome is Outcome.DONE
    assert runs(root) == sha256_file(new)


@pytest.mark.parametrize(
    ("command", "answer", "code", "wanted", "outcome", "sentence"),
    [
        ("verify", check(False), 1, {}, Outcome.FAILED, "does not compute what was recorded"),
        (
            "bench",
            None,
            0,
            {"max_ms": 3.5},
            Outcome.FAILED,
            "The median there is 4 ms, and 3.5 ms are allowed.",
        ),
        ("gate", report(Verdict.FAIL), 1, {"gate": True}, Outcome.FAILED, "The median is 25% longer."),
        ("gate", report(Verdict.UNSURE), 3, {"gate": True}, Outcome.UNSURE, "The median is 25% longer."),
    ],
)
def test_what_is_measured_there_may_forbid_it_and_the_old_bundle_stays(
    lab: Lab,
    bundles: Bundles,
    command: str,
    answer: object,
    code: int,
    wanted: dict[str, object],
    outcome: Outcome,
    sentence: str,
) -> None:
    old, new = bundles
    root = lab.device("line-1")
    put(lab, old)
    if answer is not None:
        lab.answers("line-1", command, answer, code)
    record = put(lab, new, **wanted)
    assert (record.outcome, record.outcome.exit_code) == (outcome, 3 if outcome is Outcome.UNSURE else 1)
    assert sentence in record.sentence
    assert record.sentence.endswith(f"{record.current} stays.")
    assert runs(root) == sha256_file(old)


def test_a_gate_that_passes_lets_it_run(lab: Lab, bundles: Bundles) -> None:
    root = lab.device("line-1")
    put(lab, bundles[0], gate=True)  # Nothing runs there to hold it to.
    lab.answers("line-1", "gate", report(Verdict.PASS))
    assert put(lab, bundles[1], gate=True, data="photos of today").gate is not None
    assert lab.asked("line-1")[-1].endswith("--data photos of today --json")
    assert runs(root) == sha256_file(bundles[1])


@pytest.mark.parametrize("mode", ["before", "after"])
def test_whenever_the_connection_breaks_the_old_or_the_new_bundle_is_there_whole(
    lab: Lab, bundles: Bundles, mode: str
) -> None:
    old, new = bundles
    root = lab.device("line-1")
    hashes = {sha256_file(old), sha256_file(new)}
    fleet = lab.fleet()
    wanted = deployment(new, None)
    broke, breaks = True, 0
    while broke:
        stand(root, old)
        place, told = place_of(fleet, Calls())
        lab.cut("line-1", breaks + 1, mode)
        try:
            broke = not deploy(place, wanted, told)
        except DeviceAwayError:
            breaks += 1
        assert runs(root) in hashes
        lab.mend("line-1")
        # The same again goes on.
        assert deploy(place, wanted, told).outcome is Outcome.DONE
        assert runs(root) == sha256_file(new)
    # The look, the old bundle's task, the upload, its hash and name, the golden images, the time, the switch; not the
    # tidying, without which the new one runs as well.
    assert breaks == 7


def test_an_upload_goes_on_where_it_stopped(lab: Lab, bundles: Bundles) -> None:
    new = bundles[1]
    root = lab.device("line-1")
    lab.cut("line-1", 2, "middle")
    with pytest.raises(DeviceAwayError, match="it goes on where it stopped"):
        put(lab, new)
    (part,) = (root / "incoming").iterdir()
    came = part.stat().st_size
    assert 0 < came < new.stat().st_size
    assert put(lab, new).sent_bytes == new.stat().st_size - came
    assert runs(root) == sha256_file(new)


def test_a_connection_that_breaks_is_tried_again(
    lab: Lab, bundles: Bundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Calls, "pause", lambda self, seconds: None)
    lab.device("line-1")
    lab.cut("line-1", 2, "middle")
    lab.cut("line-1", 4, "middle")
    place, told = place_of(replace(lab.fleet(), retries=2), Calls())
    assert deploy(place, deployment(bundles[1], None), told).outcome is Outcome.DONE


def test_what_an_earlier_upload_left_wrong_is_begun_anew(lab: Lab, bundles: Bundles) -> None:
    new = bundles[1]
    root = lab.device("line-1")
    (root / "incoming").mkdir()
    (root / "incoming" / f"{sha256_file(new)[:16]}.part").write_bytes(b"x" * 1000)
    assert put(lab, new).outcome is Outcome.DONE
    assert runs(root) == sha256_file(new)


def test_a_bundle_that_was_altered_on_the_way_is_refused(lab: Lab, bundles: Bundles) -> None:
    old, new = bundles
    root = lab.device("line-1")
    put(lab, old)
    lab.cut("line-1", 3, "altered")
    assert refusal(lab, new).startswith("new.edgetl was altered on the way: ")
    assert runs(root) == sha256_file(old)
    assert not list((root / "incoming").iterdir())


def test_a_bundle_for_another_task_is_refused(lab: Lab, bundles: Bundles) -> None:
    lab.device("line-1")
    put(lab, bundles[0])
    lab.answers("line-1", "info", {"task": {"kind": "detection"}})
    said = refusal(lab, bundles[1])
    assert "is for the task detection, and new.edgetl is for classification" in said
    assert said.endswith("Where that is meant, add --other-task.")
    assert put(lab, bundles[1], other_task=True).outcome is Outcome.DONE


def test_too_little_disk_is_said_before_anything_is_sent(lab: Lab, bundles: Bundles) -> None:
    lab.device("line-1")
    lab.program("df", "echo '/dev/root 30000 29000 1000 97% /'")
    said = refusal(lab, bundles[0])
    assert said.startswith("its disk has 1.0 MB left in edgetl, and 0.")
    assert said.endswith("Free some space there, or name another folder.")


def test_a_disk_that_is_full_in_the_midst_of_it_is_said(lab: Lab, bundles: Bundles) -> None:
    lab.device("line-1")
    lab.program("cat", "head -c 100; echo 'cat: write error: No space left on device' >&2; exit 1")
    assert refusal(lab, bundles[0]).startswith("its disk is full. Free some space there")


def test_a_clock_that_is_off_is_said(lab: Lab, bundles: Bundles) -> None:
    lab.device("line-1")
    lab.program("date", 'if test "$1" = +%s; then echo 1000000000; fi')
    said = refusal(lab, bundles[0])
    assert said.startswith("its clock is ")
    assert "behind: times of measurements and kept images would be wrong" in said


def test_a_device_without_edgetl_is_told_the_command(lab: Lab, bundles: Bundles) -> None:
    lab.device("line-1", installed=False)
    said = refusal(lab, bundles[0], 'python = "python9"')
    assert said == (
        "Nothing is installed in edgetl there and it has no Python `python9`. Install edgetl with: edgetl fleet init"
        f" {lab.folder}/fleet.toml --only line-1"
    )


def test_what_edgetl_says_there_is_passed_on(lab: Lab, bundles: Bundles) -> None:
    root = lab.device("line-1")
    (root / "env/bin/verify.json").unlink()
    (root / "env/bin/verify.code").write_text("2")
    (root / "env/bin/verify.error").write_text("Runs fp32\nError: It was written for a newer schema.\n")
    assert refusal(lab, bundles[0]) == "its edgetl verify says: It was written for a newer schema."
    lab.answers("line-1", "verify", {"variant": "x"})
    assert "gave an answer that this version does not read" in refusal(lab, bundles[0])


def test_a_signature_is_required_here_and_there(lab: Lab, bundles: Bundles, tmp_path: Path) -> None:
    signature = pytest.importorskip("edgetl.bundle.signature")
    pytest.importorskip("cryptography")
    from edgetl.errors import BundleIntegrityError

    signature.make_keys(tmp_path / "key.pem")
    root = lab.device("line-1")
    text = 'require_signature = "key.pem.pub"'
    with pytest.raises(BundleIntegrityError, match="is not signed"):
        put(lab, bundles[0], text)
    signature.sign(bundles[0], tmp_path / "key.pem", tmp_path / "signed.edgetl")
    assert put(lab, tmp_path / "signed.edgetl", text).outcome is Outcome.DONE
    assert "--require-signature incoming/key.pub" in lab.asked("line-1")[0]
    assert (root / "incoming/key.pub").read_bytes() == (tmp_path / "key.pem.pub").read_bytes()


def test_devices_that_are_away_or_refuse_stop_no_other(lab: Lab, bundles: Bundles) -> None:
    lab.device("line-1")
    lab.device("line-2")
    names = (
        "line-1",
        "unknown",
        "refuses",
        "stranger",
        "changed",
        "away",
        "closed",
        "silent",
        "shell-less",
        "slow",
    )
    fleet = lab.fleet("step_s = 1", **dict.fromkeys((*names, "line-2"), ""))
    wanted: Deployment = deployment(bundles[0], None)
    record = run(fleet, "deploy", lambda place, told: deploy(place, wanted, told))
    found = {device.device: (device.outcome.value, device.sentence) for device in record.devices}
    assert list(found) == [*names, "line-2"]
    assert [found[name][0] for name in ("line-1", "line-2")] == ["done", "done"]
    path = fleet.path
    assert found["unknown"] == (
        "away",
        f"The host unknown is not known. Check its line `host` in {path}, or your ssh settings.",
    )
    assert found["refuses"] == (
        "refused",
        "The host refuses refuses the key. Add yours there with: ssh-copy-id refuses; or load the right one with"
        " ssh-add.",
    )
    assert found["stranger"][1] == (
        "The host key of stranger is not known. Log in once and compare it with: ssh stranger"
    )
    assert "it was set up anew, or it is not that device" in found["changed"][1]
    assert found["away"][1].startswith(
        "The host away cannot be reached: ssh: connect to host away port 22: Connection timed"
    )
    assert found["closed"][1].endswith("Is sshd running there?")
    assert "ssh gave no reason" in found["silent"][1]
    assert found["shell-less"][1].endswith("It needs `sh`.")
    assert found["slow"] == (
        "away",
        f"It took longer than 1 s there and was broken off. Run the command again when it is less busy, or raise step_s"
        f" in {path}.",
    )
    assert record.exit_code == 2


def test_what_a_shell_says_by_itself_is_not_taken_for_an_answer(lab: Lab, bundles: Bundles) -> None:
    lab.device("chatty")
    assert put(lab, bundles[0]).outcome is Outcome.DONE
