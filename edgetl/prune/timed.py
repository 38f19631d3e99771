"""Cuts to a target of the clock: a table predicts, the runtime measures, and the cut goes on until that holds."""

from __future__ import annotations

import copy
import dataclasses
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from torch import nn

from edgetl.config import LatencyTarget, MacsTarget, PruneConfig, SpeedupTarget
from edgetl.errors import ConfigError, ModelError
from edgetl.files import read_json, write_json
from edgetl.models.removed import remove_
from edgetl.progress import Progress
from edgetl.prune.apply import cut
from edgetl.prune.depth import Block
from edgetl.prune.graph import ChannelGraph, layer_costs, trace
from edgetl.prune.groups import ChannelGroup, Layer
from edgetl.prune.importance import Scorer
from edgetl.prune.latency import LayerTiming, Stopwatch, fit_table, total_work
from edgetl.prune.plan import Cost, CutLimits
from edgetl.prune.schedule import shares
from edgetl.prune.surgery import without
from edgetl.records.prune import GroupWidth, PruneLatency
from edgetl.train.seeds import numpy_generator

_RANDOM = 12
"""Networks of random widths that the table is fitted to, besides the smallest and the whole one."""
_SPREAD = 0.25
_TRIES = 8
_SLACK, _TIGHTER = 0.03, 0.01


@dataclass(frozen=True, kw_only=True)
class Observation:
    """A network that was timed: its `total_work`, and its and the teacher's milliseconds."""

    work: tuple[float, ...]
    timing: LayerTiming


@dataclass(frozen=True, kw_only=True)
class Observations:
    """What is saved of the calibration, so that a run that was stopped goes on in it; `key` names the run's inputs."""

    key: str
    timed: tuple[Observation, ...]


@dataclass(frozen=True, kw_only=True)
class TimedCut:
    """A cut network, what the table said of it, and what the runtime took, in milliseconds."""

    model: nn.Module
    predicted_ms: float
    measured_ms: float


class TimedTarget:
    """A target in milliseconds, or as a speed-up over the teacher.

    Making it times the smallest network that the limits allow, which shows whether the target can be reached, the whole
    one, and a dozen of random widths, to which the table is fitted. A network's milliseconds are its ratio to the
    teacher's, whose calls took turns with its own, times the teacher's median over the calibration.

    Args:
        model: the unpruned network; it stays as it is.
        input_size: side of its square input in pixels.
        config: target, steps, layers kept.
        limits: alignment and floors.
        stopwatch: times a network in the runtime.
        kept: a JSON file for the measurements.
        key: of everything that they depend on.
        seed: of the random widths.
        progress: shows each measurement.

    Raises:
        ModelError: the target cannot be reached (says the best possible), or the network meets it already.
        StorageError: the measurements cannot be saved.
    """

    def __init__(
        self,
        model: nn.Module,
        input_size: int,
        *,
        config: PruneConfig,
        limits: CutLimits,
        stopwatch: Stopwatch,
        kept: Path,
        key: str,
        seed: int,
        progress: Progress,
    ) -> None:
        self.config, self.limits, self.stopwatch, self.progress = config, limits, stopwatch, progress
        self.input_size, self.seed = input_size, seed
        self.graph = trace(copy.deepcopy(model), input_size, keep=config.keep, depth=limits.depth)
        self.smallest, self.whole, *others = self._observe(kept, key)
        observed = (self.smallest, self.whole, *others)
        self.teacher_ms = statistics.median(one.timing.teacher_ms for one in observed)
        self.target_ms = self._target(self.teacher_ms)
        self.now_ms = self.whole_ms = self._milliseconds(self.whole.timing)
        self.table = fit_table(
            [one.work for one in observed], [self._milliseconds(one.timing) for one in observed]
        )
        self.networks = len(observed)
        progress.message(
            f"prune: latency table from {self.networks} networks, median error {self.table.error:.1%}; the teacher"
            f" takes {self.teacher_ms:.2f} ms, the target is {self.target_ms:.2f} ms"
        )

    def goals(self) -> tuple[float, ...]:
        """Milliseconds that may be left after each step."""
        left = shares(self.target_ms / self.whole_ms, self.config.steps)
        return tuple(share * self.whole_ms for share in left)

    def cut(self, model: nn.Module, scorer: Scorer, budget: Cost) -> TimedCut:
        """Remove channels until the network, timed in the runtime, takes no more than the budget's milliseconds.

        Each measurement corrects the table by its ratio to the prediction. A cut that went more than 3% too far is
        tried once more with the corrected table.

        Args:
            model: the network to cut, which takes `now_ms`; it stays as it is.
            scorer: ranks its channels.
            budget: what may remain.

        Raises:
            ModelError: the network cannot be cut, or not to the budget; says the best that was measured.
        """
        graph = trace(copy.deepcopy(model), self.input_size, keep=self.config.keep, depth=self.limits.depth)
        scores, goal = scorer(graph), budget.milliseconds
        table = self.table.scaled(self.now_ms / self.table.milliseconds(graph.layers))
        best: TimedCut | None = None
        fastest, missed = self.now_ms, 0
        for attempt in range(_TRIES):
            least = table.of_work(self.smallest.work) * (1 + 1e-6)
            aim = max(goal * (1 - _TIGHTER * missed), least)
            aimed = dataclasses.replace(budget, milliseconds=aim)
            result = cut(
                model,
                self.input_size,
                lambda _: scores,
                aimed,
                self.limits,
                keep=self.config.keep,
                table=table,
            )
            predicted, measured = result.cost.milliseconds, self._milliseconds(self.stopwatch(result.model))
            self.progress.message(
                f"prune: {predicted:.2f} ms predicted, {measured:.2f} ms measured, {goal:.2f} ms wanted"
            )
            fastest = min(fastest, measured)
            if measured > goal:
                missed += 1
            elif best is None or measured > best.measured_ms:
                best = TimedCut(model=result.model, predicted_ms=predicted, measured_ms=measured)
            if best is not None and (attempt > 0 or measured >= goal * (1 - _SLACK)):
                break
            if best is None and aim == least:
                break
            table = table.scaled(measured / predicted)
        if best is None:
            raise ModelError(self._unreachable(goal, fastest))
        return best

    def explain(self, model: nn.Module) -> PruneLatency:
        """What was predicted and measured of the pruned network, which takes `now_ms`, group by group."""
        before, after = self._by_group(self.graph.layers), self._by_group(layer_costs(model, self.input_size))
        return PruneLatency(
            target_ms=self.target_ms,
            teacher_ms=self.teacher_ms,
            predicted_before_ms=sum(before.values()),
            measured_before_ms=self.whole_ms,
            predicted_ms=sum(after.values()),
            measured_ms=self.now_ms,
            rest_before_ms=before[""],
            rest_ms=after[""],
            networks=self.networks,
            table_error=self.table.error,
            groups=tuple(
                GroupWidth(
                    name=group.name,
                    channels_before=group.channels,
                    channels_after=_channels(model, group),
                    before_ms=before[group.name],
                    after_ms=after[group.name],
                )
                for group in self.graph.groups
            ),
        )

    def _by_group(self, layers: Mapping[str, Layer]) -> dict[str, float]:
        """Predicted milliseconds of the layers that make each group's channels; what is in no group under ''."""
        maker = {layer: group.name for group in self.graph.groups for layer in group.outputs}
        spent = dict.fromkeys([group.name for group in self.graph.groups], 0.0)
        spent[""] = self.table.fixed_ms
        for name, layer in layers.items():
            spent[maker.get(name, "")] += self.table.layer_ms(layer, layer.inputs, layer.outputs)
        return spent

    def _observe(self, kept: Path, key: str) -> list[Observation]:
        """Time the networks that the table is fitted to, or go on where an earlier run stopped."""
        timed = _read(kept, key)
        shapes = [
            (self._smallest(), self._fewest_blocks()),
            ({group.name: group.channels for group in self.graph.groups}, ()),
        ]
        shapes += [(self._random(number), self._some_blocks(number)) for number in range(_RANDOM)]
        with self.progress.task("Timing networks of many widths", len(shapes)) as task:
            task.advance(len(timed))
            for channels, blocks in shapes[len(timed) :]:
                network = remove_(_narrowed(self.graph, channels), blocks)
                timing = self.stopwatch(network)
                work = total_work(layer_costs(network, self.input_size))
                timed.append(Observation(work=work, timing=timing))
                write_json(kept, Observations(key=key, timed=tuple(timed)))
                task.advance(note=f"{timing.ms:.2f} ms")
                self._check(timed)
        self._check(timed)
        return timed

    def _check(self, timed: list[Observation]) -> None:
        """Refuse a target that the smallest network misses, or that the whole one meets."""
        smallest = timed[0].timing
        target = self._target(smallest.teacher_ms)
        if smallest.ms > target:
            raise ModelError(self._unreachable(target, smallest.ms, smallest.teacher_ms))
        if len(timed) > 1 and timed[1].timing.ms <= self._target(timed[1].timing.teacher_ms):
            whole = timed[1].timing
            raise ModelError(
                f"{type(self.graph.model).__name__} takes {whole.ms:.2f} ms unpruned, which meets the target of"
                f" {self._target(whole.teacher_ms):.2f} ms. Set prune.enabled = false, or a harder target."
            )

    def _target(self, teacher_ms: float) -> float:
        match target := self.config.target:
            case LatencyTarget():
                return target.ms
            case SpeedupTarget():
                return teacher_ms / target.times
            case MacsTarget():
                raise ConfigError('prune.target is of kind "macs", expected "latency" or "speedup".')
            case _:
                assert_never(target)

    def _unreachable(self, goal: float, best: float, teacher_ms: float | None = None) -> str:
        teacher = teacher_ms or self.teacher_ms
        return (
            f"{type(self.graph.model).__name__} cannot be cut to {goal:.2f} ms ({teacher / goal:.1f}x as fast as the"
            f" teacher): with round_to = {self.limits.round_to} and max_cut = {self.limits.max_cut} the best possible"
            f" is {best:.2f} ms ({teacher / best:.1f}x). Ease the target, or take a smaller prune.round_to, a larger"
            " prune.max_cut or a smaller backbone."
        )

    def _milliseconds(self, timing: LayerTiming) -> float:
        return timing.share * self.teacher_ms

    def _smallest(self) -> dict[str, int]:
        return {group.name: min(group.channels, self.limits.floor(group)) for group in self.graph.groups}

    def _fewest_blocks(self) -> tuple[str, ...]:
        """As many blocks as may go, the most costly of them."""
        if self.limits.fewest_blocks is None:
            return ()
        layers = self.graph.layers

        def macs(block: Block) -> float:
            return sum(
                layers[key].macs(layers[key].inputs, layers[key].outputs)
                for key in block.layers & layers.keys()
            )

        costly = sorted(self.graph.blocks, key=macs, reverse=True)
        return tuple(block.name for block in costly[: len(costly) - self.limits.fewest_blocks])

    def _some_blocks(self, number: int) -> tuple[str, ...]:
        """Blocks drawn at random, from none of them to as many as may go."""
        if self.limits.fewest_blocks is None:
            return ()
        generator = numpy_generator(self.seed, "blocks", number)
        names = [block.name for block in self.graph.blocks]
        count = int(generator.integers(0, len(names) - self.limits.fewest_blocks, endpoint=True))
        return tuple(names[at] for at in sorted(generator.permutation(len(names))[:count]))

    def _random(self, number: int) -> dict[str, int]:
        """Channels of each group: shares around one of the network's own, so that sizes and shapes both vary."""
        generator = numpy_generator(self.seed, "widths", number)
        centre = generator.uniform(0.1, 1.0)
        channels = {}
        for group in self.graph.groups:
            share = float(generator.uniform(centre - _SPREAD, centre + _SPREAD))
            unit = self.limits.unit(group)
            wanted = max(round(share * group.channels / unit) * unit, self.limits.floor(group))
            channels[group.name] = min(wanted, group.channels)
        return channels


def _channels(model: nn.Module, group: ChannelGroup) -> int:
    """How many channels a group of the uncut network has left; 0 where all its layers went with their blocks."""
    modules = dict(model.named_modules())
    left = [(modules[layer], share) for layer, share in group.outputs.items() if layer in modules]
    for module, share in left:
        if isinstance(module, nn.Conv2d | nn.Linear):
            return round(len(module.weight) / share)
    return 0


def _narrowed(graph: ChannelGraph, channels: Mapping[str, int]) -> nn.Module:
    """A copy with the first so many channels of each group: for its speed, not its accuracy."""
    removed = {
        group.name: tuple(range(channels[group.name], group.channels))
        for group in graph.groups
        if channels[group.name] < group.channels
    }
    return without(graph.model, graph.groups, removed)


def _read(kept: Path, key: str) -> list[Observation]:
    try:
        found = read_json(kept, Observations)
    except (OSError, ValueError):
        return []
    return list(found.timed) if found.key == key else []
