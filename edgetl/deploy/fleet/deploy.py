"""`edgetl fleet deploy` and `rollback`: which bundle runs on a device, changed in one step or not at all."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgetl.bundle.golden import GoldenCheck
from edgetl.deploy.fleet.place import ENV_PYTHON, Place, Seen, incoming
from edgetl.deploy.fleet.record import DeviceRecord, Outcome
from edgetl.deploy.fleet.work import Reporter
from edgetl.errors import DeviceError
from edgetl.files import sha256_file
from edgetl.records.bench import BenchRecord
from edgetl.records.gate import GateReport, Verdict

_KEY = "key.pub"


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """What is deployed, and what must hold before it runs.

    Attributes:
        bundle: the file.
        sha256: of it.
        file: what it is called there, from the folder.
        kind: of its task.
        runs: calls that are timed there.
        max_ms: the median may be at most so long; None for any.
        gate: hold it to the bundle that runs there.
        data: a folder of labelled images on the device, from its own, that the gate scores; else the bundles' figures.
        other_task: let it take the place of a bundle for another task.
        key: content of the public key that must have signed it; None where none is required.
    """

    bundle: Path
    sha256: str
    file: str
    kind: str
    runs: int = 100
    max_ms: float | None = None
    gate: bool = False
    data: str | None = None
    other_task: bool = False
    key: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class _Task:
    kind: str


@dataclass(frozen=True, kw_only=True)
class _About:
    """What is read of `edgetl info` there."""

    task: _Task


def deployment(bundle: Path, key: Path | None, **wanted: Any) -> Deployment:
    """What is to be deployed; the bundle is checked here first, every file of it and its signature.

    Args:
        bundle: the file, or an OCI image layout with it.
        key: public key that must have signed it.
        wanted: further fields of `Deployment`.

    Raises:
        BundleError: it cannot be used, or was not signed with the key.
        ConfigError: the key cannot be read.
    """
    from edgetl.bundle import layout
    from edgetl.bundle.archive import open_bundle
    from edgetl.bundle.signature import require_signature

    opened = open_bundle(bundle)
    for member in opened.manifest.members():
        opened.read(member)
    if key is not None:
        require_signature(opened, key)
    file = layout.bundle_file(bundle) if layout.is_layout(bundle) else bundle
    sha256 = sha256_file(file)
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", opened.manifest.name).strip(".-")[:64] or "bundle"
    return Deployment(
        bundle=file,
        sha256=sha256,
        file=f"bundles/{plain}-{sha256[:16]}.edgetl",
        kind=opened.manifest.task.kind,
        key=key.read_bytes() if key is not None else None,
        **wanted,
    )


def deploy(place: Place, wanted: Deployment, reporter: Reporter) -> DeviceRecord:
    """Bring a bundle to a device, prove and measure it there, and let it run: else the old one stays.

    Raises:
        DeviceError: the device cannot be reached or refuses, or the bundle was altered on the way.
    """
    reporter.step("look")
    seen = place.look(make=True, file=wanted.file, incoming=incoming(wanted.sha256))
    place.ready(seen)
    before = seen.state.current
    _same_task(place, seen, wanted)
    reporter.step("upload")
    sent = carry(place, wanted, reporter, seen)
    reporter.step("verify")
    check = verify(place, wanted.file, wanted.key)
    found: dict[str, Any] = {"check": check, "current": before, "sent_bytes": sent}
    if not check.passed:
        return reporter.record(Outcome.FAILED, _stays(check.reason, before), **found)
    reporter.step("measure")
    measured, _ = place.edgetl(BenchRecord, "bench", wanted.file, "--runs", str(wanted.runs))
    found["bench"] = measured
    if wanted.max_ms is not None and (median := measured.latency.p50_ms) > wanted.max_ms:
        reason = f"The median there is {median:.4g} ms, and {wanted.max_ms:g} ms are allowed."
        return reporter.record(Outcome.FAILED, _stays(reason, before), **found)
    if wanted.gate and before and f"bundles/{before}" != wanted.file:
        reporter.step("gate")
        found["gate"] = report = hold(place, wanted.file, f"bundles/{before}", *on(wanted.data))
        if report.verdict is not Verdict.PASS:
            sentence = _stays(" ".join(report.sentences()[:1]), before)
            return reporter.record(outcome_of(report.verdict), sentence, **found)
    reporter.step("switch")
    name = wanted.file.removeprefix("bundles/")
    if before != name:
        place.switch(wanted.file, f"bundles/{before}" if before else "")
        place.tidy(wanted.file, f"bundles/{before}" if before else "")
    found |= {"current": name, "before": before if before != name else ""}
    return reporter.record(
        Outcome.DONE, f"{name} runs there." if before != name else f"{name} ran there already.", **found
    )


def carry(place: Place, wanted: Deployment, reporter: Reporter, seen: Seen | None = None) -> int:
    """Bring the bundle there, whole, without letting it run; how many bytes were sent."""
    return place.send(
        wanted.bundle, wanted.sha256, wanted.file, python=ENV_PYTHON, tell=reporter.bytes, seen=seen
    )


def verify(place: Place, file: str, key: bytes | None) -> GoldenCheck:
    """Check hashes and signature there, and replay the golden images.

    Raises:
        DeviceError: the bundle cannot be used there, or is not signed.
    """
    signed: tuple[str, ...] = ()
    if key is not None:
        place.write(_KEY, key)
        signed = ("--require-signature", f"incoming/{_KEY}")
    check, _ = place.edgetl(GoldenCheck, "verify", file, *signed, codes=(0, 1))
    return check


def hold(place: Place, file: str, against: str, *options: str) -> GateReport:
    """Hold a bundle there to another one, timed in turn."""
    report, _ = place.edgetl(GateReport, "gate", file, "--against", against, *options, codes=(0, 1, 3))
    return report


def on(data: str | None) -> tuple[str, ...]:
    """The option for labelled images on the device."""
    return () if data is None else ("--data", data)


def outcome_of(verdict: Verdict) -> Outcome:
    """What a gate's verdict means for a device."""
    return {Verdict.PASS: Outcome.DONE, Verdict.FAIL: Outcome.FAILED, Verdict.UNSURE: Outcome.UNSURE}[verdict]


def rollback(place: Place, reporter: Reporter) -> DeviceRecord:
    """Let the bundle from before run again, where it still gives its golden outputs there.

    Raises:
        DeviceError: there is none, or it cannot be used there.
    """
    reporter.step("look")
    seen = place.look()
    place.ready(seen)
    now, before = seen.state.current, seen.state.previous
    if not before or before == now:
        raise DeviceError("it has no bundle from before to go back to. Deploy one with: edgetl fleet deploy")
    reporter.step("verify")
    check = verify(place, f"bundles/{before}", None)
    if not check.passed:
        return reporter.record(Outcome.FAILED, _stays(check.reason, now), check=check, current=now)
    reporter.step("switch")
    place.switch(f"bundles/{before}", f"bundles/{now}" if now else "")
    return reporter.record(
        Outcome.DONE, f"{before} runs there again.", check=check, current=before, before=now
    )


def _same_task(place: Place, seen: Seen, wanted: Deployment) -> None:
    if not seen.state.current or wanted.other_task:
        return
    about, _ = place.edgetl(_About, "info", "current.edgetl")
    if about.task.kind != wanted.kind:
        raise DeviceError(
            f"the bundle that runs there ({seen.state.current}) is for the task {about.task.kind}, and"
            f" {wanted.bundle.name} is for {wanted.kind}: what reads its answers would break. Where that is meant, add"
            " --other-task."
        )


def _stays(reason: str, before: str) -> str:
    return f"{reason} {f'{before} stays.' if before else 'Nothing runs there.'}"
