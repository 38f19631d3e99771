import dataclasses
from pathlib import Path

import pytest

from edgetl.history import read
from edgetl.records.bench import (
    Conditions,
    HistoryRecord,
    LayerReach,
    LayerTime,
    LoadgenRecord,
    Peaks,
    Profile,
    Roofline,
)
from edgetl.report.page import trend
from edgetl.report.terminal import bench
from tests.history.records import record, write
from tests.report.test_terminal import rule, shown


def _layer(name: str, operator: str, milliseconds: float, share: float, nodes: int = 1) -> LayerTime:
    return LayerTime(
        name=name, operator=operator, provider="CPU", nodes=nodes, median_ms=milliseconds, share=share
    )


def test_what_lies_behind_a_benchmark():
    stated = dataclasses.replace(
        record(5.0),
        steady=True,
        timer_overhead_ns=60.4,
        pinned=(2, 3),
        conditions=Conditions(
            seconds=1.0,
            versions={"numpy": "2.4.6", "onnxruntime": "1.32.0"},
            clock_mhz=(3500.0, 1200.0),
            throttle_events=7,
            temperature_c={"x86_pkg_temp": 61.5},
            power_w={"package-0": 14.25},
            notes=("No counters.",),
        ),
        profile=Profile(
            engine="ONNX Runtime",
            calls=30,
            call_ms=6.5,
            operators=(_layer("Conv", "Conv", 4.0, 0.8, 12), _layer("Add", "Add", 1.0, 0.2)),
            layers=tuple(_layer(f"conv {i}", "Conv", 0.4, 0.04) for i in range(13)),
        ),
        loadgen=LoadgenRecord(
            version="6.0.17",
            metric="p90_ms",
            value=5.9,
            queries=200,
            p50_ms=5.0,
            p90_ms=5.9,
            p99_ms=6.0,
            valid=False,
            reason="Too few queries.",
            difference=0.0172,
        ),
    )
    shown_ = shown(bench.details, stated, width=110)
    layers = "\n".join(f"conv {i}  CPU  Conv      0.400   4.0%" for i in range(10))
    assert (
        shown_
        == f"""\
warm-up      30 calls until steady
timer        60 ns per sample, subtracted
pinned       caller to core 2, engine's threads to 3
clock        3500 to 1200 MHz
throttled    7 times
power        package-0 14.2 W
temperature  x86_pkg_temp 61.5 °C
versions     numpy 2.4.6, onnxruntime 1.32.0

Time by operator and by layer: ONNX Runtime's profiler, 30 calls of 6.50 ms each while profiled
operator  on   nodes    ms  share
{rule(33)}
Conv      CPU     12  4.00  80.0%
Add       CPU      1  1.00  20.0%

layer   on   operator     ms  share
{rule(35)}
{layers}

3 more layers with --json.
MLPerf loadgen  6.0.17, queries: 200
p90             5.90 ms; our loop 5.80 ms, +1.7%
its verdict     INVALID (Too few queries.)

Note: No counters.
Warning: The machine runs on battery, which lowers clocks: plug it in.
"""
    )


def test_how_far_a_model_is_from_the_machine_s_peaks():
    def layer(name: str, operator: str, precision: str, macs: int, of_peak: float | None) -> LayerReach:
        return LayerReach(
            name=name,
            operator=operator,
            precision=precision,
            median_ms=0.2,
            macs=macs,
            bytes=1_250_000,
            of_peak=of_peak,
            of_copy=0.3125,
        )

    reached = Roofline(
        threads=1,
        peaks=Peaks(float_macs=46e9, int8_macs=184e9, copy_bytes=20e9),
        latency_ms=0.9,
        float_macs=5_000_000,
        int8_macs=15_000_000,
        bytes=2_500_000,
        least_ms=0.19,
        of_peak=0.211,
        of_copy=0.139,
        layers=(
            layer("stem", "QLinearConv", "int8", 9_200_000, 0.25),
            layer("add", "QLinearAdd", "", 0, None),
        ),
    )
    stated = shown(bench.details, dataclasses.replace(record(5.0), roofline=reached, warnings=()), width=110)
    figures, _, counted = stated.partition("Multiply-accumulates (MACs) are counted from the shapes")
    assert "Bytes are estimated: each tensor of a layer moves once;" in counted
    assert (
        figures
        == f"""\
How far from this machine's peaks, 1 thread
layer  operator     in       ms  M MACs  of peak     kB  of copy
{rule(64)}
stem   QLinearConv  int8  0.200    9.20    25.0%  1,250    31.2%
add    QLinearAdd   -     0.200       -        -  1,250    31.2%

peak in float  46.0 G multiply-accumulates/s, a matrix product
peak in INT8   184 G multiply-accumulates/s, the same
memory         20.0 GB/s read and written, a copy
the model      20.0 M multiply-accumulates, 75.0% of them in INT8: 0.190 ms at the peaks, 0.900 ms taken
reaches        21.1% of the peaks, 13.9% of the copy

"""
    )


def test_a_warm_up_that_did_not_end_is_said():
    stated = shown(bench.details, dataclasses.replace(record(5.0), steady=False))
    assert stated.startswith("warm-up  not steady after 30 calls\n")


def _history(folder: Path) -> HistoryRecord:
    write(folder / "h", [5.0, 5.01] * 7, shas="a" * 14)
    write(folder / "h", [7.5, 7.51] * 5, shas="b" * 10, start=14)
    return read(folder / "h")


def test_history(tmp_path):
    stated = shown(bench.history, _history(tmp_path), width=120)
    head = stated.split("time")[0]
    assert (
        head
        == """\
flowers, variant int8 on cpu, single-stream, batch 1, 2 threads
machine       Cortex-A76 x4, Linux aarch64
runs          24
median        ▁▁▁▁▁▁▁▁▁▁▁▁▁▁██████████  5.00 to 7.51 ms
between runs  0.1% apart

"""
    )
    lines = stated.splitlines()
    [moved] = [line for line in lines if line.endswith("level moved")]
    assert moved.startswith(
        "2026-11-15T12:00:00Z  bbbbbbbbb  bbbbbbbbb    7.50    8.70       129     80.0  70.0 MB"
    )
    assert len([line for line in lines if line.startswith("2026-")]) == 12
    assert lines[-1] == (
        "Level moved: 50.0% slower from 2026-11-15T12:00:00Z on: 5 to 7.5 ms, between commits aaaaaaaaa and bbbbbbbbb."
    )


def test_an_empty_history():
    empty = HistoryRecord(path="h", trends=())
    assert shown(bench.history, empty) == "h holds no runs yet.\n"


@pytest.mark.parametrize(
    ("values", "bars"), [([1.0], "▁"), ([3.0, 3.0], "▁▁"), ([0.0, 7.0, 3.5, 1.0], "▁█▅▂")]
)
def test_sparkline(values, bars):
    assert bench.sparkline(values) == bars


def test_the_page_shows_every_run_and_where_the_level_moved(tmp_path):
    page = trend.render(_history(tmp_path))
    assert page.startswith("<!doctype html>")
    assert page.endswith("</html>\n")
    assert "<script" not in page
    assert page.count('class="c-val dot small"') == 2 * 24
    assert page.count('class="floor"') == 2
    assert "50.0% slower from 2026-11-15T12:00:00Z on" in page


def test_names_on_the_page_are_escaped(tmp_path):
    write(tmp_path / "h", [5.0], name="<b>&")
    page = trend.render(read(tmp_path / "h"))
    assert "<b>&" not in page
    assert "&lt;b&gt;&amp;" in page
