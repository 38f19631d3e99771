from __future__ import annotations

import json

import numpy as np
import pytest

from edgetl.records.codec import from_json, to_json
from edgetl.tasks.base import Classification, TaskSpec
from edgetl.tasks.relations import Graph, Relation, Tree, distances, members, misfit, paths

LABELS = ("free", "crack", "fray", "stain")
TREE = Tree(parents={"crack": "break", "fray": "break", "break": "defect", "stain": "defect"})
"""With `free` in the topmost group, `part`."""
PART = Tree(parents={**TREE.parents, "defect": "part", "free": "part"})


def test_a_tree_is_as_far_as_the_lowest_common_group_is_high() -> None:
    third = 1 / 3
    assert distances(PART, LABELS) == pytest.approx(
        np.array(
            [
                [0, 1, 1, 1],
                [1, 0, third, 2 * third],
                [1, third, 0, 2 * third],
                [1, 2 * third, 2 * third, 0],
            ]
        )
    )


def test_several_top_groups_are_in_the_group_of_all_classes() -> None:
    tree = Tree(parents={"cat": "animal", "dog": "animal", "car": "vehicle", "bus": "vehicle"})
    labels = ("bus", "car", "cat", "dog")
    ways = paths(tree, labels)
    assert ways == (("vehicle", ""), ("vehicle", ""), ("animal", ""), ("animal", ""))
    assert members(ways) == {"vehicle": (0, 1), "animal": (2, 3), "": (0, 1, 2, 3)}
    assert distances(tree, labels)[2].tolist() == [1.0, 1.0, 0.0, 0.5]


def test_a_graph_is_as_far_as_the_shortest_way_is_long() -> None:
    graph = Graph(
        edges=(("a", "b", 1.0), ("b", "c", 2.0), ("a", "c", 9.0), ("c", "via", 0.5), ("via", "d", 0.5))
    )
    assert distances(graph, ("a", "b", "c", "d")) * 4 == pytest.approx(
        np.array([[0, 1, 3, 4], [1, 0, 2, 3], [3, 2, 0, 1], [4, 3, 1, 0]])
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tree(parents={}), "the tree is empty"),
        (
            lambda: Tree(parents={"x": "a", "a": "b", "b": "c", "c": "a"}),
            "in a circle: a is in b is in c is in a",
        ),
        (lambda: Tree(parents={"a": "a"}), "in a circle: a is in a"),
        (lambda: Graph(edges=()), "has no edges"),
        (lambda: Graph(edges=(("a", "b", -1.0),)), "edge of a and b weighs -1, expected a number above 0"),
        (lambda: Graph(edges=(("a", "b", float("nan")),)), "weighs nan"),
    ],
)
def test_what_is_no_relation_is_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("relation", "fault"),
    [
        (PART, ""),
        (TREE, "the tree lacks free of the data's classes; add what is missing"),
        (
            Tree(parents={**PART.parents, "oil": "defect"}),
            "oil is no class of the data (it has free, crack, fray, stain)",
        ),
        (
            Tree(parents={"crack": "part", "fray": "part", "stein": "part", "free": "part"}),
            "stein is no class of the data (did you mean stain?)",
        ),
        (
            Tree(parents={"free": "part", "crack": "part", "fray": "stain", "stain": "part"}),
            "the class stain of the data has others below it in the tree; the classes are its ends: give the group"
            " another name",
        ),
        (
            Graph(edges=(("free", "crack", 1.0), ("fray", "stain", 1.0))),
            "the graph is not connected: no edges lead from free to fray; add one between their parts",
        ),
        (Graph(edges=(("free", "crack", 1.0), ("fray", "crack", 1.0))), "the graph lacks stain"),
        (
            Graph(edges=(("free", "crack", 1.0), ("fray", "crack", 1.0), ("crack", "stian", 1.0))),
            "stian is no class of the data (did you mean stain?)",
        ),
    ],
)
def test_why_a_relation_is_not_of_these_classes(relation: Relation, fault: str) -> None:
    found = misfit(relation, LABELS)
    assert found == fault or (fault and found.startswith(fault))


@pytest.mark.parametrize("relation", [PART, Graph(edges=(("free", "crack", 1.5),))])
def test_a_relation_travels_in_the_description_of_the_task(relation: Relation) -> None:
    labels = LABELS if isinstance(relation, Tree) else LABELS[:2]
    spec = Classification(labels=labels, relation=relation)
    values = json.loads(json.dumps(to_json(spec)))
    assert from_json(TaskSpec, values) == spec  # type: ignore[arg-type]
    values["labels"] = ["other", *labels[1:]]
    with pytest.raises(ValueError, match="free"):
        from_json(TaskSpec, values)  # type: ignore[arg-type]


def test_a_task_without_a_relation_is_written_as_before_there_were_any() -> None:
    assert to_json(Classification(labels=LABELS)) == {"kind": "classification", "labels": list(LABELS)}
