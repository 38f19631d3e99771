"""What is searched: the network that is cut, its input size, width and depth, the resize filter; the recipes of each.

Precision, engine and the number of threads are no dimensions: each candidate is timed in all of them, which takes
seconds and leaves nothing to guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetl.config import DetectionConfig, Importance, MacsTarget, Recipe
from edgetl.errors import ConfigError
from edgetl.inputs.image import Interpolation
from edgetl.models import backbones
from edgetl.models.size import network_size
from edgetl.records.search import Choice
from edgetl.train.tasks.base import TrainingTask

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

TEACHER = "teacher"
"""The value of `prune.network` that means the teacher itself."""
MOST = 0.95
"""Of a network's multiply-accumulates, the largest share that a candidate keeps."""
LEAST = 0.01
_SHRUNK = (1.0, 0.75, 0.5)
_DEPTH = 0.5
_STEP, _BOX_STEP = 8, 32
_SMALLEST = 16
_NO_LIMIT = 0.99
_LARGER = 1.2
"""A backbone with so many times the teacher's multiply-accumulates is not tried as its student unless it is named."""


_Values = tuple[str, ...] | tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Space:
    """The values of each dimension; the share lies between `least` and `MOST`, by logarithm."""

    networks: tuple[str, ...]
    sizes: tuple[int, ...]
    depths: tuple[float, ...]
    interpolations: tuple[Interpolation, ...]
    least: float = LEAST

    def suggest(self, trial: BaseTrial) -> Choice:
        """Draw a candidate; a dimension of one value is not drawn."""

        def one(name: str, values: _Values) -> str | float:
            if len(values) == 1:
                return values[0]
            drawn = trial.suggest_categorical(name, values)
            assert isinstance(drawn, str | int | float)
            return drawn

        share = trial.suggest_float("share", self.least, MOST, log=True)
        return Choice(
            network=str(one("network", self.networks)),
            size=int(one("size", self.sizes)),
            share=rounded(share),
            depth=float(one("depth", self.depths)),
            interpolation=Interpolation(str(one("interpolation", self.interpolations))),
        )

    def parameters(self, choice: Choice) -> dict[str, str | float]:
        """A candidate as a study's parameters: the way back from `suggest`.

        One that could have no block out may have been drawn at any depth.
        """
        depth = choice.depth if choice.depth in self.depths else min(self.depths)
        whole: dict[str, tuple[_Values, str | float]] = {
            "network": (self.networks, choice.network),
            "size": (self.sizes, choice.size),
            "depth": (self.depths, depth),
            "interpolation": (self.interpolations, choice.interpolation),
        }
        drawn: dict[str, str | float] = {
            name: own for name, (values, own) in whole.items() if len(values) > 1
        }
        return {**drawn, "share": max(choice.share, self.least)}


def rounded(share: float) -> float:
    """A share to three digits, within its bounds."""
    return min(max(float(f"{share:.3g}"), LEAST), MOST)


def space_of(
    recipe: Recipe,
    task: TrainingTask,
    *,
    networks: tuple[str, ...] | None,
    sizes: tuple[int, ...] | None,
    depths: tuple[float, ...] | None,
    interpolations: tuple[Interpolation, ...] | None,
) -> Space:
    """The space of a recipe: what is named, and for what is not, its default.

    Args:
        recipe: its teacher, size and filter are those of the first candidates.
        task: decides which networks there are.
        networks: `teacher` and names of backbones; where None, the teacher, and small backbones whose weights are on
            this machine and that are not larger than it.
        sizes: sides in pixels; the teacher's, three quarters and half of it where None.
        depths: shares of the residual blocks that are taken out whole; none, and `prune.depth` or else a half, where
            None. Only none where `prune.importance` does not rank blocks.
        interpolations: resize filters, each of which takes a teacher of its own; the recipe's where None.

    Raises:
        ConfigError: a size that the task does not take, or depths that `prune.importance` does not rank.
        ModelError: no backbone has a name that was given.
    """
    own, step = recipe.preprocess.size, _BOX_STEP if isinstance(recipe.task, DetectionConfig) else _STEP
    if networks is None:
        networks = (TEACHER, *_smaller(recipe, task))
    else:
        for name in networks:
            if name != TEACHER:
                backbones.resolve(name)
    if sizes is None:
        shrunk = [max(int(own * share) // step * step, step, _SMALLEST) for share in _SHRUNK]
        sizes = tuple(dict.fromkeys([own, *(size for size in shrunk if size < own)]))
    elif wrong := [size for size in sizes if size % (step if step == _BOX_STEP else 1)]:
        raise ConfigError(f"--sizes: got {wrong[0]}, and a detector takes multiples of {_BOX_STEP}.")
    ranked = recipe.prune.importance is Importance.TAYLOR
    if depths is None:
        depths = (0.0, recipe.prune.depth or _DEPTH) if ranked else (0.0,)
    elif any(depths) and not ranked:
        raise ConfigError(
            f"--depths: blocks are ranked by prune.importance = taylor, got {recipe.prune.importance}; set it, or leave"
            " --depths out."
        )
    return Space(
        networks=tuple(dict.fromkeys(networks)),
        sizes=sizes,
        depths=tuple(dict.fromkeys(depths)),
        interpolations=interpolations or (recipe.preprocess.interpolation,),
    )


def _smaller(recipe: Recipe, task: TrainingTask) -> list[str]:
    """Small backbones that are here and not larger than the teacher's."""
    own, size = recipe.train.backbone, recipe.preprocess.size
    here = [name for name in backbones.SMALL if name != own and backbones.absence(name) is None]
    if not here:
        return []

    def macs(name: str) -> int:
        return network_size(task.network(name, backbones.NO_WEIGHTS, seed=0, size=size), size).macs

    most = _LARGER * macs(own)
    return [name for name in here if macs(name) <= most]


def trial_recipe(recipe: Recipe, choice: Choice, epochs: int) -> Recipe:
    """The recipe that shows what a candidate is worth: one cut, and a short distillation."""
    learns = 1 if choice.network != TEACHER else 0
    return _chosen(recipe, choice).model_copy(
        update={
            "prune": _chosen(recipe, choice).prune.model_copy(
                update={
                    "steps": 1,
                    "start_epochs": learns,
                    "recovery_epochs": 0,
                    "sparse_epochs": 0,
                    "sensitivity": False,
                    "sparsity_2_4": False,
                }
            ),
            "distill": _chosen(recipe, choice).distill.model_copy(update={"epochs": epochs}),
        }
    )


def final_recipe(recipe: Recipe, choice: Choice, max_drop: float | None, epochs: int) -> Recipe:
    """The recipe of a candidate's ordinary run, with all of the recipe's own steps.

    Args:
        recipe: the user's.
        choice: the candidate.
        max_drop: `bundle.max_drop`, where a floor was named; the recipe's own where None.
        epochs: of distillation.
    """
    chosen = _chosen(recipe, choice)
    if epochs != recipe.distill.epochs:
        distill = chosen.distill.model_copy(update={"epochs": epochs})
        chosen = chosen.model_copy(update={"distill": distill})
    if max_drop is None:
        return chosen
    return chosen.model_copy(update={"bundle": chosen.bundle.model_copy(update={"max_drop": max_drop})})


def _chosen(recipe: Recipe, choice: Choice) -> Recipe:
    size = None if choice.size == recipe.preprocess.size else choice.size
    return recipe.model_copy(
        update={
            "preprocess": recipe.preprocess.model_copy(
                update={"interpolation": Interpolation(choice.interpolation)}
            ),
            "prune": recipe.prune.model_copy(
                update={
                    "enabled": True,
                    "network": choice.network,
                    "target": MacsTarget(share=choice.share),
                    "target_parameters": None,
                    "depth": choice.depth,
                    # What the cut costs was tried; whether the student may ship, `bundle.max_drop` decides.
                    "max_drop": _NO_LIMIT,
                }
            ),
            "distill": recipe.distill.model_copy(update={"student": "pruned", "size": size}),
        }
    )


def settings_of(recipe: Recipe, choice: Choice, max_drop: float | None, epochs: int) -> tuple[str, ...]:
    """What the final recipe sets, as lines of TOML; arguments as of `final_recipe`."""
    lines = {
        "prune.network": f'"{choice.network}"',
        "prune.target": f'{{kind = "macs", share = {choice.share}}}',
        "prune.max_drop": str(_NO_LIMIT),
    }
    if choice.depth != recipe.prune.depth:
        lines["prune.depth"] = f"{choice.depth:g}"
    if choice.size != recipe.preprocess.size:
        lines["distill.size"] = str(choice.size)
    if epochs != recipe.distill.epochs:
        lines["distill.epochs"] = str(epochs)
    if choice.interpolation != recipe.preprocess.interpolation:
        lines["preprocess.interpolation"] = f'"{choice.interpolation}"'
    if max_drop is not None:
        lines["bundle.max_drop"] = str(max_drop)
    return tuple(f"{key} = {value}" for key, value in lines.items())
