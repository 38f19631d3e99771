"""The page and the terminal say how sure answers are, before the temperature and with it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgetl.records.codec import from_json, to_json
from edgetl.records.variants import MeasureRecord
from edgetl.report.page import confidence as page
from edgetl.report.page import run
from edgetl.report.page.precision import answer_curves
from edgetl.report.run import RunReport
from edgetl.report.terminal import confidence as terminal
from edgetl.report.terminal import run as terminal_run
from edgetl.report.terminal import stages
from edgetl.tasks import confidence
from edgetl.tasks.base import Classification, MultiHead
from tests.report.conftest import make_report
from tests.report.test_html import _Page
from tests.report.test_terminal import rule, shown
from tests.tasks.test_confidence import HEADS, SPEC, answered


def with_confidence(report: RunReport, spec: Classification | MultiHead = SPEC) -> RunReport:
    """A report whose first variant has too sure scores, whose second has sound ones, and the third none."""
    first, second, third = report.measure.variants
    found = [
        confidence.measure(spec, answered(spec, 300, 1, t), answered(spec, 400, 2, t)) for t in (2.0, 1.0)
    ]
    variants = (
        dataclasses.replace(first, confidence=found[1]),
        dataclasses.replace(second, confidence=found[0]),
        third,
    )
    return dataclasses.replace(report, measure=dataclasses.replace(report.measure, variants=variants))


@pytest.fixture(scope="module")
def sure(report: RunReport) -> RunReport:
    return with_confidence(report)


def test_the_record_survives_json(sure: RunReport) -> None:
    assert from_json(MeasureRecord, to_json(sure.measure)) == sure.measure


def test_the_page_has_a_plot_and_tables(sure: RunReport) -> None:
    text = run.render(sure)
    assert 'id="confidence"' in text
    assert "Share of right answers against their score" in text
    [shipped] = sure.measure.variants[1].confidence
    assert f"at temperature {shipped.temperature:.2f}, as it ships" in text
    assert shipped.before is not None
    assert shipped.after is not None
    assert f"{shipped.before.error:.1%} -&gt; {shipped.after.error:.1%}" in text
    assert "fp32: scores are as the network gives them: a temperature of" in text
    assert "Sets of 95%" in text
    assert f"{shipped.coverage[2].mean_size:.2f} labels" in text


def test_the_plot_has_a_dot_for_each_bin(sure: RunReport) -> None:
    [shipped] = sure.measure.variants[1].confidence
    drawn = page.reliability_plot(shipped, 510.0)
    assert drawn.count("<circle") == sum(len(one.bins) for one in (shipped.before, shipped.after) if one)
    [plain] = sure.measure.variants[0].confidence
    assert plain.after is not None
    assert page.reliability_plot(plain, 360.0).count("<circle") == len(plain.after.bins)
    assert page.reliability_plot(dataclasses.replace(plain, after=None), 360.0) == ""


def test_heads_have_plots_of_their_own(report: RunReport) -> None:
    heads = with_confidence(report, HEADS)
    text = page.confidence(heads)
    assert text.count("<h3>int8-cpu-x86, head ") == 2
    assert "head" in shown(terminal.confidence, heads.measure, width=120)


def test_a_run_without_temperatures_has_no_such_part(report: RunReport) -> None:
    assert page.confidence(report) == ""
    assert 'id="confidence"' not in run.render(report)
    assert shown(terminal.confidence, report.measure) == ""


def test_the_terminal_has_a_row_for_each_variant(sure: RunReport) -> None:
    text = shown(terminal_run.run, sure, width=120)
    assert "How sure: scores on test, at temperature 1 -> with the temperature" in text
    assert shown(terminal.confidence, sure.measure, width=120) in shown(stages.stage, sure.measure, width=120)
    [shipped] = sure.measure.variants[1].confidence
    line = next(one for one in text.splitlines() if one.startswith("int8-cpu-x86") and "->" in one)
    assert line.split()[1] == f"{shipped.temperature:.2f}"
    assert rule(20) in text
    assert np.isfinite(shipped.temperature)


def test_curves_of_the_shipped_variant_are_drawn(sure: RunReport) -> None:
    shown_page = _Page(answer_curves(sure))
    [precision, surest] = {a["aria-label"] for a in shown_page.all("svg")}
    if precision.startswith("Right"):
        precision, surest = surest, precision
    assert precision.startswith("Precision against recall by class. ")
    assert "of the surest 50%; " in surest
    assert surest.endswith("of the surest 100%")
    assert "average precision" in shown_page.words
    assert answer_curves(make_report()) == ""
