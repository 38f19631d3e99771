from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from edgetl.config import Importance
from edgetl.progress import SilentProgress
from edgetl.prune.graph import trace
from edgetl.prune.plan import CutLimits, cost_of, least_important
from edgetl.prune.sensitivity import SHARES, sensitivity
from edgetl.prune.surgery import without
from edgetl.records.prune import PruneSensitivity
from tests.prune.nets import SIZE, Chain, batches, limits, make_scorer, seeded


class Shown(SilentProgress):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


def measure(
    model: nn.Module,
    kept: Path,
    score: Callable[[nn.Module], float],
    *,
    key: str = "a",
    how: CutLimits | None = None,
    stated: Shown | None = None,
) -> PruneSensitivity:
    graph = trace(copy.deepcopy(model), SIZE)
    scores = make_scorer(Importance.MAGNITUDE, model)(graph)
    return sensitivity(
        graph, scores, how or limits(), score, key=key, kept=kept, progress=stated or SilentProgress()
    )


def energy(model: nn.Module) -> float:
    """A figure that shows what the network computes."""
    with torch.no_grad():
        return float(model(batches()[0]).square().mean())


def test_each_group_is_cut_alone_and_scored_as_if_it_were_gone(tmp_path: Path) -> None:
    model, stated = seeded(Chain), Shown()
    before = copy.deepcopy(model.state_dict())
    found = measure(model, tmp_path / "kept.json", energy, stated=stated)
    assert found.shares == SHARES == (0.25, 0.5, 0.75)
    assert found.score == energy(model)
    stream, inner = sorted(found.groups, key=lambda g: g.channels)
    # 16 channels in units of 8 are half or nothing; 32 take every share
    assert [c and c.removed for c in stream.cuts] == [None, 8, None]
    assert [c and c.removed for c in inner.cuts] == [8, 16, 24]
    graph = trace(copy.deepcopy(model), SIZE)
    scores = make_scorer(Importance.MAGNITUDE, model)(graph)
    for row in found.groups:
        group = next(g for g in graph.groups if g.name == row.name)
        for cut in filter(None, row.cuts):
            gone = least_important(group, scores, cut.removed)
            smaller = without(graph.model, graph.groups, {group.name: gone})
            assert cut.score == pytest.approx(energy(smaller), rel=1e-4)
            macs = cost_of(trace(smaller, SIZE)).macs
            assert cut.saved == pytest.approx(1 - macs / cost_of(graph).macs)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert len(stated.messages) == 1
    assert stated.messages[0].startswith(
        "prune sensitivity: 2 groups of channels, 4 cuts of a single group; about"
    )


def test_groups_too_small_to_cut_are_told_as_such(tmp_path: Path) -> None:
    found = measure(seeded(Chain), tmp_path / "kept.json", energy, how=limits(round_to=16))
    assert [[c and c.removed for c in g.cuts] for g in sorted(found.groups, key=lambda g: g.channels)] == [
        [None, None, None],
        [None, 16, None],
    ]


def test_a_stopped_measurement_goes_on_after_the_last_group(tmp_path: Path) -> None:
    model, calls = seeded(Chain), 0

    def stops(network: nn.Module) -> float:
        nonlocal calls
        calls += 1
        # the uncut network, then the first group's cuts, then one of the second's
        if calls == (3 if first_is_stream else 5):
            raise KeyboardInterrupt
        return energy(network)

    first_is_stream = trace(copy.deepcopy(model), SIZE).groups[0].channels == 16
    kept = tmp_path / "kept.json"
    with pytest.raises(KeyboardInterrupt):
        measure(model, kept, stops)
    done, stated = calls - 1, Shown()
    resumed = measure(model, kept, stops, stated=stated)
    assert stated.messages == []
    assert calls - 1 - done == 5 - done
    assert resumed == measure(model, tmp_path / "fresh.json", energy)
    calls = 10
    measure(model, kept, stops, key="b")
    assert calls == 15


class Spanned(nn.Module):
    """A layer norm spans the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 32, 4, 4)
        self.norm = nn.LayerNorm(32)
        self.classifier = nn.Linear(32, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.norm(self.first(images).flatten(2).transpose(1, 2)).mean(1))  # type: ignore[no-any-return]


def test_channels_that_a_layer_norm_spans_are_really_cut(tmp_path: Path) -> None:
    model = seeded(Spanned)
    widths: list[int] = []

    def score(network: nn.Module) -> float:
        widths.append(network.first.out_channels)  # type: ignore[union-attr, arg-type]
        return energy(network)

    measure(model, tmp_path / "kept.json", score)
    assert widths == [32, 24, 16, 8]
