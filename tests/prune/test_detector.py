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
from edgetl.prune.importance import ImportanceScores, taylor
from edgetl.prune.plan import Cost, CutLimits
from edgetl.tasks.base import Detection
from edgetl.train.tasks.detection import DetectionTraining

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


def test_what_places_boxes_counts_as_well_as_what_names_them() -> None:
    """By Taylor importance channels of both kinds of heads are worth something, and the maps' readers hear of both."""
    model = create_detector("test_efficientnet", 2, seed=0).eval()
    teacher = create_detector("test_efficientnet", 2, seed=1).eval()
    with torch.no_grad():
        for out in teacher.class_out:
            out.bias.fill_(0.0)  # type: ignore[operator, union-attr]
    task = DetectionTraining(spec=Detection(labels=("a", "b")))
    images = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    graph = trace(model, SIZE)
    scores = taylor(graph, [images], teacher, task, temperature=2.0, seed=0).channels
    worth = {
        kind: [s.mean() for name, s in scores.items() if name.startswith(kind)] for kind in ("box", "class")
    }
    assert min(worth["box"]) > 0.0
    assert min(worth["class"]) > 0.0
