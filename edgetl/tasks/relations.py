"""How classes are related: a tree of groups, or a graph; distances between them, and which groups each is in.

Legend: C classes. Only numpy, for host and device: the relation travels in a bundle's description of its task.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgetl.records.frozen import dataclass
from edgetl.text import few

ANYTHING = ""
"""The group of all classes, above the top groups where there are several; no class and no group has this name."""


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Groups of classes, and groups of groups.

    Attributes:
        parents: the group that each class and each group is in, by name; a top group is in none.

    Raises:
        ValueError: there is nothing in it, or it goes round in a circle.
    """

    kind: Literal["tree"] = "tree"
    parents: dict[str, str]

    def __post_init__(self) -> None:
        if not self.parents:
            raise ValueError("the tree is empty")
        if circle := _circle(self.parents):
            raise ValueError(f"the tree goes round in a circle: {' is in '.join(circle)}")

    @property
    def tops(self) -> tuple[str, ...]:
        """The groups that are in none."""
        return tuple(dict.fromkeys(p for p in self.parents.values() if p not in self.parents))


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Ways between classes, some perhaps by way of names that are no classes.

    Attributes:
        edges: (one end, the other, length); each may be gone in both directions.

    Raises:
        ValueError: there are none, or a length is not a positive number.
    """

    kind: Literal["graph"] = "graph"
    edges: tuple[tuple[str, str, float], ...]

    def __post_init__(self) -> None:
        if not self.edges:
            raise ValueError("the graph has no edges")
        for one, other, length in self.edges:
            if not 0.0 < length < math.inf:
                raise ValueError(
                    f"the edge of {one} and {other} weighs {length:g}, expected a number above 0"
                )


Relation: TypeAlias = Tree | Graph


def misfit(relation: Relation, labels: Sequence[str]) -> str:
    """Why a relation is not one of these classes; nothing where it is."""
    match relation:
        case Tree():
            groups = set(relation.parents.values())
            names = relation.parents.keys() | groups
            if inner := sorted(groups & set(labels)):
                return (
                    f"the class {inner[0]} of the data has others below it in the tree; the classes are its ends: give"
                    " the group another name"
                )
            ends = names - groups
        case Graph():
            degrees = Counter(name for edge in relation.edges for name in edge[:2])
            names, ends = set(degrees), {name for name, degree in degrees.items() if degree == 1}
    missing = [label for label in labels if label not in names]
    unknown = sorted(ends - set(labels))
    if unknown:
        close = _closest(unknown[0], missing or labels)
        hint = f"did you mean {close}?" if close else f"it has {few(labels, 5)}"
        return f"{unknown[0]} is no class of the data ({hint})"
    if missing:
        return f"the {relation.kind} lacks {few(missing, 5)} of the data's classes; add what is missing"
    if isinstance(relation, Graph):
        apart = np.argwhere(np.isinf(_lengths(relation.edges, tuple(labels))))
        if len(apart):
            one, other = (labels[at] for at in apart[0])
            return f"the graph is not connected: no edges lead from {one} to {other}; add one between their parts"
    return ""


def paths(tree: Tree, labels: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The groups that each class is in, from the smallest to the one of all classes, which has the last place."""
    top = (ANYTHING,) if len(tree.tops) > 1 else ()
    found = []
    for label in labels:
        path, name = list[str](), label
        while name in tree.parents:
            name = tree.parents[name]
            path.append(name)
        found.append((*path, *top))
    return tuple(found)


def members(ways: Sequence[Sequence[str]]) -> dict[str, tuple[int, ...]]:
    """The classes of each group by position, from `paths`."""
    found: dict[str, list[int]] = {}
    for place, path in enumerate(ways):
        for name in path:
            found.setdefault(name, []).append(place)
    return {name: tuple(places) for name, places in found.items()}


def distances(relation: Relation, labels: Sequence[str]) -> NDArray[np.float64]:
    """How far classes are from one another: (C, C) float64, symmetric, 0 on the diagonal and at most 1.

    In a tree the height of the lowest group that holds both, by the height of the tree; a group is as high as the
    longest way from it down to a class (Bertinetto et al., "Making Better Mistakes", CVPR 2020, section 3.2). In a
    graph the length of the shortest way, by that of the longest such.
    """
    match relation:
        case Tree():
            return _tree_distances(paths(relation, labels)).copy()
        case Graph():
            lengths = _lengths(relation.edges, tuple(labels))
            return np.asarray(lengths / max(lengths.max(), np.finfo(np.float64).tiny))


@functools.lru_cache(maxsize=8)
def _tree_distances(ways: tuple[tuple[str, ...], ...]) -> NDArray[np.float64]:
    heights: dict[str, int] = {}
    for path in ways:
        for height, name in enumerate(path, start=1):
            heights[name] = max(height, heights.get(name, 0))
    within, tallest = members(ways), max(heights.values())
    found = np.ones((len(ways), len(ways)))
    # A group is higher than those in it, so that the lowest one that holds a pair is written last.
    for name in sorted(heights, key=lambda name: -heights[name]):
        places = np.array(within[name])
        found[places[:, None], places] = heights[name] / tallest
    np.fill_diagonal(found, 0.0)
    return found


@functools.lru_cache(maxsize=8)
def _lengths(edges: tuple[tuple[str, str, float], ...], labels: tuple[str, ...]) -> NDArray[np.float64]:
    """(C, C) float64 lengths of the shortest ways (Floyd 1962), infinite where there is none."""
    names = tuple(dict.fromkeys([*labels, *(name for edge in edges for name in edge[:2])]))
    place = {name: at for at, name in enumerate(names)}
    found = np.full((len(names), len(names)), np.inf)
    np.fill_diagonal(found, 0.0)
    for one, other, length in edges:
        i, j = place[one], place[other]
        found[i, j] = found[j, i] = min(length, found[i, j])
    for via in range(len(names)):
        np.minimum(found, found[:, via, None] + found[None, via, :], out=found)
    return found[: len(labels), : len(labels)]


def _circle(parents: dict[str, str]) -> list[str]:
    """Names of which each is in the next and the last is the first again; none where every name leads to a top."""
    sound: set[str] = set()
    for start in parents:
        seen, name = dict[str, None](), start
        while name in parents and name not in sound and name not in seen:
            seen[name] = None
            name = parents[name]
        if name in seen:
            ring = list(seen)[list(seen).index(name) :]
            return [*ring, name]
        sound.update(seen)
    return []


def _closest(word: str, words: Iterable[str]) -> str | None:
    import difflib  # Not at the top: a device reads relations that fit.

    close = difflib.get_close_matches(word, list(words), n=1)
    return close[0] if close else None
