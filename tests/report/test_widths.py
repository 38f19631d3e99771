from __future__ import annotations

import dataclasses

import pytest

from edgetl.records.codec import from_json, to_json
from edgetl.records.prune import GroupWidth, PruneLatency, PruneRecord
from edgetl.report.page import run, widths
from edgetl.report.run import RunReport
from edgetl.report.terminal import stages
from tests.report.test_terminal import rule, shown


def stated(groups: int = 2) -> PruneLatency:
    some = [("conv_stem", 32, 16, 0.4, 0.21), ("blocks.1.0.conv_pw", 96, 96, 0.8, 0.75)]
    some += [(f"blocks.{i}.0.conv_pw", 240, 80, 0.1, 0.04) for i in range(2, groups)]
    return PruneLatency(
        target_ms=2.0,
        teacher_ms=4.0,
        predicted_before_ms=3.9,
        measured_before_ms=4.02,
        predicted_ms=1.94,
        measured_ms=1.97,
        rest_before_ms=0.3,
        rest_ms=0.28,
        networks=14,
        table_error=0.0148,
        groups=tuple(
            GroupWidth(name=n, channels_before=a, channels_after=b, before_ms=c, after_ms=d)
            for n, a, b, c, d in some
        ),
    )


def timed(prune: PruneRecord, groups: int = 2) -> PruneRecord:
    steps = tuple(
        dataclasses.replace(step, predicted_ms=3.0 / step.step, measured_ms=3.1 / step.step)
        for step in prune.steps
    )
    return dataclasses.replace(prune, steps=steps, latency=stated(groups))


def test_the_record_survives_json(report: RunReport) -> None:
    prune = timed(report.prune)
    assert from_json(PruneRecord, to_json(prune)) == prune


def test_the_terminal_shows_steps_and_widths(report: RunReport) -> None:
    assert (
        shown(stages.stage, timed(report.prune), width=100)
        == f"""\
                                                                          predicted  measured
step    MACs  of the teacher  parameters  top-1 after the cut  recovered         ms        ms
{rule(93)}
   1   162 M           79.0%      3.01 M                95.1%      97.2%       3.00      3.10
   2   127 M           62.0%      2.44 M                90.3%      96.9%       1.50      1.55
   3  98.3 M           48.0%      1.96 M                81.1%      96.2%       1.00      1.03
   4  71.7 M           35.0%      1.52 M                64.2%      95.1%      0.750     0.775
   5  51.2 M           25.0%      1.19 M                38.8%      93.6%      0.600     0.620

Widths for the target
channels of               before and after  ms before  ms after
{rule(63)}
conv_stem                         32 to 16      0.400     0.210
blocks.1.0.conv_pw                      96      0.800     0.750
everything else                                 0.300     0.280
whole network, predicted                         3.90      1.94
whole network, measured                          4.02      1.97

latency        2.00 ms wanted, 1.94 ms predicted, 1.97 ms measured in float32: 2.0x as fast as the
               teacher (4.00 ms in the same runtime)
latency table  fitted to 14 networks that were timed; median error 1.5% on those it had not seen
time           3 min 01 s
checkpoint     prune/pruned.safetensors

"""
    )


def test_the_page_shows_widths_predicted_and_measured(report: RunReport) -> None:
    page = run.render(dataclasses.replace(report, prune=timed(report.prune)))
    for text in (
        "2.00 ms wanted, 1.94 ms predicted, 1.97 ms measured in float32: 2.0x as fast as the teacher"
        " (4.00 ms in the same runtime). The latency table was fitted to 14 networks that were timed; median error"
        " 1.5% on those it had not seen.",
        "32 to 16",
        ">96<",
        "Whole network, measured",
        ">1.55<",
    ):
        assert text in page
    assert "groups of channels" not in page
    assert "Widths for the target" not in run.render(report)


def test_many_groups_are_folded(report: RunReport) -> None:
    page = run.render(dataclasses.replace(report, prune=timed(report.prune, groups=20)))
    assert "All 20 groups of channels" in page


@pytest.mark.parametrize(("after", "expected"), [(16, "32 to 16"), (32, "32")])
def test_channels(after: int, expected: str) -> None:
    group = GroupWidth(name="stem", channels_before=32, channels_after=after, before_ms=1.0, after_ms=0.5)
    assert widths.channels(group) == expected
