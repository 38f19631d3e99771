"""What each channel group costs by itself: cut it by itself, measure the batch norms anew, score."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from edgetl.files import read_json, write_json
from edgetl.progress import Progress
from edgetl.prune.graph import ChannelGraph
from edgetl.prune.groups import ChannelGroup
from edgetl.prune.importance import ImportanceScores
from edgetl.prune.plan import CutLimits, cost_of, least_important
from edgetl.prune.surgery import without
from edgetl.records.prune import GroupCut, GroupSensitivity, PruneSensitivity

SHARES = (0.25, 0.5, 0.75)
"""Shares of a group's channels that are taken out."""
_NEAR = 0.125
"""How far the share that a whole number of units makes may be from the one asked for."""


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """What is written after each group."""

    key: str
    base: float
    groups: tuple[GroupSensitivity, ...]


def sensitivity(
    graph: ChannelGraph,
    scores: ImportanceScores,
    limits: CutLimits,
    score: Callable[[nn.Module], float],
    *,
    key: str,
    kept: Path,
    progress: Progress,
) -> PruneSensitivity:
    """Cut each group by itself, by each of `SHARES`, its least important channels first.

    The channels are really cut, and the network is not traced again for it. Li et al., "Pruning Filters for Efficient
    ConvNets" (ICLR 2017), section 3.2, cut layer by layer like this.

    Args:
        graph: the traced network, in evaluation mode; it stays as it is.
        scores: of all its groups.
        limits: alignment and floors. A share that no whole number of units comes near is left out.
        score: that of a network whose batch norms it may measure anew, in place.
        key: what the result depends on; groups saved under another key are measured again.
        kept: file in which the groups measured so far stand; a second call goes on there. The caller deletes it.
        progress: gets an estimate of the time and a bar of all cuts.
    """
    counts = {g.name: [_count(g, share, limits) for share in SHARES] for g in graph.groups}
    done = _load(kept, key)
    if done is None:
        start = time.perf_counter()
        done = _Kept(key=key, base=score(copy.deepcopy(graph.model)), groups=())
        seconds = time.perf_counter() - start
        cuts = sum(len({n for n in some if n}) for some in counts.values())
        progress.message(
            f"prune sensitivity: {len(counts)} groups of channels, {cuts} cuts of a single group; about"
            f" {_duration(seconds * cuts)}"
        )
    left = graph.groups[len(done.groups) :]
    with progress.task("sensitivity", sum(len({n for n in counts[g.name] if n}) for g in left)) as task:
        for group in left:
            tops: dict[int, float] = {}
            for count in sorted({n for n in counts[group.name] if n}):
                tops[count] = score(
                    without(graph.model, (group,), {group.name: least_important(group, scores, count)})
                )
                task.advance(1, f"{group.name} {tops[count]:.1%}")
            cuts_ = tuple(
                GroupCut(removed=n, saved=_saved(graph, group, n), score=tops[n]) if n else None
                for n in counts[group.name]
            )
            row = GroupSensitivity(name=group.name, channels=group.channels, cuts=cuts_)
            done = _Kept(key=key, base=done.base, groups=(*done.groups, row))
            write_json(kept, done)
    return PruneSensitivity(shares=SHARES, score=done.base, groups=done.groups)


def _count(group: ChannelGroup, share: float, limits: CutLimits) -> int:
    """So many channels, in whole units, come near the share of the group's; 0 where none do or the floor forbids."""
    unit = limits.unit(group)
    count = max(round(share * group.channels / unit), 1) * unit
    near = abs(count / group.channels - share) <= _NEAR
    return count if near and group.channels - count >= limits.floor(group) else 0


def _saved(graph: ChannelGraph, group: ChannelGroup, count: int) -> float:
    """Share of the network's multiply-accumulates that go with so many channels of only this group."""
    saved = 0.0
    for name in group.inputs.keys() | group.outputs.keys():
        layer = graph.layers[name]
        inputs = layer.inputs - count * group.inputs.get(name, 0.0)
        outputs = layer.outputs - count * group.outputs.get(name, 0.0)
        saved += layer.macs(layer.inputs, layer.outputs) - layer.macs(inputs, outputs)
    return saved / cost_of(graph).macs


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def _load(path: Path, key: str) -> _Kept | None:
    try:
        kept = read_json(path, _Kept)
    except (OSError, ValueError):
        return None
    return kept if kept.key == key else None
