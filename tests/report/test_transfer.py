"""A ranking of backbones in the terminal and as a page."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

from edgetl.report.page.transfer import chart, render
from edgetl.report.terminal.transfer import suggest
from tests.report.test_terminal import rule, shown
from tests.transfer.rankings import ranking


def test_the_table() -> None:
    assert (
        shown(suggest, ranking(5.0), width=120)
        == f"""\
               probe            95%          p50
backbone   px  top-1       interval  LogME    ms   MACs  parameters
{rule(88)}
large     224  96.0%  94.0 to 98.0%  0.480  8.00  200 M      3.40 M  frontier, over 5 ms
small     224  95.5%  93.5 to 97.5%  0.477  3.00  200 M      3.40 M  proposed, frontier
small     128  90.0%  88.0 to 92.0%  0.450  1.00  200 M      3.40 M  frontier
large     128  89.0%  87.0 to 91.0%  0.445  2.00  200 M      3.40 M

images   600 to learn from, 300 to score on; none of test
latency  one image, float32, neither cut nor quantized; 2 threads, Test CPU x2, Linux x86_64
time     1 min 01 s

Skipped other: Its weights are not here.

Proposed: small at 224 px has the best top-1 of the 3 of 4 within 5 ms: 95.5% in 3.00 ms.
  train.backbone = "small"
  preprocess.size = 224
"""
    )


def test_the_page() -> None:
    page = render(ranking(5.0))
    HTMLParser().feed(page)
    assert "<title>photos &lt;1&gt;: edgetl suggest</title>" in page
    assert page.count("<svg") == 2  # wide and narrow
    assert "4 candidates for 12 classes, by linear probes on 300 validation images" in page
    assert '<span class="tag good">proposed</span>' in page
    assert '<span class="tag bad">over 5 ms</span>' in page
    assert "train.backbone = &quot;small&quot;\npreprocess.size = 224" in page
    assert "other: Its weights are not here." in page
    assert len(page) < 60_000


def test_the_page_asks_nothing_of_anyone() -> None:
    page = render(ranking())
    assert "<script" not in page
    assert all(source.startswith("data:") for source in re.findall(r'(?:src|href)="([^"#][^"]*)"', page))
    assert "url(" not in page
    assert "Skipped" not in render(replace(ranking(), skipped=()))


def test_the_plot_shows_every_candidate_the_frontier_and_the_budget() -> None:
    picture = chart(ranking(5.0), 1040)
    assert picture.count(" dot") + picture.count(" hollow") == 4
    assert picture.count(" ring") == 1
    assert picture.count("st thin") == 1
    assert "budget 5.00 ms" in picture
    assert "small at 128 px: 90.0%, 1.00 ms median, LogME 0.450" in picture
    assert "budget" not in chart(ranking(), 360)
