"""Which candidate is proposed, and what lies on the frontier."""

from __future__ import annotations

from dataclasses import replace

from edgetl.records.scores import Score
from edgetl.transfer.choice import propose, ranked, standard_error
from tests.transfer.rankings import CANDIDATES, candidate, ranking


def test_the_order_and_the_frontier() -> None:
    order = ranked(CANDIDATES, None)
    assert [one.name for one in order] == [
        "large at 224 px",
        "small at 224 px",
        "small at 128 px",
        "large at 128 px",
    ]
    assert [one.frontier for one in order] == [True, True, True, False]
    assert {one.within_budget for one in order} == {None}


def test_equal_ones_are_both_on_the_frontier_and_logme_decides_their_order() -> None:
    first, second = candidate("a", 128, 0.9, 2.0), candidate("b", 128, 0.9, 2.0)
    order = ranked([first, replace(second, logme=1.0)], None)
    assert [(one.backbone, one.frontier) for one in order] == [("b", True), ("a", True)]


def test_without_a_budget_what_is_as_good_and_faster_is_proposed() -> None:
    record = ranking()
    assert record.choice.name == "small at 224 px"
    assert record.reason == (
        "small at 224 px (95.5%, 3.00 ms) is the fastest within one standard error (1.0 points) of the best top-1,"
        " 96.0% of large at 224 px (8.00 ms)"
    )


def test_the_best_is_proposed_where_nothing_faster_is_as_good() -> None:
    order = ranked([CANDIDATES[0], CANDIDATES[3]], None)
    found = propose(order, "top1", None)
    assert (found.position, found.reason) == (
        0,
        "large at 224 px has the best top-1, 96.0%, and nothing faster comes within one standard error of it (1.0"
        " points)",
    )


def test_with_a_budget_the_best_within_it_is_proposed() -> None:
    record = ranking(2.5)
    assert [one.within_budget for one in record.candidates] == [False, False, True, True]
    assert record.choice.name == "small at 128 px"
    assert record.reason == "small at 128 px has the best top-1 of the 2 of 4 within 2.5 ms: 90.0% in 1.00 ms"


def test_where_none_keeps_the_budget_it_must_be_cut() -> None:
    record = ranking(0.5)
    assert record.choice.name == "small at 224 px"
    assert record.reason.startswith(
        "none keeps within 0.5 ms uncut (the fastest, small at 128 px, takes 1.00 ms), so that pruning must cut it to"
        " the budget; without one, small at 224 px (95.5%, 3.00 ms) is the fastest within one standard error"
    )


def test_a_score_without_an_interval_has_no_error() -> None:
    assert standard_error(Score(value=0.5)) == 0.0


def test_a_file_of_weights_stands_in_the_name() -> None:
    own = replace(CANDIDATES[0], weights="runs/old/tiny.safetensors")
    assert own.name == "small (tiny.safetensors) at 128 px"
