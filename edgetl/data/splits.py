"""Splits and draws that depend only on the images' content, so that they stay when files are added."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TypeVar

from edgetl.data.sources import Split
from edgetl.files import sha256_bytes

T = TypeVar("T")


def rank(sha256: str, salt: str) -> float:
    """A number in [0, 1) that is fixed by an image's content and `salt`, and else as good as random."""
    return int(sha256_bytes(f"{salt}:{sha256}".encode())[:13], 16) / 16**13


def assign(
    contents: Sequence[tuple[str, str]], *, val_fraction: float, test_fraction: float
) -> dict[str, Split]:
    """Give every content a split by its own rank: below `test_fraction` test, then validation, else train.

    A file's split does not depend on the other files, with one exception: where a class would be without
    images in a split, the one of the lowest rank goes there (train comes first, then validation, then test).
    Equal contents are always on one side, under whatever label.

    Args:
        contents: (sha256, label) of each file.
        val_fraction: share for validation; 0 takes none.
        test_fraction: share for test; 0 takes none.

    Returns:
        The split of each sha256.
    """
    classes: defaultdict[str, set[str]] = defaultdict(set)
    for sha256, label in contents:
        classes[label].add(sha256)
    splits: dict[str, Split] = {}
    for label in sorted(classes):
        ranked = sorted((rank(sha256, "split"), sha256) for sha256 in classes[label])
        first_val, first_train = _borders([r for r, _ in ranked], val_fraction, test_fraction)
        for at, (_, sha256) in enumerate(ranked):
            split: Split = "test" if at < first_val else "val" if at < first_train else "train"
            splits.setdefault(sha256, split)
    return splits


def _borders(ranks: Sequence[float], val_fraction: float, test_fraction: float) -> tuple[int, int]:
    """Where validation and train begin among one class's ascending ranks; none is empty if possible."""
    count = len(ranks)
    need_val = int(val_fraction > 0 and count >= 2)
    need_test = int(test_fraction > 0 and count >= 2 + need_val)
    first_val = sum(r < test_fraction for r in ranks)
    first_train = sum(r < test_fraction + val_fraction for r in ranks)
    first_val = min(max(first_val, need_test), count - 1 - need_val)
    first_train = min(max(first_train, first_val + need_val), count - 1)
    return first_val, first_train


def draw_evenly(items: Iterable[tuple[str, int]], count: int, salt: str) -> list[int]:
    """Choose `count` items, as evenly from the classes as these allow, by rank within each class.

    Args:
        items: (sha256, label) of each.
        count: how many to choose; all where there are fewer.
        salt: a seed or purpose; other salts draw other items.

    Returns:
        The chosen positions, ascending.
    """
    classes: defaultdict[int, list[tuple[float, int]]] = defaultdict(list)
    for at, (sha256, label) in enumerate(items):
        classes[label].append((rank(sha256, salt), at))
    chosen: list[int] = []
    # The smallest class first: what it cannot give, the others share.
    order = sorted(classes, key=lambda label: (len(classes[label]), label))
    for done, label in enumerate(order):
        share = -((len(chosen) - count) // (len(order) - done))
        chosen += [at for _, at in sorted(classes[label])[: max(0, share)]]
    return sorted(chosen)


def spread(items: Sequence[T], count: int) -> list[T]:
    """At most `count` items, evenly over them in their order: of images by class, all classes are met.

    Args:
        items: in order.
        count: how many to choose; all where there are fewer.
    """
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]
