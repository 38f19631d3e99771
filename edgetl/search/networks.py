"""The network of each candidate before it learns, in under a second: cut to its width by the size of its weights, and
to its depth by what blocks cost. How long it takes depends little on which of them go."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from edgetl.config import Recipe
from edgetl.errors import UncuttableError
from edgetl.models import backbones, checkpoint
from edgetl.models.removed import remove_
from edgetl.models.size import check_takes, network_size
from edgetl.prune.depth import fewest
from edgetl.prune.graph import ChannelGraph, layer_costs, trace
from edgetl.prune.groups import Layer
from edgetl.prune.importance import ImportanceScores, magnitude
from edgetl.prune.latency import total_work
from edgetl.prune.plan import Cost, CutLimits, alignment_for, choose, cost_of
from edgetl.prune.surgery import without
from edgetl.records.search import Choice
from edgetl.search.space import MOST, TEACHER, rounded
from edgetl.train.seeds import derive
from edgetl.train.tasks.base import TrainingTask

_ROOM = 1.02
_SIZES = "Leave it out of --backbones or --sizes"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A candidate's network: its choice, with the share and the depth that it can have, and its layers' work by
    kind."""

    choice: Choice
    model: nn.Module
    work: tuple[float, ...]

    @property
    def macs(self) -> float:
        """Its multiply-accumulates."""
        return sum(self.work[:2])


@dataclass(frozen=True, kw_only=True)
class _Uncut:
    """A network that is cut: its channel groups, and what ranks them; none where pruning does not understand it."""

    model: nn.Module
    macs: int
    fixed_macs: float = 0.0
    graph: ChannelGraph | None = None
    limits: CutLimits | None = None
    scores: ImportanceScores | None = None

    def blocks_left(self, depth: float) -> int:
        """How many of the blocks stay at a depth."""
        return fewest(self.graph.blocks, depth) if self.graph else 0

    def taken_out(self, depth: float) -> Sequence[str]:
        """The blocks that go at a depth."""
        costs = self.scores.blocks if self.scores else {}
        return sorted(costs, key=costs.__getitem__)[: len(costs) - self.blocks_left(depth)]


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
        self._least = functools.cache(self._narrowest)

    def cut(self, choice: Choice) -> Candidate:
        """The network of a candidate, its share as near as it can have it. Where no block can go, its depth is 0.

        Raises:
            ModelError: there is no such network, or it does not take images of that size.
            WeightsError: pretrained weights cannot be had.
        """
        uncut = self._uncut(choice.network, choice.size)
        if uncut.graph is None or uncut.limits is None or uncut.scores is None:
            return self._candidate(uncut.model, replace(choice, share=MOST, depth=0.0))
        left = uncut.blocks_left(choice.depth)
        share = self.within(choice, choice.share)
        budget = Cost(macs=share * uncut.macs - uncut.fixed_macs, parameters=math.inf, milliseconds=math.inf)
        limits = replace(uncut.limits, fewest_blocks=left, most_blocks=left)
        plan = choose(uncut.graph, uncut.scores, budget, limits)
        network = remove_(without(uncut.graph.model, uncut.graph.groups, plan.removed), plan.blocks)
        return self._candidate(network, replace(choice, share=share, depth=self.depth(choice)))

    def smallest(self, choice: Choice) -> Candidate:
        """The smallest network that a candidate of this network, size and depth can be."""
        return self.cut(replace(choice, share=self.least(choice)))

    def least(self, choice: Choice) -> float:
        """The smallest share of the network's multiply-accumulates that the limits of a cut allow at this depth."""
        return self._least(choice.network, choice.size, choice.depth)

    def within(self, choice: Choice, share: float) -> float:
        """The share to three digits, within what the limits of a cut and the blocks that go allow."""
        uncut = self._uncut(choice.network, choice.size)
        blocks = uncut.scores.blocks if uncut.scores else {}
        most = 1 - sum(blocks[name] for name in uncut.taken_out(choice.depth)) / uncut.macs
        return rounded(min(max(share, self.least(choice)), most))

    def depth(self, choice: Choice) -> float:
        """Its depth; 0 where no block can go."""
        return choice.depth if self._uncut(choice.network, choice.size).taken_out(choice.depth) else 0.0

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
            graph = trace(model, size, keep=self.recipe.prune.keep, depth=True)
        except UncuttableError:
            return _Uncut(model=model, macs=macs)
        limits = CutLimits(
            round_to=self.recipe.prune.round_to or alignment_for(self.recipe.quantize.target),
            max_cut=self.recipe.prune.max_cut,
            widths={group.name: group.channels for group in graph.groups},
            scope=self.recipe.prune.scope,
        )
        return _Uncut(
            model=graph.model,
            macs=macs,
            fixed_macs=macs - cost_of(graph).macs,
            graph=graph,
            limits=limits,
            scores=replace(magnitude(graph), blocks=_block_macs(graph)),
        )

    def _narrowest(self, network: str, size: int, depth: float) -> float:
        uncut = self._uncut(network, size)
        if uncut.graph is None or uncut.limits is None:
            return 1.0
        floors = {group.name: uncut.limits.floor(group) for group in uncut.graph.groups}
        gone = {
            group.name: tuple(range(floors[group.name], group.channels))
            for group in uncut.graph.groups
            if floors[group.name] < group.channels
        }
        smallest = remove_(without(uncut.graph.model, uncut.graph.groups, gone), uncut.taken_out(depth))
        macs = _macs(layer_costs(smallest, size)) + uncut.fixed_macs
        return min(_ROOM * macs / uncut.macs, MOST)

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


def _block_macs(graph: ChannelGraph) -> dict[str, float]:
    """Multiply-accumulates of each block that can be taken out."""
    layers = graph.layers
    return {
        block.name: _macs({name: layers[name] for name in block.layers & layers.keys()})
        for block in graph.blocks
    }


def _macs(layers: Mapping[str, Layer]) -> float:
    return sum(layer.macs(layer.inputs, layer.outputs) for layer in layers.values())
