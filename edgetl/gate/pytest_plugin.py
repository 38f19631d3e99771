"""pytest plugin: gate a bundle in a test. pytest imports this at every start, so it imports nothing heavy.

def test_ship(edgetl_gate):
    edgetl_gate("model.edgetl", baseline="baseline.json")
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from edgetl.gate.compare import Limits
    from edgetl.records import GateReport


class Gate(Protocol):
    """What the fixture `edgetl_gate` gives."""

    def __call__(
        self,
        bundle: str | Path,
        *,
        baseline: str | Path | None = None,
        against: str | Path | None = None,
        data: str | Path | None = None,
        variant: str | None = None,
        threads: int | None = None,
        limits: Limits | None = None,
        allow_other_machine: bool = False,
    ) -> GateReport:
        """Hold a bundle to a baseline file, or to another bundle measured beside it; see `edgetl.gate.stage`.

        Raises:
            AssertionError: something got worse than the limits allow, or the gate cannot tell; the message is
                the table.
            BaselineError: there is nothing to compare with; an error, never a pass.
        """
        ...


@pytest.fixture(scope="session")
def edgetl_gate() -> Gate:
    """Call it with a bundle and its baseline: it fails the test where the bundle got worse."""
    return _gate


def _gate(
    bundle: str | Path,
    *,
    baseline: str | Path | None = None,
    against: str | Path | None = None,
    data: str | Path | None = None,
    variant: str | None = None,
    threads: int | None = None,
    limits: Limits | None = None,
    allow_other_machine: bool = False,
) -> GateReport:
    __tracebackhide__ = True
    from edgetl.errors import BaselineError
    from edgetl.gate.stage import gate_against, gate_baseline

    images = Path(data) if data is not None else None
    if baseline is not None and against is None:
        report = gate_baseline(
            Path(bundle),
            Path(baseline),
            limits=limits,
            data=images,
            variant=variant,
            threads=threads,
            allow_other_machine=allow_other_machine,
        )
    elif against is not None and baseline is None:
        report = gate_against(
            Path(bundle), Path(against), limits=limits, data=images, variant=variant, threads=threads
        )
    else:
        raise BaselineError("Name one thing to compare with: baseline=FILE or against=BUNDLE.")
    if not report.passed:
        raise AssertionError(failure_text(report))
    return report


def failure_text(report: GateReport) -> str:
    """The gate that did not pass, as text: a table of all checks, then a sentence for each."""
    from edgetl.records import Verdict

    rows = [("check", "baseline", "current", "change", "limit", "")]
    for check in report.checks:
        sign = -1 if check.name == "accuracy" else 1
        verdict = check.verdict.text if check.judged else "not judged"
        rows.append(
            (
                f"{check.name} ({check.unit})",
                f"{check.baseline:.6g}",
                f"{check.current:.6g}",
                f"{check.change:+.2%}",
                f"{sign * check.limit:+.2%}",
                verdict,
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    worse = report.verdict is Verdict.FAIL
    says = "is worse than {} allows:" if worse else "cannot be told to be as good as {}:"
    head = f"{report.current} ({report.variant}) {says.format(report.baseline)}"
    return "\n".join([head, *(line.rstrip() for line in lines), "", *report.sentences()])
