"""Rules of accessible pages that can be checked without a browser, on every page of a run."""

from __future__ import annotations

import dataclasses
import itertools
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edgetl.records.doubts import DoubtfulLabel, DoubtsRecord, SplitDoubts
from edgetl.report.live import LiveRun, LiveStage, LiveTask
from edgetl.report.page import live, run, theme
from edgetl.report.run import RunReport
from tests.images import write_set
from tests.report.conftest import epochs, in_detail
from tests.report.test_confidence import with_confidence
from tests.report.test_html import _Page

WHOLE = {"h1", "h2", "h3", "h4"}
TEXT = ("ink", "soft", "faint", "accent", "good", "bad", "warn")
GROUNDS = ("page", "card", "band")


@pytest.fixture(scope="module", params=["run", "live"])
def page(
    request: pytest.FixtureRequest, report: RunReport, tmp_path_factory: pytest.TempPathFactory
) -> _Page:
    if request.param == "live":
        now = datetime(2026, 11, 29, tzinfo=UTC)
        task = LiveTask(description='full "a"', done=3, total=9, begun=now)
        stages = (LiveStage(name="data", seconds=3.0), LiveStage(name="train", begun=now))
        known = LiveRun(
            name="flowers",
            begun=now,
            written=now,
            stages=stages,
            left=("prune",),
            tasks=(task,),
            epochs=epochs("full", 2, 0.5, 0.9),
            messages=("full 1/9",),
            warnings=("odd",),
        )
        return _Page(live.render(known))
    folder: Path = write_set(tmp_path_factory.mktemp("set"), {"train": 1})
    picture = str(folder / "train" / "red" / "000.png")
    doubt = DoubtfulLabel(
        file=picture, split="train", given="rose", suspected="lotus", given_score=0.1, score=0.8
    )
    split = SplitDoubts(split="train", images=9, candidates=1, share=0.1, agrees=0.9, by="by a probe")
    full = dataclasses.replace(
        with_confidence(report),
        prune=in_detail(report.prune),
        doubts=DoubtsRecord(labels=(doubt,), splits=(split,)),
    )
    return _Page(run.render(full, folder))


def test_pictures_plots_and_bars_have_a_text_in_their_place(page: _Page) -> None:
    assert all(a.get("alt") for a in page.all("img"))
    assert all(a["role"] == "img" and a["aria-label"] for a in page.all("svg"))
    assert all(a.get("aria-label") for a in page.all("progress"))
    for attrs in page.all("span"):
        if attrs.get("class", "").startswith("meter"):
            assert attrs["aria-hidden"] == "true"  # the figure stands beside it


def test_headings_go_down_one_level_at_a_time(page: _Page) -> None:
    levels = [int(name[1]) for name, _ in page.elements if name in WHOLE]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_heads_of_tables_say_what_they_are_of(page: _Page) -> None:
    heads = page.all("th")
    assert heads
    assert {a["scope"] for a in heads} == {"col", "row"}
    assert len(page.all("caption")) == len(page.all("table"))


def test_language_title_and_controls_are_named(page: _Page) -> None:
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("title")) > 0
    names = [name for name, _ in page.elements]
    assert all(names[at - 1] == "label" for at, name in enumerate(names) if name == "input")
    assert all(a.get("aria-label") for a in page.all("nav"))
    assert len(page.all("main")) == 1


@pytest.mark.parametrize("colours", ["_LIGHT", "_DARK"])
def test_text_stands_out_from_its_ground(colours: str) -> None:
    """WCAG 2.2, 1.4.3: a contrast of 4.5 for text of any size."""
    found = dict(re.findall(r"--([\w-]+):(#[0-9a-f]{3,6})", getattr(theme, colours)))
    low = {
        f"{ink} on {ground}": round(_contrast(found[ink], found[ground]), 2)
        for ink, ground in [
            *((ink, ground) for ink in TEXT for ground in GROUNDS),
            *((name, f"{name}-bg") for name in ("good", "bad", "warn")),
        ]
        if _contrast(found[ink], found[ground]) < 4.5
    }
    assert low == {}


def _contrast(one: str, other: str) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    digits = colour.removeprefix("#")
    digits = "".join(2 * d for d in digits) if len(digits) == 3 else digits
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
