from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from edgetl.data.splits import assign, draw_evenly, rank, spread
from edgetl.files import sha256_bytes

contents = st.lists(
    st.tuples(st.integers(0, 60).map(lambda n: sha256_bytes(bytes([n]))), st.sampled_from("abc")), max_size=60
)
fractions = st.floats(0.0, 0.45)


def shas(count: int, start: int = 0) -> list[str]:
    return [sha256_bytes(str(number).encode()) for number in range(start, start + count)]


def test_rank_is_fixed_and_even() -> None:
    ranks = [rank(sha, "salt") for sha in shas(2000)]
    assert ranks == [rank(sha, "salt") for sha in shas(2000)]
    assert all(0 <= value < 1 for value in ranks)
    assert abs(sum(ranks) / 2000 - 0.5) < 0.03
    assert ranks != [rank(sha, "pepper") for sha in shas(2000)]


def test_shares_follow_the_fractions() -> None:
    splits = Counter(assign([(sha, "a") for sha in shas(4000)], val_fraction=0.2, test_fraction=0.1).values())
    assert abs(splits["val"] / 4000 - 0.2) < 0.02
    assert abs(splits["test"] / 4000 - 0.1) < 0.02


@settings(max_examples=100, deadline=None)
@given(contents, fractions, fractions)
def test_no_split_of_a_class_is_empty_if_possible(
    items: list[tuple[str, str]], val: float, test: float
) -> None:
    one_label = list({sha: (sha, label) for sha, label in items}.values())
    splits = assign(one_label, val_fraction=val, test_fraction=test)
    for label in "abc":
        where = Counter(splits[sha] for sha, name in one_label if name == label)
        count = where.total()
        assert where["train"] >= min(count, 1)
        assert bool(where["val"]) == (val > 0 and count >= 2)
        assert bool(where["test"]) == (test > 0 and count >= (3 if val > 0 else 2))


@settings(max_examples=50, deadline=None)
@given(contents, fractions, fractions)
def test_equal_contents_are_on_one_side_in_any_order(
    items: list[tuple[str, str]], val: float, test: float
) -> None:
    splits = assign(items, val_fraction=val, test_fraction=test)
    assert set(splits) == {sha for sha, _ in items}
    assert splits == assign(items[::-1] + items, val_fraction=val, test_fraction=test)


def test_files_stay_where_they_are_when_others_come() -> None:
    before = assign([(sha, "a") for sha in shas(200)], val_fraction=0.2, test_fraction=0.2)
    more = [(sha, "a") for sha in shas(300)] + [(sha, "b") for sha in shas(50, start=1000)]
    after = assign(more, val_fraction=0.2, test_fraction=0.2)
    assert before == {sha: after[sha] for sha in before}


def test_tiny_classes_fill_train_then_val_then_test() -> None:
    for count, expected in ((1, {"train"}), (2, {"train", "val"}), (3, {"train", "val", "test"})):
        splits = assign([(sha, "a") for sha in shas(count)], val_fraction=0.15, test_fraction=0.15)
        assert set(splits.values()) == expected


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=40), st.integers(0, 50))
def test_draw_is_as_even_as_the_classes_allow(labels: list[int], count: int) -> None:
    items = list(zip(shas(len(labels)), labels, strict=True))
    chosen = draw_evenly(items, count, "seed")
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(count, len(items))
    available, drawn = Counter(labels), Counter(labels[at] for at in chosen)
    most = max(drawn.values(), default=0)
    assert all(drawn[label] >= min(available[label], most - 1) for label in available)


def test_draws_of_other_seeds_differ() -> None:
    items = [(sha, 0) for sha in shas(50)]
    assert draw_evenly(items, 10, "1") != draw_evenly(items, 10, "2")


@given(count=st.integers(1, 30), sizes=st.lists(st.integers(1, 12), min_size=1, max_size=6))
def test_a_spread_meets_all_classes_of_one_size_and_keeps_the_order(count: int, sizes: list[int]) -> None:
    items = [label for label, size in enumerate(sizes) for _ in range(size)]
    chosen = spread(items, count)
    assert len(chosen) == min(count, len(items))
    assert chosen == sorted(chosen)
    even = [label for label in range(len(sizes)) for _ in range(4)]
    if count >= len(sizes):
        assert set(spread(even, count)) == set(even)
