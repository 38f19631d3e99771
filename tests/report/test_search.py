"""A search in the terminal and as a page."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

from edgetl.report.page.search import chart, render
from edgetl.report.terminal.search import search
from tests.report.test_terminal import rule, shown
from tests.search.records import CHOICE, TRIALS, final, searched


def test_the_table() -> None:
    assert (
        shown(search, searched(), width=130)
        == f"""\
                     MACs  blocks         p50                              top-1,
trial  network  px   kept     out          ms  as                file  validation   loss  epochs
{rule(114)}
    1  teacher  48  20.0%     50%       0.500  int8, 1 thread  350 kB       93.0%  0.340       8  frontier
    2  teacher  64  20.0%               0.800  int8, 1 thread  350 kB       90.0%              1  stopped early
    0  teacher  64  20.0%               0.900  int8, 1 thread  350 kB       96.0%  0.210       8  chosen, frontier
    3  teacher  64  20.0%                2.00  int8, 1 thread  350 kB                             over the budget
    4  teacher  64  20.0%          about 3.00                                                     over the budget
    5  teacher  64  20.0%                                                                         impossible

                                                                   p50              top-1,  top-1,
ordinary run                                       ships            ms    file  validation    test        took
{rule(117)}
teacher at 64 px, 20% of its multiply-accumulates  int8-cpu-x86  0.950  360 kB       97.0%   96.5%  1 min 35 s  holds

asked           1 ms, 0.5 MB, at least 95.0%
teacher         98.0% (95.0 to 99.5%)
least possible  0.100 ms, teacher at 32 px, 4.1% of its multiply-accumulates
tried           6 trials: 2 learned, 1 stopped early, 2 over the budget, 1 impossible
latency table   off by 4.0% in the median
kept in         runs/digits-search/search.db, study digits
machine         Test CPU x2, Linux x86_64
time            5 min 01 s

Found: teacher at 64 px is the best.
  prune.network = "teacher"
  distill.size = 64
Bundle: run/digits.edgetl
"""
    )


def test_the_page() -> None:
    page = render(searched())
    HTMLParser().feed(page)
    assert "<title>digits: edgetl search</title>" in page
    assert page.count("<svg") == 2  # wide and narrow
    assert "1 ms, 0.5 MB, at least 95.0% on Test CPU x2, Linux x86_64" in page
    assert "<strong>Found: </strong>" in page
    assert page.count("<circle") == 2 * 6  # five trials that were timed, and a ring, twice
    assert '<span class="tag good">chosen</span>' in page
    assert "Refused without a timing" in page
    assert "prune.network = &quot;teacher&quot;" in page
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert len(page) < 60_000


def test_a_page_of_a_search_that_found_nothing() -> None:
    problems = ("1.4 ms, over 1 ms",)
    page = render(searched(holds=False, reason="none holds", finals=(final(0, 1.4, problems=problems),)))
    assert "<strong>Not found: </strong>" in page
    assert "1.4 ms, over 1 ms" in page
    page = render(searched(holds=False, reason="none", finals=(), settings=(), trials=()))
    assert "<svg" not in page


def test_every_trial_that_was_timed_is_a_point() -> None:
    many = tuple(
        replace(TRIALS[0], number=number, choice=replace(CHOICE, size=32 + 8 * number)) for number in range(9)
    )
    drawn = chart(searched(trials=many, finals=()), 700)
    assert drawn.count("<circle") == 9
    assert "budget 1.00 ms" in drawn
    assert "teacher 98.0%" in drawn
    assert "floor 95.0%" in drawn
