from __future__ import annotations

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgetl.errors import DataError
from edgetl.inputs.spec import PreprocessSpec
from edgetl.records.gate import Flip, Flips, GateCheck, GateReport, Verdict
from edgetl.report.page.gate import render, write_page
from tests.deep_images import png16


@pytest.fixture
def gate(report) -> GateReport:
    check = GateCheck(
        name="accuracy",
        unit="top-1",
        baseline=0.95,
        current=0.9,
        change=-0.05,
        interval=(-0.07, -0.03),
        limit=0.01,
        judged=True,
        verdict=Verdict.FAIL,
        sentence="Top-1 went <down>.",
    )
    size = dataclasses.replace(
        check, name="size", unit="bytes", baseline=1e6, current=1e6, change=0.0, interval=None
    )
    return GateReport(
        baseline="old.edgetl",
        current="new & better.edgetl",
        variant="int8",
        target="cpu",
        checks=(check, dataclasses.replace(size, verdict=Verdict.PASS, sentence="Size is the same.")),
        machine=report.measure.machine,
        flips=Flips(
            lost=60,
            won=1,
            images=(
                *(Flip(path=f"test/a/{i}.png", label="a", before="a", after="<b>") for i in range(60)),
                Flip(path="test/c/0.png", label="c", before="a", after="c"),
            ),
        ),
    )


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for split in ("train", "test"):
        for label in "ac":
            (tmp_path / split / label).mkdir(parents=True)
            Image.new("RGB", (400, 300), (200, 30, 30)).save(tmp_path / split / label / "0.png")
    (tmp_path / "test" / "a" / "1.png").write_bytes(b"not a picture")
    return tmp_path


def test_the_page_shows_the_checks_and_the_flipped_images(
    gate: GateReport, images: Path, tmp_path: Path
) -> None:
    path = tmp_path / "out" / "gate.html"
    write_page(gate, path, images)
    page = path.read_text(encoding="utf-8")
    HTMLParser().feed(page)
    assert "<title>new &amp; better.edgetl: edgetl gate</title>" in page
    assert "Worse than allowed: accuracy." in page
    assert "Top-1 went &lt;down&gt;." in page
    assert "Right before, wrong now: 60 images" in page
    assert "Wrong before, right now: 1 image" in page
    # Two pictures can be read; one is broken and the others are gone.
    assert page.count('src="data:image/jpeg;base64,') == 2
    assert page.count("no picture") == 47
    assert "12 more, by name" in page
    assert "test/a/59.png: a, a before, &lt;b&gt; now" in page
    assert len(page) < 60_000


def test_the_page_asks_nothing_of_anyone(gate: GateReport, images: Path) -> None:
    page = render(gate, images)
    assert "<script" not in page
    assert all(source.startswith("data:") for source in re.findall(r'(?:src|href)="([^"#][^"]*)"', page))
    assert "url(" not in page


def test_without_images_the_page_names_them(gate: GateReport) -> None:
    page = render(gate)
    assert "data:image/jpeg" not in page
    assert "test/a/0.png" in page
    none = render(dataclasses.replace(gate, flips=Flips(lost=0, won=0, images=())))
    assert "No image went from right to wrong, or from wrong to right." in none
    scores = render(dataclasses.replace(gate, flips=None))
    assert "give an image set to see which images flipped" in scores


def test_flips_beyond_those_kept_are_counted(gate: GateReport) -> None:
    assert gate.flips is not None
    many = render(dataclasses.replace(gate, flips=dataclasses.replace(gate.flips, lost=1060)))
    assert "1,000 more are not listed." in many


@pytest.mark.parametrize(
    ("verdict", "pill", "words"),
    [
        (Verdict.PASS, "pill good", "Every judged check passed."),
        (Verdict.UNSURE, "pill warn", "What was measured does not decide: accuracy."),
    ],
)
def test_verdicts(gate: GateReport, verdict: Verdict, pill: str, words: str) -> None:
    first, *rest = gate.checks
    page = render(dataclasses.replace(gate, checks=(dataclasses.replace(first, verdict=verdict), *rest)))
    assert f'class="{pill}"' in page
    assert words in page


def test_no_image_set_there_is_an_error(gate: GateReport, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no folder or CSV at"):
        write_page(gate, tmp_path / "gate.html", tmp_path / "missing")


def test_frames_of_16_bits_are_shown_through_the_window(gate: GateReport, tmp_path: Path) -> None:
    (tmp_path / "test" / "a").mkdir(parents=True)
    values = np.full((40, 60), 20_000, np.uint16)
    values[:, 30:] = 22_000
    (tmp_path / "test" / "a" / "0.png").write_bytes(png16(values))
    spec = PreprocessSpec(size=16, window=(20_000.0, 22_000.0))
    page = render(gate, tmp_path, spec)
    [shown] = re.findall(r'src="data:image/jpeg;base64,([^"]*)"', page)
    with Image.open(io.BytesIO(base64.b64decode(shown))) as image:
        grey = np.asarray(image.convert("L"))
    assert grey[:, :20].max() < 10
    assert grey[:, -20:].min() > 245
