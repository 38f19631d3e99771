"""What each stage did, from the records alone; and latency that was measured on a busy machine."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console

from edgetl.records.bench import Conditions, LayerTime, Profile
from edgetl.report.page import run
from edgetl.report.page.layers import layers
from edgetl.report.run import RunReport, in_doubt
from edgetl.report.terminal import run as terminal
from edgetl.report.waterfall import steps
from tests.report.test_html import _Page

DOUBT = "Other programs kept 1.4 cores busy meanwhile."


def _measured(report: RunReport, **changes: object) -> RunReport:
    return dataclasses.replace(report, measure=dataclasses.replace(report.measure, **changes))


def test_stages_stand_in_order_and_what_was_not_timed_is_open(report: RunReport) -> None:
    found = steps(report)
    assert [step.name for step in found] == ["Teacher", "Pruned", "Distilled", "Exported", "Quantized"]
    assert [step.latency_ms is None for step in found] == [False, True, True, False, False]
    assert [step.size_bytes for step in found] == [13_700_000, 4_640_000, 4_640_000, 4_612_344, 1_317_220]
    assert [step.ships for step in found] == [False] * 4 + [True]
    assert found[1].score == 0.936
    page = _Page(run.render(report))
    assert "not timed" in page.words
    for words in (
        "-3.7 4.6 MB 3.0x less",
        "+3.3 4.6 MB equal – not timed",
        "1.9x less",
        "0.0 1.3 MB 3.5x less",
    ):
        assert words in page.words
    [drawing] = {
        one["aria-label"] for one in page.all("svg") if one["aria-label"].startswith("What each stage did")
    }
    assert "Pruned not measured, Distilled not measured, Exported 2.20 ms, Quantized 1.17 ms" in drawing


def test_pruning_by_the_clock_was_timed(report: RunReport) -> None:
    timed = tuple(dataclasses.replace(step, measured_ms=9.0 - step.step) for step in report.prune.steps)
    last = dataclasses.replace(timed[-1], step=6, kept=False, measured_ms=1.0)
    prune = dataclasses.replace(report.prune, steps=(*timed, last))
    assert steps(dataclasses.replace(report, prune=prune))[1].latency_ms == 4.0


def test_stages_that_did_nothing_are_left_out(report: RunReport) -> None:
    student = dataclasses.replace(report.student, epochs=())
    plain = _measured(dataclasses.replace(report, prune=None, student=student), default="fp32")
    found = steps(plain)
    assert [(step.name, step.what) for step in found] == [
        ("Teacher", "efficientnet_lite0"),
        ("Exported", "fp32"),
        ("Quantized", "int8-cpu-x86"),
    ]
    assert [step.ships for step in found] == [False, True, False]


@pytest.mark.parametrize(
    ("others", "doubts", "said"),
    [
        (0.1, (), ""),
        (None, (), ""),
        (1.4, (DOUBT,), "the machine was busy: other programs took 1.4 of its 2 cores"),
        (0.0, ("The CPU throttled 3 times meanwhile.",), "the machine was not steady"),
    ],
)
def test_a_busy_machine_is_said_beside_the_ratio(
    report: RunReport, others: float | None, doubts: tuple[str, ...], said: str
) -> None:
    seen = _measured(report, conditions=Conditions(seconds=9.0, versions={}, others=others), doubts=doubts)
    assert in_doubt(seen.measure) == said
    console = Console(file=io.StringIO(), width=300)
    terminal.run(console, seen)
    text, page = console.file.getvalue(), _Page(run.render(seen)).words
    assert (f"25x lower; IN DOUBT, as {said})" in text) is bool(said)
    assert (
        f"25x lower median latency than the teacher in eager torch (in doubt, as {said})." in page
    ) is bool(said)
    assert f"in doubt {said}." in page or not said


def test_layers_are_listed_slowest_first_and_the_rest_is_folded(report: RunReport) -> None:
    def layer(name: str, share: float) -> LayerTime:
        return LayerTime(name=name, operator="Conv", provider="CPU", nodes=1, median_ms=share, share=share)

    many = tuple(layer(f"conv{i}", 0.1 - i / 1000) for i in range(15))
    profile = Profile(
        engine="ONNX Runtime", calls=30, call_ms=1.6, operators=(layer("Conv", 1.0),), layers=many
    )
    page = _Page(layers(_measured(report, layers=profile)))
    assert "int8-cpu-x86 under ONNX Runtime's own profiler: medians of 30 calls" in page.words
    assert "A profiled call takes 1.60 ms, where it takes 1.17 ms else" in page.words
    assert "The other 3 layers" in page.words
    assert "conv0 Conv 0.100 7.2%" in page.words
    assert len(page.all("table")) == 3
    assert layers(report) == ""
    assert "no time by operator" in layers(_measured(report, no_layers="LiteRT gives no time by operator."))
