"""The network of each candidate before it learns: cut to its width by the size of its weights, in under a second."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from edgetl.config import Recipe
from edgetl.errors import UncuttableError
from edgetl.models import backbones, checkpoint
from edgetl.models.size import check_takes, network_size
from edgetl.prune.graph import ChannelGraph, layer_costs, trace
from edgetl.prune.importance import ImportanceScores, magnitude
from edgetl.prune.latency import total_work
from edgetl.prune.plan import Cost, CutLimits, alignment_for, choose, cost_of
from edgetl.prune.surgery import without
from edgetl.search.space import MOST, TEACHER, Choice, rounded
from edgetl.train.seeds import derive
from edgetl.train.tasks.base import TrainingTask

_ROOM = 1.02
_SIZES = "Leave it out of --backbones or --sizes"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A candidate's network: its choice, with the share that it can have, and its layers' work by kind."""

    choice: Choice
    model: nn.Module
    work: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class _Uncut:
    """A network that is cut: its channel groups, and the smallest share of its multiply-accumulates; no groups where
    pruning does not understand it."""

    model: nn.Module
    macs: int
    fixed_macs: float = 0.0
    graph: ChannelGraph | None = None
    limits: CutLimits | None = None
    scores: ImportanceScores | None = None
    least: float = 1.0


class Networks:
    """Makes networks of any width.

    Args:
        recipe: alignment, limits of a cut, the teacher's backbone.
        task: what they answer.
        teacher: its checkpoint; where None, it is as good as untrained, which does for the smallest one.
    """

    def __init__(self, recipe: Recipe, task: TrainingTask, teacher: Path | None = None) -> None:
        self.recipe, self.task, self.teacher = recipe, task, teacher
        self._uncut = functools.cache(self._traced)

    def cut(self, choice: Choice) -> Candidate:
        """The network of a candidate; its share is raised to the smallest that the limits of a cut allow.

        Raises:
            ModelError: there is no such network, or it does not take images of that size.
            WeightsError: pretrained weights cannot be had.
        """
        uncut = self._uncut(choice.network, choice.size)
        if uncut.graph is None or uncut.limits is None or uncut.scores is None:
            return self._candidate(uncut.model, replace(choice, share=MOST))
        own = replace(choice, share=rounded(max(choice.share, uncut.least)))
        budget = Cost(
            macs=own.share * uncut.macs - uncut.fixed_macs, parameters=math.inf, milliseconds=math.inf
        )
        removed = choose(uncut.graph, uncut.scores, budget, uncut.limits).removed
        return self._candidate(without(uncut.graph.model, uncut.graph.groups, removed), own)

    def smallest(self, choice: Choice) -> Candidate:
        """The smallest network that a candidate of this network and size can be."""
        return self.cut(replace(choice, share=self.least(choice)))

    def least(self, choice: Choice) -> float:
        """The smallest share of the network's multiply-accumulates that the limits of a cut allow."""
        return self._uncut(choice.network, choice.size).least

    def macs(self, choice: Choice) -> int:
        """Multiply-accumulates of the uncut network at the candidate's size."""
        return self._uncut(choice.network, choice.size).macs

    def _candidate(self, model: nn.Module, choice: Choice) -> Candidate:
        work = total_work(layer_costs(model.eval(), choice.size))
        return Candidate(choice=choice, model=model, work=work)

    def _traced(self, network: str, size: int) -> _Uncut:
        model = self._built(network, size)
        check_takes(model, size, network, _SIZES)
        macs = network_size(model, size).macs
        try:
            graph = trace(model, size, keep=self.recipe.prune.keep)
        except UncuttableError:
            return _Uncut(model=model, macs=macs)
        limits = CutLimits(
            round_to=self.recipe.prune.round_to or alignment_for(self.recipe.quantize.target),
            max_cut=self.recipe.prune.max_cut,
            widths={group.name: group.channels for group in graph.groups},
            scope=self.recipe.prune.scope,
        )
        fixed = macs - cost_of(graph).macs
        gone = {
            group.name: tuple(range(limits.floor(group), group.channels))
            for group in graph.groups
            if limits.floor(group) < group.channels
        }
        layers = layer_costs(without(graph.model, graph.groups, gone), size).values()
        least = sum(layer.macs(layer.inputs, layer.outputs) for layer in layers) + fixed
        return _Uncut(
            model=graph.model,
            macs=macs,
            fixed_macs=fixed,
            graph=graph,
            limits=limits,
            scores=magnitude(graph),
            least=min(_ROOM * least / macs, MOST),
        )

    def _built(self, network: str, size: int) -> nn.Module:
        recipe = self.recipe
        if network != TEACHER:
            weights = backbones.NO_WEIGHTS if self.teacher is None else backbones.PRETRAINED
            return self.task.network(
                network, weights, seed=derive(recipe.seed, "weights", network), size=size
            )
        if self.teacher is not None:
            return checkpoint.load(self.teacher)[0]
        own = recipe.preprocess.size
        return self.task.network(
            recipe.train.backbone, backbones.NO_WEIGHTS, seed=derive(recipe.seed, "weights"), size=own
        )
