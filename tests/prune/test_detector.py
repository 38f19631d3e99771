"""Detectors are cut on their raw maps: what makes the maps keeps its outputs, what it reads is free."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from edgetl.models.detector import create_detector
from edgetl.models.size import network_size
from edgetl.prune.apply import cut
from edgetl.prune.graph import ChannelGraph, trace
from edgetl.prune.importance import ImportanceScores
from edgetl.prune.plan import Cost, CutLimits

SIZE = 64


def test_all_but_the_maps_may_be_cut() -> None:
    model = create_detector("test_efficientnet", 3, seed=0).eval()
    graph = trace(copy.deepcopy(model), SIZE)
    assert graph.refused == {}
    made = {layer for group in graph.groups for layer in group.outputs}
    read = {layer for group in graph.groups for layer in group.inputs}
    convolutions = {name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    assert convolutions - made == set(model.output_layers())
    assert set(model.output_layers()) <= read


def test_a_cut_detector_has_its_maps_and_the_wanted_cost() -> None:
    model = create_detector("test_efficientnet", 3, seed=0).eval()
    before = network_size(model, SIZE).macs
    groups = trace(copy.deepcopy(model), SIZE).groups
    limits = CutLimits(round_to=8, max_cut=0.9, widths={group.name: group.channels for group in groups})

    def sizes(graph: ChannelGraph) -> ImportanceScores:
        ranks = {group.name: torch.arange(group.channels) / group.channels for group in graph.groups}
        return ImportanceScores(
            channels={name: rank.double() for name, rank in ranks.items()}, additive=False
        )

    budget = Cost(macs=0.4 * before, parameters=math.inf, milliseconds=math.inf)
    smaller = cut(model, SIZE, sizes, budget, limits).model
    assert network_size(smaller, SIZE).macs <= 0.4 * before
    assert smaller(torch.zeros(2, 3, SIZE, SIZE)).shape == (2, 84, 7)
    assert [out.out_channels for out in (*smaller.box_out, *smaller.class_out)] == [4] * 3 + [3] * 3  # type: ignore[union-attr]
