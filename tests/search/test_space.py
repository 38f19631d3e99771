"""The space of a recipe, and the recipes of its candidates."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from typing import Any

import pytest

from edgetl import config
from edgetl.config import MacsTarget, Recipe
from edgetl.errors import ConfigError, ModelError
from edgetl.inputs.image import Interpolation
from edgetl.records.search import Choice
from edgetl.search.space import (
    MOST,
    TEACHER,
    Space,
    final_recipe,
    rounded,
    settings_of,
    space_of,
    trial_recipe,
)
from edgetl.tasks.base import Classification
from edgetl.train.tasks.all import training_task

TASK = training_task(Classification(labels=("a", "b")))
RECIPE = config.parse({"preprocess": {"size": 64}, "distill": {"epochs": 12}, "prune": {"steps": 4}})
CHOICE = Choice(network="resnet18", size=48, share=0.25, depth=0.5, interpolation=Interpolation.BILINEAR)


def space(recipe: Recipe = RECIPE, **named: Any) -> Space:
    asked = {"networks": (TEACHER,), "sizes": None, "depths": None, "interpolations": None, **named}
    return space_of(recipe, TASK, **asked)


class _Fixed:
    """A trial whose draws are given."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values, self.asked = values, list[str]()

    def suggest_categorical(self, name: str, values: tuple[Any, ...]) -> Any:
        assert self.values[name] in values
        self.asked.append(name)
        return self.values[name]

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        assert low <= self.values[name] <= high
        assert log
        self.asked.append(name)
        return float(self.values[name])


def test_the_default_sizes_are_the_teacher_s_and_smaller_ones() -> None:
    assert space().sizes == (64, 48, 32)
    assert space(
        RECIPE.model_copy(update={"preprocess": RECIPE.preprocess.model_copy(update={"size": 20})})
    ).sizes == (
        20,
        16,
    )
    assert space(sizes=(40,)).sizes == (40,)
    assert space().interpolations == (Interpolation.BICUBIC,)


def test_blocks_go_where_importance_ranks_them() -> None:
    assert space().depths == (0.0, 0.5)
    own = config.parse({"prune": {"depth": 0.25}})
    assert space(own).depths == (0.0, 0.25)
    sizes = config.parse({"prune": {"importance": "magnitude"}})
    assert space(sizes).depths == space(sizes, depths=(0.0,)).depths == (0.0,)
    with pytest.raises(
        ConfigError, match=r"^--depths: blocks are ranked by prune\.importance = taylor, got magn"
    ):
        space(sizes, depths=(0.0, 0.5))


def test_a_detector_takes_its_own_sizes() -> None:
    boxes = config.parse({"task": {"kind": "detection"}, "preprocess": {"size": 320}})
    assert space(boxes).sizes == (320, 224, 160)
    with pytest.raises(ConfigError, match=r"^--sizes: got 100, and a detector takes multiples of 32\.$"):
        space(boxes, sizes=(96, 100))


def test_an_unknown_backbone_is_refused() -> None:
    with pytest.raises(ModelError, match="No backbone is called 'resnet81'"):
        space(networks=(TEACHER, "resnet81"))


def test_by_default_no_student_is_much_larger_than_its_teacher() -> None:
    networks = space(networks=None).networks
    assert networks[0] == TEACHER
    assert RECIPE.train.backbone not in networks
    assert "efficientnet_lite2" not in networks


def test_a_candidate_is_drawn_and_written_as_parameters() -> None:
    whole = Space(
        networks=(TEACHER, "resnet18"),
        sizes=(64, 48),
        depths=(0.0, 0.5),
        interpolations=(Interpolation.BILINEAR,),
        least=0.02,
    )
    parameters = whole.parameters(CHOICE)
    assert parameters == {"network": "resnet18", "size": 48, "depth": 0.5, "share": 0.25}
    trial = _Fixed(parameters)
    assert whole.suggest(trial) == CHOICE
    assert sorted(trial.asked) == ["depth", "network", "share", "size"]
    deep = replace(whole, depths=(0.25, 0.5))
    assert deep.parameters(replace(CHOICE, depth=0.0))["depth"] == 0.25, "of a network without such blocks"


def test_shares_have_three_digits() -> None:
    assert (rounded(0.123456), rounded(2.0), rounded(0.0)) == (0.123, MOST, 0.01)


def test_a_trial_cuts_once_and_learns_briefly() -> None:
    recipe = trial_recipe(RECIPE, CHOICE, 3)
    assert (recipe.prune.steps, recipe.prune.recovery_epochs, recipe.distill.epochs) == (1, 0, 3)
    assert (recipe.prune.network, recipe.prune.target) == ("resnet18", MacsTarget(share=0.25))
    assert recipe.prune.depth == 0.5
    assert (recipe.distill.size, recipe.preprocess.interpolation) == (48, Interpolation.BILINEAR)
    assert recipe.train == RECIPE.train
    assert config.parse(tomllib.loads(config.dump(recipe))) == recipe


def test_the_ordinary_run_keeps_the_recipe_s_own_steps() -> None:
    recipe = final_recipe(RECIPE, CHOICE, 0.015, 12)
    assert (recipe.prune.steps, recipe.distill.epochs, recipe.bundle.max_drop) == (4, 12, 0.015)
    assert final_recipe(RECIPE, CHOICE, None, 12).bundle == RECIPE.bundle
    longer = final_recipe(RECIPE, CHOICE, 0.015, 24)
    overrides = [line.replace(" = ", "=", 1) for line in settings_of(RECIPE, CHOICE, 0.015, 24)]
    values = RECIPE.model_dump(exclude_unset=True)
    assert config.parse(values, overrides).prune == longer.prune == recipe.prune
    assert config.parse(values, overrides).distill == longer.distill
    assert (longer.distill.size, longer.distill.epochs) == (48, 24)
    own = Choice(network=TEACHER, size=64, share=0.5, interpolation=Interpolation.BICUBIC)
    assert final_recipe(RECIPE, own, None, 12).distill.size is None
    assert len(settings_of(RECIPE, own, None, 12)) == 3
