from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch_pruning.dependency import graph as dependency_graph
from torch_pruning.dependency import index_mapping

from edgetl.errors import MissingDependencyError
from edgetl.prune import peer
from edgetl.prune.graph import trace
from tests.prune.nets import SIZE, Chain, seeded


def test_the_parts_are_replaced_within_and_put_back() -> None:
    def parts() -> tuple[Any, ...]:
        mapping = index_mapping
        return mapping.update_index_mapping, mapping._FlattenIndexMapping, dependency_graph.Group

    before = parts()
    with peer.replaced():
        assert not any(now is plain for now, plain in zip(parts(), before, strict=True))
    assert parts() == before


def test_indices_are_mapped_once_and_groups_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch_pruning as tp

    model, calls, plain = seeded(Chain), [], index_mapping.update_index_mapping

    def update_index_mapping(graph: Any) -> None:
        calls.append(graph)
        plain(graph)

    def counted(graph: Any) -> None:
        update_index_mapping(graph)

    monkeypatch.setattr(index_mapping, "update_index_mapping", counted)
    example = torch.zeros(1, 3, SIZE, SIZE)
    with peer.replaced():
        graph = tp.DependencyGraph().build_dependency(model, (example,), verbose=False)
        groups = list(graph.get_all_groups(ignored_layers=[]))
    assert len(groups) > 1
    assert len(calls) == 1
    monkeypatch.setattr(peer, "MOST_STEPS", 2)
    with peer.replaced(), pytest.raises(RuntimeError, match="more than 2 steps from one layer"):
        list(graph.get_all_groups(ignored_layers=[]))
    monkeypatch.setattr(peer, "MOST_STEPS", 2000)
    monkeypatch.setattr(peer, "MOST_INDICES", 2)
    with peer.replaced(), pytest.raises(RuntimeError, match="more than 2 indices from one layer"):
        list(graph.get_all_groups(ignored_layers=[]))


class Reshaping(nn.Module):
    """A layer of whose channels each meets 16 inputs of the next one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.last = nn.Linear(8 * 16, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last(nn.functional.adaptive_avg_pool2d(self.first(images), 4).flatten(1))  # type: ignore[no-any-return]


def test_indices_that_multiply_at_each_reshape_end_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model = seeded(Reshaping)
    assert [group.name for group in trace(model, SIZE).groups] == ["first"]
    monkeypatch.setattr(peer, "MOST_INDICES", 100)
    import torch_pruning as tp

    with peer.replaced():
        example = torch.zeros(1, 3, SIZE, SIZE)
        graph = tp.DependencyGraph().build_dependency(model, (example,), verbose=False)
        with pytest.raises(RuntimeError, match="more than 100 indices from one layer"):
            list(graph.get_all_groups(ignored_layers=[]))


def _renamed(_: Any, graph_of: Any) -> None:
    raise AssertionError


@pytest.mark.parametrize("moved", ["update_index_mapping", "_FlattenIndexMapping", "Group", "signature"])
def test_another_layout_is_named(monkeypatch: pytest.MonkeyPatch, moved: str) -> None:
    if moved == "Group":
        monkeypatch.delattr(dependency_graph, "Group")
    elif moved == "signature":
        monkeypatch.setattr(index_mapping, "update_index_mapping", _renamed)
    else:
        monkeypatch.delattr(index_mapping, moved)
    model: nn.Module = seeded(Chain)
    with pytest.raises(
        MissingDependencyError,
        match=r"parts are known \(tried: 1\.6\.1; installed: .*\) is not available\. Install it with: pip install",
    ):
        trace(model, SIZE)
