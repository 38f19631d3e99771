from __future__ import annotations

import pytest

from edgetl.config import parse
from edgetl.errors import ConfigError
from edgetl.tasks.all import task_of, truths_of
from edgetl.tasks.base import Classification, MultiHead, MultiLabel, TaskSpec
from edgetl.tasks.metrics import chosen

SPECS: tuple[TaskSpec, ...] = (
    Classification(labels=("a", "b", "c")),
    MultiLabel(labels=("a", "b")),
    MultiHead(heads={"kind": Classification(labels=("a", "b")), "marks": MultiLabel(labels=("x", "y"))}),
)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind)
def test_every_metric_that_rises_may_be_chosen_by_and_stands_in_a_recipe(spec: TaskSpec) -> None:
    metrics = task_of(spec).metrics
    assert chosen(None, metrics, setting="bundle.metric") == metrics[0].name
    rising = [metric.name for metric in metrics if metric.higher_is_better]
    for name in rising:
        assert chosen(name, metrics, setting="bundle.metric") == name
        recipe = parse({"data": {"source": "digits"}, "bundle": {"metric": name}, "train": {"select": name}})
        assert (recipe.bundle.metric, recipe.train.select) == (name, name)
    for other in ("calibration_error", "poetry"):
        with pytest.raises(ConfigError, match=rf"^train.select: got '{other}', .*: {', '.join(rising)}\.$"):
            chosen(other, metrics, setting="train.select")


@pytest.mark.parametrize("name", ["accuracy", "calibration_error", "head/accuracy"])
def test_a_recipe_that_names_no_metric_is_refused_with_those_that_there_are(name: str) -> None:
    with pytest.raises(ConfigError, match=r"bundle\.metric.*there are map, .*exact, mean, top1, macro_f1"):
        parse({"data": {"source": "digits"}, "bundle": {"metric": name}})


def test_an_indexs_labels_are_the_tasks_truths() -> None:
    of_class, of_labels, of_heads = SPECS
    assert truths_of(of_class, [2, 0]).tolist() == [2, 0]
    assert truths_of(of_labels, [(), (0, 1)]).tolist() == [[False, False], [True, True]]
    heads = truths_of(of_heads, [(1, None), (None, (1,)), (0, ())])
    assert heads["kind"].known.tolist() == [True, False, True]
    assert heads["kind"].values[[0, 2]].tolist() == [1, 0]
    assert heads["marks"].known.tolist() == [False, True, True]
    assert heads["marks"].values[1:].tolist() == [[False, True], [False, False]]
