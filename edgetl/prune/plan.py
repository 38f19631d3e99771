"""Which channels to remove: the least important ones for what they save, until the budget holds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from edgetl.config import PruneScope, Target
from edgetl.errors import ModelError
from edgetl.prune.depth import Block
from edgetl.prune.graph import ChannelGraph
from edgetl.prune.groups import ChannelGroup
from edgetl.prune.importance import ImportanceScores
from edgetl.prune.latency import LatencyTable


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a network costs, or may cost: multiply-accumulates of one image, parameters, predicted milliseconds.

    The milliseconds count only where a latency table predicts them.
    """

    macs: float
    parameters: float
    milliseconds: float = 0.0

    def minus(self, saving: Cost) -> Cost:
        """What is left after a saving."""
        return Cost(
            macs=self.macs - saving.macs,
            parameters=self.parameters - saving.parameters,
            milliseconds=self.milliseconds - saving.milliseconds,
        )


@dataclass(frozen=True, kw_only=True)
class CutLimits:
    """What a cut must respect.

    Attributes:
        round_to: widths that are cut end as multiples of this.
        max_cut: no group loses more than this share of its channels in `widths`.
        widths: original channels, group -> number; the current ones where a group is missing.
        scope: `global`: groups compete; `layer`: all are held to about the same share of `widths`.
        fewest_blocks: so many of the blocks that could be taken out stay at least; None where none may go.
        most_blocks: so many of them stay at most: the least important go before any channel; None where they compete
            with channels.
    """

    round_to: int
    max_cut: float
    widths: Mapping[str, int]
    scope: PruneScope = PruneScope.GLOBAL
    fewest_blocks: int | None = None
    most_blocks: int | None = None

    @property
    def depth(self) -> bool:
        """Whether blocks may go."""
        return self.fewest_blocks is not None

    def unit(self, group: ChannelGroup) -> int:
        """So many channels go at a time."""
        return math.lcm(self.round_to, group.cell)

    def floor(self, group: ChannelGroup) -> int:
        """So many channels stay at least: a multiple of the unit, one unit or more."""
        unit = self.unit(group)
        least = self.widths.get(group.name, group.channels) * (1 - self.max_cut)
        # the tolerance keeps 80 * (1 - 0.9) from counting as more than 8
        return max(1, math.ceil(least / unit - 1e-9)) * unit


def alignment_for(targets: Sequence[Target]) -> int:
    """The multiple that channel counts should be of, where the recipe names none.

    On x86 ONNX Runtime's INT8 depthwise kernels take 16 channels at a time, and a rest of 8 costs more than 16 would
    (`make bench ONLY=channel-alignment`: 24 channels took 1.4x as long as 32 on an EPYC with VNNI). AVX-512's blocked
    float layout holds 16 channels too, and so do INT8 tensor cores. ARM keeps 8.
    """
    return 8 if set(targets) <= {Target.CPU_ARM} else 16


@dataclass(frozen=True, kw_only=True)
class CutPlan:
    """Channels to remove, group -> indices in ascending order, blocks to take out, and the cost that remains."""

    removed: dict[str, tuple[int, ...]]
    cost: Cost
    blocks: tuple[str, ...] = ()


def choose(
    graph: ChannelGraph,
    scores: ImportanceScores,
    budget: Cost,
    limits: CutLimits,
    table: LatencyTable | None = None,
) -> CutPlan:
    """Choose channels greedily until all parts of `budget` hold.

    Channels go in units of the alignment, in each group the least important first. Additive scores are set
    against the share of the overrun that a unit saves, so that costly channels of equal importance go first;
    others are compared by their mean. With the scope `layer` the next unit is that of the group which has lost the
    smallest share with it, whatever the scores of other groups.

    A block that may go whole is a unit among the others: it saves its layers as they are by then, their calls included,
    of which no more counts than is still to be saved. Its score stays that of the whole block. Where the limits say how
    many blocks stay at most, the least important go first, whatever they save.

    Args:
        graph: the traced network.
        scores: of all its groups, and of its blocks.
        budget: what may remain; `inf` for no bound.
        limits: alignment and floors.
        table: predicts milliseconds; where there is none, the budget's do not count.

    Raises:
        ModelError: the budget is out of reach under the limits; says what is reachable.
    """
    search = _Search(graph, scores, budget, limits, table)
    search.take_out_blocks()
    while not search.done:
        if not search.step():
            raise ModelError(search.unreachable())
    return CutPlan(removed=search.removed(), cost=search.cost, blocks=search.removed_blocks())


def least_important(group: ChannelGroup, scores: ImportanceScores, count: int) -> tuple[int, ...]:
    """Indices of the group's `count` least important channels, in ascending order; cells stay together."""
    return tuple(sorted(_order(group, scores.channels[group.name])[:count].tolist()))


def cost_of(graph: ChannelGraph, table: LatencyTable | None = None) -> Cost:
    """The cost of a network as it stands."""
    return _Search(graph, ImportanceScores(channels={}, additive=False), _NO_BUDGET, _NO_LIMITS, table).cost


def check_reachable(graph: ChannelGraph, budget: Cost, limits: CutLimits) -> None:
    """Make sure that the budget can be met, whatever the scores.

    Raises:
        ModelError: it is out of reach under the limits; says what is reachable.
    """
    ones = {g.name: torch.ones(g.channels, dtype=torch.float64) for g in graph.groups}
    last = dict.fromkeys((block.name for block in graph.blocks), math.inf)
    choose(graph, ImportanceScores(channels=ones, additive=False, blocks=last), budget, limits)


class _Search:
    """The state of one greedy search."""

    def __init__(
        self,
        graph: ChannelGraph,
        scores: ImportanceScores,
        budget: Cost,
        limits: CutLimits,
        table: LatencyTable | None,
    ) -> None:
        self.graph, self.budget, self.limits, self.additive = graph, budget, limits, scores.additive
        self.table = table
        self.groups = {g.name: g for g in graph.groups if g.name in scores.channels}
        self.orders = {name: _order(group, scores.channels[name]) for name, group in self.groups.items()}
        self.sums = {
            name: torch.cat(
                [torch.zeros(1, dtype=torch.float64), scores.channels[name][order].cumsum(0)]
            ).tolist()
            for name, order in self.orders.items()
        }
        self.gone = dict.fromkeys(self.groups, 0)
        self.blocks = {block.name: block for block in graph.blocks if block.name in scores.blocks}
        self.block_scores, self.absent = scores.blocks, set[str]()
        self.whole_blocks = len(self.blocks)
        self.inputs = {name: float(layer.inputs) for name, layer in graph.layers.items()}
        self.outputs = {name: float(layer.outputs) for name, layer in graph.layers.items()}
        norms = sum(p.numel() for p in graph.model.parameters()) - sum(
            layer.parameters(layer.inputs, layer.outputs) for layer in graph.layers.values()
        )
        self.cost = Cost(
            macs=sum(layer.macs(layer.inputs, layer.outputs) for layer in graph.layers.values()),
            parameters=sum(layer.parameters(layer.inputs, layer.outputs) for layer in graph.layers.values())
            + norms,
            milliseconds=table.milliseconds(graph.layers) if table else 0.0,
        )
        self.first = self.cost
        self._savings: dict[str, tuple[int, Cost]] = {}

    @property
    def done(self) -> bool:
        return (
            self.cost.macs <= self.budget.macs
            and self.cost.parameters <= self.budget.parameters
            and not self.slow
        )

    @property
    def slow(self) -> bool:
        """Whether the milliseconds are above the budget's."""
        return self.table is not None and self.cost.milliseconds > self.budget.milliseconds

    def step(self) -> bool:
        """Remove the unit that matters least; False when none may go."""
        ranked = [
            (self._share_removed(name), self._rank(name), name) for name in self.groups if self._amount(name)
        ]
        if self.limits.fewest_blocks is not None and len(self.blocks) > self.limits.fewest_blocks:
            share = 1 - (len(self.blocks) - 1) / self.whole_blocks
            lost = 0.0 if self.limits.scope is PruneScope.GLOBAL else share
            ranked += [(lost, self._block_rank(block), name) for name, block in self.blocks.items()]
        if not ranked:
            return False
        *_, name = min(ranked)
        if name in self.blocks:
            self._remove(self.blocks.pop(name))
            return True
        amount, saving = self._saving(name)
        group = self.groups[name]
        for layer, share in group.inputs.items():
            if layer not in self.absent:
                self.inputs[layer] -= amount * share
        for layer, share in group.outputs.items():
            if layer not in self.absent:
                self.outputs[layer] -= amount * share
        self.gone[name] += amount
        self.cost = self.cost.minus(saving)
        touched = group.inputs.keys() | group.outputs.keys()
        for other in self.groups.values():
            if touched & (other.inputs.keys() | other.outputs.keys()):
                self._savings.pop(other.name, None)
        return True

    def take_out_blocks(self) -> None:
        """Remove the least important blocks until no more are left than may stay."""
        most = self.limits.most_blocks
        while most is not None and len(self.blocks) > most:
            self._remove(self.blocks.pop(min(self.blocks, key=self.block_scores.__getitem__)))

    def removed_blocks(self) -> tuple[str, ...]:
        """Blocks that go, in the network's order."""
        scored = [block.name for block in self.graph.blocks if block.name in self.block_scores]
        return tuple(name for name in scored if name not in self.blocks)

    def _remove(self, block: Block) -> None:
        self.cost = self.cost.minus(self._block_saving(block))
        self.absent |= block.layers
        for layer in block.layers & self.inputs.keys():
            self.inputs[layer] = self.outputs[layer] = 0.0
        self.groups = {
            name: group for name, group in self.groups.items() if not group.outputs.keys() <= self.absent
        }
        self._savings.clear()

    def _block_rank(self, block: Block) -> float:
        score = self.block_scores[block.name]
        if not self.additive:
            return score
        saving, over = self._block_saving(block), self.cost.minus(self.budget)
        needed = Cost(
            macs=min(saving.macs, over.macs),
            parameters=min(saving.parameters, over.parameters),
            milliseconds=min(saving.milliseconds, over.milliseconds),
        )
        return score / max(self._saved(needed), 1e-12)

    def _block_saving(self, block: Block) -> Cost:
        """What goes with a block; its norms' parameters, which are few, are not counted."""
        macs = parameters = milliseconds = 0.0
        for key in block.layers & self.inputs.keys():
            layer, inputs, outputs = self.graph.layers[key], self.inputs[key], self.outputs[key]
            macs += layer.macs(inputs, outputs)
            parameters += layer.parameters(inputs, outputs)
            if self.table is not None:
                milliseconds += self.table.layer_ms(layer, inputs, outputs)
        return Cost(macs=macs, parameters=parameters, milliseconds=milliseconds)

    def removed(self) -> dict[str, tuple[int, ...]]:
        return {
            name: tuple(sorted(self.orders[name][:count].tolist()))
            for name, count in self.gone.items()
            if count and name in self.groups
        }

    def unreachable(self) -> str:
        macs, parameters = self.cost.macs / self.first.macs, self.cost.parameters / self.first.parameters
        name, limits = type(self.graph.model).__name__, self.limits
        if self.slow:
            return (
                f"{name} cannot be cut to {self.budget.milliseconds:.2f} ms: with round_to = {limits.round_to} and"
                f" max_cut = {limits.max_cut} the best that is predicted is {self.cost.milliseconds:.2f} ms."
                f" {_ASK_LESS}"
            )
        return (
            f"{name} cannot be cut to {_share(self.budget.macs, self.first.macs)} of its"
            f" multiply-accumulates and {_share(self.budget.parameters, self.first.parameters)} of its parameters:"
            f" with round_to = {limits.round_to} and max_cut = {limits.max_cut} the best reachable is"
            f" {macs:.1%} and {parameters:.1%}. {_ASK_LESS}"
        )

    def _amount(self, name: str) -> int:
        """Channels that the group's next unit has; 0 when it is at its floor."""
        group, unit = self.groups[name], self.limits.unit(self.groups[name])
        left = group.channels - self.gone[name]
        amount = left % unit or unit
        return amount if left - amount >= self.limits.floor(group) else 0

    def _share_removed(self, name: str) -> float:
        """Share of its channels that the group has lost after its next unit, where groups are kept level; else 0."""
        if self.limits.scope is PruneScope.GLOBAL:
            return 0.0
        channels = self.groups[name].channels
        left = channels - self.gone[name] - self._amount(name)
        return 1 - left / self.limits.widths.get(name, channels)

    def _rank(self, name: str) -> float:
        amount, saving = self._saving(name)
        gone, sums = self.gone[name], self.sums[name]
        score = float(sums[gone + amount] - sums[gone])
        if not self.additive:
            return score / amount
        return score / max(self._saved(saving), 1e-12)

    def _saved(self, saving: Cost) -> float:
        """What a saving is worth: its share of what the first network had too much of, over all that is bounded."""
        saved = 0.0
        if self.cost.macs > self.budget.macs:
            saved += saving.macs / (self.first.macs - self.budget.macs)
        if self.cost.parameters > self.budget.parameters:
            saved += saving.parameters / (self.first.parameters - self.budget.parameters)
        if self.slow:
            saved += saving.milliseconds / (self.first.milliseconds - self.budget.milliseconds)
        return saved

    def _saving(self, name: str) -> tuple[int, Cost]:
        if name not in self._savings:
            group, amount = self.groups[name], self._amount(name)
            macs, parameters, milliseconds = 0.0, group.norms * amount, 0.0
            for key in (group.inputs.keys() | group.outputs.keys()) - self.absent:
                layer, inputs, outputs = self.graph.layers[key], self.inputs[key], self.outputs[key]
                fewer = (
                    inputs - amount * group.inputs.get(key, 0.0),
                    outputs - amount * group.outputs.get(key, 0.0),
                )
                macs += layer.macs(inputs, outputs) - layer.macs(*fewer)
                parameters += layer.parameters(inputs, outputs) - layer.parameters(*fewer)
                if self.table is not None:
                    milliseconds += self.table.layer_ms(layer, inputs, outputs)
                    milliseconds -= self.table.layer_ms(layer, *fewer)
            self._savings[name] = amount, Cost(macs=macs, parameters=parameters, milliseconds=milliseconds)
        return self._savings[name]


def _order(group: ChannelGroup, scores: torch.Tensor) -> torch.Tensor:
    """The group's channels, least important first; cells stay together."""
    cells = torch.argsort(scores.view(-1, group.cell).sum(1), stable=True)
    return (cells[:, None] * group.cell + torch.arange(group.cell)).flatten()


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if math.isfinite(part) else "any share"


_ASK_LESS = (
    "Ask for less (prune.target, prune.target_parameters), set a smaller prune.round_to, take another backbone,"
    " or set prune.enabled = false."
)
_NO_BUDGET = Cost(macs=math.inf, parameters=math.inf, milliseconds=math.inf)
_NO_LIMITS = CutLimits(round_to=1, max_cut=0.0, widths={})
