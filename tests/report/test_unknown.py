"""The page and the terminal say by which score unknown images are with_unknown."""

from __future__ import annotations

import dataclasses

import pytest

from edgetl.records.codec import from_json, to_json
from edgetl.records.scores import Score
from edgetl.records.unknown import ScoreName, ScoreTrial, UnknownRecord
from edgetl.records.variants import MeasureRecord
from edgetl.report.page import run
from edgetl.report.page import unknown as page
from edgetl.report.run import RunReport
from edgetl.report.terminal import run as terminal_run
from edgetl.report.terminal import unknown as terminal
from tests.report.test_terminal import shown

RECORD = UnknownRecord(
    score=ScoreName.ENERGY,
    p_value=0.004,
    note="energy does better than softmax: mean AUROC 0.950 against 0.900 of softmax, p 0.004",
    trials=(
        ScoreTrial(score=ScoreName.SOFTMAX, near=0.9, far=0.9, mean=0.9),
        ScoreTrial(score=ScoreName.ENERGY, near=0.93, far=0.97, mean=0.95),
    ),
    images=120,
    asked=0.05,
    false_alarms=Score(value=0.045, low=0.02, high=0.09),
    ranked=(3.0, 2.0),
)


@pytest.fixture
def with_unknown(report: RunReport) -> RunReport:
    first, *others = report.measure.variants
    variants = (dataclasses.replace(first, unknown=RECORD), *others)
    return dataclasses.replace(report, measure=dataclasses.replace(report.measure, variants=variants))


def test_the_page_and_the_tables_have_the_scores(with_unknown: RunReport, report: RunReport) -> None:
    assert from_json(MeasureRecord, to_json(with_unknown.measure)) == with_unknown.measure
    text = run.render(with_unknown)
    assert 'id="unknown"' in text
    assert "0.930 / 0.970" in text
    assert "4.5%" in page.unknown(with_unknown)
    assert f"{with_unknown.measure.variants[0].name}: energy does better than softmax" in text
    table = shown(terminal.chosen, with_unknown.measure, width=120)
    assert "Unknown images: AUROC on validation; false alarms where 5.0% are asked for" in table
    assert "0.930" in table
    assert "Unknown images" in shown(terminal_run.run, with_unknown, width=120)
    assert 'id="unknown"' not in run.render(report)
    assert "Unknown images" not in shown(terminal_run.run, report, width=120)
