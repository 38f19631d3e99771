"""The page of a run that is under way."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest

from edgetl.errors import StorageError
from edgetl.progress import SilentProgress, TakesEpochs
from edgetl.report import live
from edgetl.report.live import LivePage, LiveRun, StageRecord, came_to
from edgetl.report.page.live import render
from edgetl.report.run import RunReport
from tests.report.conftest import epochs
from tests.report.test_adaptation import adapted
from tests.report.test_html import _Page
from tests.report.test_pretraining import learned

BEGUN = datetime(2026, 11, 29, 9, 0, tzinfo=UTC)


class _Recorded(SilentProgress):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warning(self, text: str) -> None:
        self.warnings.append(text)


class _Clock:
    """Seconds, and the time of day with them."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return BEGUN + timedelta(seconds=self.seconds)


def _page(folder: Path, clock: _Clock, inner: SilentProgress | None = None) -> LivePage:
    known = LiveRun(name="flowers", begun=BEGUN, written=BEGUN, left=("data", "train", "prune"))
    return LivePage(
        inner=inner or SilentProgress(),
        path=folder / "report.html",
        render=render,
        known=known,
        clock=clock,
        now=clock.now,
    )


def _read(page: LivePage) -> _Page:
    return _Page(page.path.read_text(encoding="utf-8"))


def test_nothing_is_written_before_there_is_work(tmp_path: Path) -> None:
    page = _page(tmp_path, _Clock())
    page.begins("data")
    page.message("data: up to date")
    page.done(3.0, "640 images")
    page.ends("The run was stopped")
    assert list(tmp_path.iterdir()) == []


def test_the_page_says_what_runs_since_when_and_how_far(tmp_path: Path, report: RunReport) -> None:
    clock = _Clock()
    page = _page(tmp_path, clock)
    assert isinstance(page, TakesEpochs)
    page.begins("data")
    page.done(3.0, came_to(report.data))
    page.begins("train")
    clock.seconds = 60
    page.works("train")
    with page.task("full", 40) as task:
        for record in epochs("full", 3, 0.5, 0.9):
            page.epoch(record)
        page.message("full 3/8: loss 0.310")
        page.warning("some images are odd")
        clock.seconds = 120
        task.advance(10, "loss 0.31")
        shown = _read(page)
    assert "under way" in shown.words
    assert (
        "Stage 2 of 3, train, since 2026-11-29 09:01:00 UTC (1 min 00 s). The run began 2026-11-29 09:00:00 UTC."
        in shown.words
    )
    assert "full: 10 of 40, 1 min 00 s, about 3 min 00 s left, loss 0.31" in shown.words
    assert "2,271 images of 12 classes, up to date" in shown.words
    assert "prune to come" in shown.words
    assert "full 3/8: loss 0.310" in shown.words
    assert "some images are odd." in shown.words
    assert {a["aria-label"].partition(" over")[0] for a in shown.all("svg")} == {"Loss", "Validation score"}
    assert [a["value"] for a in shown.all("progress")] == ["10"]
    assert len(shown.all("script")) == 1


def test_the_page_is_written_seldom_but_at_each_stage(tmp_path: Path) -> None:
    clock, written = _Clock(), []
    page = dataclasses.replace(_page(tmp_path, clock), render=lambda run: written.append(run) or "")
    page.begins("data")
    page.works("data")
    assert len(written) == 1
    with page.task("Decoding", 100) as task:
        for _ in range(100):
            clock.seconds += 0.125
            task.advance()
    assert len(written) == 3
    page.done(10.0, "")
    assert len(written) == 4
    assert written[-1].tasks == ()


def test_an_ended_run_no_longer_loads_its_page_again(tmp_path: Path) -> None:
    page = _page(tmp_path, _Clock())
    page.begins("data")
    page.works("data")
    page.ends("The run was stopped; the same command goes on")
    shown = _read(page)
    assert shown.all("script") == shown.all("input") == []
    assert "ended The run was stopped; the same command goes on." in shown.words.replace(
        "Begun 2026-11-29 09:00:00 UTC. ", ""
    )
    assert "data 2026-11-29 09:00:00 UTC 0.0 s not finished" in shown.words
    assert "train not done" in shown.words


def test_a_page_that_cannot_be_written_stops_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: str) -> None:
        raise StorageError(f"Cannot write {path}: the disk is full.")

    monkeypatch.setattr(live.files, "write_text", full)
    recorded, clock = _Recorded(), _Clock()
    page = _page(tmp_path, clock, recorded)
    page.begins("data")
    page.works("data")
    page.done(1.0, "")
    [said] = recorded.warnings
    assert said.startswith("The page of the running run is no longer written. Cannot write ")


def test_what_stages_came_to_in_a_few_words(report: RunReport) -> None:
    pretrained, moved = learned(report), adapted(report)
    records = (
        report.data, pretrained.pretrain, report.teacher, moved.adapt, report.prune,
        report.export, report.quantize, report.measure, report.bundle, None,
    )  # fmt: skip
    assert [came_to(record) for record in records] == [
        "2,271 images of 12 classes",
        "simclr, 9,000 images: linear probe 63.2% to 70.5%",
        "top-1 97.3% on validation",
        "self_training, top-1 97.3% on validation",
        "25% of the multiply-accumulates left, top-1 93.6%",
        "4.6 MB, the same answers as torch on 100.0%",
        "2 variants",
        "int8-cpu-x86 ships: 1.17 ms, top-1 96.9%",
        "flowers.edgetl, 7.4 MB",
        "not asked for",
    ]
    assert {type(record) for record in records if record is not None} == set(get_args(StageRecord))
    stays = adapted(report, method="none").adapt
    assert came_to(stays) == "the teacher stays as it was, top-1 97.3% on validation"


def test_a_stage_that_was_not_asked_for_is_not_up_to_date(tmp_path: Path) -> None:
    page = _page(tmp_path, _Clock())
    page.begins("data")
    page.done(0.0, came_to(None))
    page.begins("train")
    page.works("train")
    words = _read(page).words
    assert "not asked for" in words
    assert "up to date" not in words
