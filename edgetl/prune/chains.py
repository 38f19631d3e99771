"""Channel groups that no dependency graph is needed for: attention heads, and layers that follow one another.

They serve the networks that torch-pruning's graph cannot follow, and the layers that it misses. What is found here is a
guess until a trial cut has proved it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def heads(model: nn.Module) -> Iterator[tuple[Any, int]]:
    """The heads of attention modules with one layer for queries, keys and values: groups, and channels per head."""
    for module in model.modules():
        qkv, projection = getattr(module, "qkv", None), getattr(module, "proj", None)
        count = getattr(module, "num_heads", None)
        if not isinstance(qkv, nn.Linear) or not isinstance(projection, nn.Linear) or type(count) is not int:
            continue
        width = projection.in_features
        if count > 1 and width % count == 0 and qkv.out_features == 3 * width:
            yield _heads(module, qkv, projection, width), width // count


def chains(run: Callable[[], object], model: nn.Module) -> Iterator[Any]:
    """Groups of a layer's outputs that one other layer reads, through norms, activations and depthwise convolutions.

    Args:
        run: a forward pass of `model`.
        model: whose layers are watched in it.
    """
    readers: dict[nn.Module, list[nn.Module]] = {}
    calls: dict[nn.Module, int] = {}
    # tensors are kept so that no two of them have the same identity
    written: dict[int, tuple[nn.Module, Tensor]] = {}

    def watch(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        calls[module] = calls.get(module, 0) + 1
        for value in inputs:
            if id(value) in written:
                readers.setdefault(written[id(value)][0], []).append(module)
        if isinstance(output, Tensor):
            written[id(output)] = (module, output)

    leaves = [m for m in model.modules() if not list(m.children())]
    hooks = [leaf.register_forward_hook(watch) for leaf in leaves]
    try:
        with torch.no_grad():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    for leaf in leaves:
        if _is_dense(leaf) and (path := _path(leaf, readers, calls)):
            yield _chain(path)


def _path(
    start: nn.Module, readers: dict[nn.Module, list[nn.Module]], calls: dict[nn.Module, int]
) -> list[nn.Module]:
    """From a layer to the one that reads it; empty where it is read in several places, or by none that is known."""
    path = [start]
    while True:
        following = readers.get(path[-1], [])
        if len(following) != 1 or calls.get(path[-1]) != 1:
            return []
        path.append(following[0])
        if _is_dense(path[-1]):
            return path if calls[path[-1]] == 1 and _width(path[-1]) == _width(start, outputs=True) else []
        if not _carries(path[-1]):
            return []


def _is_dense(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def _carries(module: nn.Module) -> bool:
    """Whether each channel of the module's result comes only from that channel of its input."""
    if isinstance(module, nn.Conv2d):
        return module.groups == module.in_channels == module.out_channels
    return isinstance(module, nn.BatchNorm2d) or not any(True for _ in module.parameters())


def _width(module: nn.Module, *, outputs: bool = False) -> int:
    if isinstance(module, nn.Conv2d):
        return module.out_channels if outputs else module.in_channels
    assert isinstance(module, nn.Linear)
    return module.out_features if outputs else module.in_features


def _chain(path: Sequence[nn.Module]) -> Any:
    import torch_pruning as tp

    first, last = path[0], path[-1]
    channels = range(_width(first, outputs=True))
    members: list[tuple[nn.Module, Any, Sequence[int]]] = []
    for module in path:
        match module:
            case nn.Linear():
                handler = tp.prune_linear_out_channels if module is first else tp.prune_linear_in_channels
            case nn.BatchNorm2d():
                handler = tp.prune_batchnorm_out_channels
            case nn.Conv2d() if module is last:
                handler = tp.prune_conv_in_channels
            case nn.Conv2d():
                depthwise = module.groups > 1
                handler = tp.prune_depthwise_conv_out_channels if depthwise else tp.prune_conv_out_channels
            case _:
                continue
        members.append((module, handler, channels))
    return _members(members, len(channels))


def _heads(attention: nn.Module, qkv: nn.Linear, projection: nn.Linear, width: int) -> Any:
    import torch_pruning as tp

    class Heads(tp.BasePruningFunc):  # type: ignore[misc]
        """Lowers an attention's own counts, and cuts its table of relative positions."""

        def prune_out_channels(self, layer: Any, idxs: Sequence[int]) -> nn.Module:
            each = width // attention.num_heads  # type: ignore[operator]
            gone = {index // each for index in idxs}
            table = getattr(layer, "relative_position_bias_table", None)
            if table is not None:
                left = [head for head in range(layer.num_heads) if head not in gone]
                layer.relative_position_bias_table = self._prune_parameter_and_grad(table, left, 1)
            layer.num_heads -= len(gone)
            if hasattr(layer, "attn_dim"):
                layer.attn_dim -= len(idxs)
            return layer  # type: ignore[no-any-return]

        prune_in_channels = prune_out_channels

        def get_out_channels(self, layer: Any) -> int:
            return width

        get_in_channels = get_out_channels

    rows = tp.prune_linear_out_channels
    members: list[tuple[nn.Module, Any, Sequence[int]]] = [
        (qkv, rows, range(part * width, (part + 1) * width)) for part in range(3)
    ]
    members += [
        (projection, tp.prune_linear_in_channels, range(width)),
        (attention, Heads().prune_out_channels, range(width)),
    ]
    return _members(members, width)


def _members(members: Sequence[tuple[nn.Module, Any, Sequence[int]]], channels: int) -> Any:
    """As torch-pruning's graph gives them."""
    from torch_pruning._helpers import GroupItem
    from torch_pruning.dependency import Dependency, Group, Node

    group, root = Group(), Node(members[0][0], None)
    for module, handler, idxs in members:
        item = GroupItem(Dependency(handler, handler, root, Node(module, None)), list(idxs))
        item.root_idxs = list(range(channels))
        group.items.append(item)
    return group
