"""What is asked of the bundles that run on the devices: are they right, how fast, no worse, which engine is fastest."""

from __future__ import annotations

from dataclasses import dataclass

from edgetl.bench.tune import TuneRecord
from edgetl.deploy.fleet.deploy import Deployment, carry, hold, on, outcome_of
from edgetl.deploy.fleet.deploy import verify as verified
from edgetl.deploy.fleet.place import CURRENT, Place, Seen
from edgetl.deploy.fleet.record import DeviceRecord, Outcome
from edgetl.deploy.fleet.work import Reporter
from edgetl.errors import DeviceError
from edgetl.records.bench import BenchRecord


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How a bundle is measured: calls, the load as MLPerf names it, and threads, those of `edgetl bench` where None."""

    runs: int = 200
    scenario: str = "single-stream"
    threads: int | None = None


@dataclass(frozen=True, kw_only=True)
class Holding:
    """What a gate allows: growth of the median latency as a share; seconds for the timing; and a folder of labelled
    images on the device, from its own, else the bundles' figures are compared.
    """

    max_latency_increase: float = 0.025
    seconds: float = 60.0
    data: str | None = None

    @property
    def options(self) -> tuple[str, ...]:
        """For `edgetl gate`."""
        return (
            *("--max-latency-increase", f"{self.max_latency_increase}"),
            *("--seconds", f"{self.seconds}"),
            *on(self.data),
        )


def status(place: Place, reporter: Reporter) -> DeviceRecord:
    """What stands on a device."""
    reporter.step("look")
    state = place.look().state
    sentence = f"{state.current} runs there." if state.current else "No bundle runs there."
    if not state.edgetl:
        sentence = f"edgetl is not installed in {place.device.folder} there."
    return reporter.record(Outcome.DONE, sentence, state=state, current=state.current)


def verify(place: Place, key: bytes | None, reporter: Reporter) -> DeviceRecord:
    """Does the device compute what was recorded in the bundle that runs there?"""
    seen = _running(place, reporter)
    reporter.step("verify")
    check = verified(place, CURRENT, key)
    outcome = Outcome.DONE if check.passed else Outcome.FAILED
    return reporter.record(outcome, check.reason, check=check, current=seen.state.current)


def bench(place: Place, timing: Timing, reporter: Reporter) -> DeviceRecord:
    """How fast is the bundle that runs there?"""
    seen = _running(place, reporter)
    reporter.step("measure")
    words = ["--runs", str(timing.runs), "--scenario", timing.scenario]
    if timing.threads is not None:
        words += ["--threads", str(timing.threads)]
    record, _ = place.edgetl(BenchRecord, "bench", CURRENT, *words)
    sentence = f"{record.variant} on {record.target}: {record.latency.p50_ms:.4g} ms in the median."
    return reporter.record(Outcome.DONE, sentence, bench=record, current=seen.state.current)


def tune(place: Place, seconds: float, reporter: Reporter) -> DeviceRecord:
    """Which variant and engine is the fastest there? It runs from now on, where no other is named."""
    seen = _running(place, reporter)
    reporter.step("tune")
    record, _ = place.edgetl(TuneRecord, "tune", CURRENT, "--seconds", f"{seconds}")
    return reporter.record(Outcome.DONE, f"{record.reason}.", tuned=record, current=seen.state.current)


def gate(place: Place, candidate: Deployment | None, holding: Holding, reporter: Reporter) -> DeviceRecord:
    """Is a bundle no worse there than the one that runs; or this no worse than the one before, without a candidate?

    Raises:
        DeviceError: there is no bundle to hold it to.
    """
    seen = _running(place, reporter)
    now, before, sent = seen.state.current, seen.state.previous, 0
    if candidate is not None:
        reporter.step("upload")
        sent = carry(place, candidate, reporter)
        file, against = candidate.file, f"bundles/{now}"
    elif before and before != now:
        file, against = f"bundles/{now}", f"bundles/{before}"
    else:
        raise DeviceError("it has no bundle from before to hold the one that runs to. Name a bundle.")
    reporter.step("gate")
    report = hold(place, file, against, *holding.options)
    sentence = " ".join(report.sentences()[:1])
    return reporter.record(outcome_of(report.verdict), sentence, gate=report, current=now, sent_bytes=sent)


def _running(place: Place, reporter: Reporter) -> Seen:
    """A look at a device on which a bundle runs.

    Raises:
        DeviceError: none does.
    """
    reporter.step("look")
    seen = place.look()
    place.ready(seen)
    if not seen.state.current:
        raise DeviceError("no bundle runs there. Bring one with: edgetl fleet deploy")
    return seen
