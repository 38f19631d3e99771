"""Which channels hang together: a network's channel groups and their cost, from torch-pruning's dependency graph.

Fang et al., "DepGraph: Towards Any Structural Pruning" (CVPR 2023). A group is a set of channels that can only
be removed together with others of the same index: a residual stream, an expansion with its depthwise convolution.
"""

from __future__ import annotations

import difflib
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from edgetl.errors import ModelError, UncuttableError
from edgetl.models.adapters import uncut_layers
from edgetl.prune.chains import chains, heads
from edgetl.prune.depth import Block, removable
from edgetl.prune.groups import ChannelGroup, Layer
from edgetl.prune.peer import replaced
from edgetl.prune.surgery import is_consumer, masked, mismatch, without


@dataclass(frozen=True, kw_only=True)
class ChannelGraph:
    """A traced network.

    Attributes:
        model: the network.
        input_size: side of its square input in pixels.
        groups: the channel groups that may be cut.
        layers: what its layers cost.
        refused: name of a group that may not be cut -> why; the network is pruned around it.
        blocks: residual blocks that may be taken out whole; none where they were not asked for.
    """

    model: nn.Module
    input_size: int
    groups: tuple[ChannelGroup, ...]
    layers: dict[str, Layer]
    refused: dict[str, str]
    blocks: tuple[Block, ...] = ()


def trace(
    model: nn.Module, input_size: int, *, keep: Sequence[str] = (), depth: bool = False
) -> ChannelGraph:
    """Trace `model` and find its channel groups.

    The classifier's outputs are in no group, and no group alters a layer under `keep`. Every group is proved by a
    trial cut, whose logits must be those of the network with the same channels masked: code that a graph does not
    show (a channel count in a reshape, a mean over channels) would make the cut fail, or silently wrong.

    Args:
        model: (N, 3, H, W) float32 images to (N, C) logits; set to evaluation mode, parameters set to need gradients.
        input_size: side of its square input in pixels.
        keep: names of layers or blocks whose shapes stay as they are.
        depth: whether blocks that may be taken out whole are looked for.

    Raises:
        ModelError: the network cannot be traced or has no group that can be cut (names it and the module), or a
            name in `keep` is not in it.
    """
    model.eval().requires_grad_(True)
    kept = _kept_modules(model, keep)
    example = torch.zeros(1, 3, input_size, input_size, device=next(model.parameters()).device)
    with running_module(model) as where:
        try:
            layers = layer_costs(model, input_size)
        except Exception as error:
            raise UncuttableError(
                f"{type(model).__name__} cannot be traced for pruning{where()}: {error}. "
                "Take another backbone, or set prune.enabled = false."
            ) from error
    names = {module: name for name, module in model.named_modules()}
    probe = torch.randn(2, *example.shape[1:], generator=torch.Generator().manual_seed(0)).to(example.device)
    groups, refused, outputs = (
        [],
        dict[str, str](),
        [*(n for n in layers if model.get_submodule(n) in kept), *uncut_layers(model)],
    )
    for candidates in (
        _heads(model, names),
        _coupled(model, example, names, kept),
        _chained(model, example, names),
    ):
        new = [
            g
            for g in candidates
            if g.inputs and not _conflicts(g, kept, outputs) and g.channels % g.cell == 0
        ]
        sound, failed = _proved(model, new, probe)
        groups += sound
        refused |= failed
        outputs += [layer for group in sound for layer in group.outputs]
    if not groups and not keep:
        name, why = next(iter(refused.items()), ("every layer", "no channels belong together by themselves"))
        raise UncuttableError(
            f"{type(model).__name__} cannot be traced for pruning at {name}: {why}. Take another backbone, or set"
            " prune.enabled = false."
        )
    order = {name: number for number, name in enumerate(layers)}
    return ChannelGraph(
        model=model,
        input_size=input_size,
        groups=tuple(sorted(groups, key=lambda group: order[group.name])),
        layers=layers,
        refused={name: why for name, why in refused.items() if name not in outputs},
        blocks=removable(model, input_size, keep) if depth else (),
    )


def _heads(model: nn.Module, names: dict[nn.Module, str]) -> list[ChannelGroup]:
    return [_group(group, names, cell=width) for group, width in heads(model)]


def _chained(model: nn.Module, example: torch.Tensor, names: dict[nn.Module, str]) -> list[ChannelGroup]:
    return [_group(group, names) for group in chains(lambda: model(example), model)]


def _coupled(
    model: nn.Module, example: torch.Tensor, names: dict[nn.Module, str], kept: set[nn.Module]
) -> list[ChannelGroup]:
    """What torch-pruning finds; nothing where it cannot follow the network, which then has only its chains."""
    with warnings.catch_warnings(), replaced():
        warnings.simplefilter("ignore")
        try:
            # a tuple, so that torch-pruning runs one forward pass: after two every layer would look reused
            dependencies = _dependency_graph().build_dependency(model, (example,), verbose=False)
            groups = [
                even
                for group in dependencies.get_all_groups(ignored_layers=[])
                if (even := _even(group, dependencies)) is not None
            ]
        except Exception:
            return []
        finally:
            # some networks cache what they computed from their weights, here with gradients: nothing to copy
            model.train().eval()
    sinks = {node.module for node in dependencies.module2node.values() if not node.outputs}
    return [_group(group, names) for group in groups if not _is_fixed(group, sinks, kept)]


def _conflicts(group: ChannelGroup, kept: set[nn.Module], outputs: Iterable[str]) -> bool:
    """Whether a group alters a layer that is kept, or takes outputs that another group has."""
    return any(
        item.dep.target.module in kept for item in group.members
    ) or not group.outputs.keys().isdisjoint(outputs)


def _proved(
    model: nn.Module, groups: Sequence[ChannelGroup], probe: torch.Tensor
) -> tuple[list[ChannelGroup], dict[str, str]]:
    """The groups whose trial cut is right, and why the others' is not."""
    if not groups or not _fault(model, groups, probe):
        return list(groups), {}
    faults = {group.name: _fault(model, [group], probe) for group in groups}
    return [g for g in groups if not faults[g.name]], {name: why for name, why in faults.items() if why}


def _fault(model: nn.Module, groups: Sequence[ChannelGroup], probe: torch.Tensor) -> str:
    """What is wrong where a few channels of each group are cut; nothing where all is well."""
    trial = {}
    for group in groups:
        # not the first: a wrong mapping of indices often gets 0 right
        first = group.channels // 3 // group.cell * group.cell
        trial[group.name] = range(first, first + min(group.cell, group.channels - group.cell))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return mismatch(masked(model, groups, trial)(probe), without(model, groups, trial)(probe))
        except Exception as error:
            return f"with fewer channels it fails: {str(error).partition(chr(10))[0].rstrip('.')}"


@contextmanager
def running_module(model: nn.Module) -> Iterator[Callable[[], str]]:
    """Yield a function that says, after an error, which submodule's forward was running: ` at NAME`, or nothing."""
    running: list[str] = []
    hooks: list[Any] = []
    for name, module in model.named_modules():
        # a hook that returned anything but None would replace the module's input or output
        hooks.append(module.register_forward_pre_hook(lambda *_, name=name: running.append(name)))
        hooks.append(module.register_forward_hook(lambda *_: running.__delitem__(-1)))
    try:
        yield lambda: f" at {running[-1]}" if running and running[-1] else ""
    finally:
        for hook in hooks:
            hook.remove()


def whole_groups(module: object) -> bool:
    """Whether a layer's channels are removed in whole groups: grouped (not depthwise) convolution, group norm."""
    if isinstance(module, nn.Conv2d):
        return 1 < module.groups < module.out_channels == module.in_channels
    return isinstance(module, nn.GroupNorm) and module.num_groups > 1


def _dependency_graph() -> Any:
    """torch-pruning's graph, which also removes whole groups of grouped convolutions and of group norms.

    Its own way takes as many channels out of every group, which leaves groups of odd width.
    """
    import torch_pruning as tp

    class WholeGroups(tp.BasePruningFunc):  # type: ignore[misc]
        def prune_out_channels(self, layer: Any, idxs: Sequence[int]) -> nn.Module:
            convolution = isinstance(layer, nn.Conv2d)
            channels = layer.out_channels if convolution else layer.num_channels
            groups = layer.groups if convolution else layer.num_groups
            left = sorted(set(range(channels)) - set(idxs))
            groups_left = len(left) * groups // channels
            if convolution:
                layer.in_channels = layer.out_channels = len(left)
                layer.groups = groups_left
            else:
                layer.num_channels, layer.num_groups = len(left), groups_left
            for key in ("weight", "bias"):
                if getattr(layer, key) is not None:
                    setattr(layer, key, self._prune_parameter_and_grad(getattr(layer, key), left, 0))
            return layer  # type: ignore[no-any-return]

        prune_in_channels = prune_out_channels

        def get_out_channels(self, layer: Any) -> int:
            return layer.out_channels if isinstance(layer, nn.Conv2d) else layer.num_channels

        get_in_channels = get_out_channels

    class Dependencies(tp.DependencyGraph):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._whole = WholeGroups()
            self._in_channel_pruning_fn.add(self._whole.prune_in_channels)
            self._out_channel_pruning_fn.add(self._whole.prune_out_channels)

        def get_pruner_of_module(self, module: Any) -> Any:
            return self._whole if whole_groups(module) else super().get_pruner_of_module(module)

    return Dependencies()


def _kept_modules(model: nn.Module, keep: Iterable[str]) -> set[nn.Module]:
    modules = dict(model.named_modules())
    kept: set[nn.Module] = set()
    for name in keep:
        if name not in modules:
            close = difflib.get_close_matches(name, modules, n=1, cutoff=0.0)
            raise ModelError(
                f"prune.keep: {type(model).__name__} has no layer {name!r}. The nearest is {close[0]!r}."
            )
        kept.update(modules[name].modules())
    return kept


def layer_costs(model: nn.Module, input_size: int) -> dict[str, Layer]:
    """Cost of every convolution and linear layer that an image of `input_size` pixels per side passes, by name."""
    layers: dict[str, Layer] = {}

    def measure(name: str, module: nn.Module, output: torch.Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            area = math.prod(module.kernel_size)
            inputs, outputs = module.in_channels, module.out_channels
            width = inputs // module.groups if module.groups > 1 else 0
        elif isinstance(module, nn.Linear):
            area, inputs, outputs, width = 1, module.in_features, module.out_features, 0
        else:
            return
        earlier = layers[name].unit_macs if name in layers else 0
        layers[name] = Layer(
            inputs=inputs,
            outputs=outputs,
            unit_macs=area * (output.numel() // outputs) + earlier,
            unit_weights=area,
            width=width,
            bias=module.bias is not None,
        )

    hooks = [
        module.register_forward_hook(lambda module, _, output, name=name: measure(name, module, output))
        for name, module in model.named_modules()
    ]
    device = next(model.parameters()).device
    try:
        with torch.no_grad():
            model(torch.zeros(1, 3, input_size, input_size, device=device))
    finally:
        for hook in hooks:
            hook.remove()
    return layers


def _is_fixed(group: Any, sinks: set[Any], kept: set[nn.Module]) -> bool:
    """Whether a group reaches the network's output, alters a kept layer, or cannot be cut cleanly."""
    for item in group:
        module = item.dep.target.module
        if isinstance(module, nn.Module) and module in kept:
            return True
        if module in sinks and not is_consumer(item.dep):
            return True
        if isinstance(module, nn.Conv2d) and module.groups > 1 and module.in_channels != module.out_channels:
            return True
    return False


def _even(group: Any, dependencies: Any) -> Any:
    """The group, from a root of which each channel takes as many channels of each layer as any other; else None.

    GhostNet puts a layer's channels and their copies side by side: two channels of the stream go with one of the layer.
    """
    wide = len(group[0].idxs)
    roots = {
        item.dep.target.module: item.dep.handler
        for item in group
        if isinstance(item.dep.target.module, nn.Conv2d | nn.Linear) and not is_consumer(item.dep)
    }
    pruner = dependencies.get_pruner_of_module
    narrow = [m for m in roots if pruner(m).get_out_channels(m) < wide]
    for module in [group[0].dep.target.module, *sorted(narrow, key=lambda m: pruner(m).get_out_channels(m))]:
        cut = pruner(module).prune_out_channels
        channels = pruner(module).get_out_channels(module)
        whole = dependencies.get_pruning_group(module, cut, list(range(channels)))
        alone = dependencies.get_pruning_group(module, cut, [0])
        if [len(item.idxs) * channels for item in alone] == [len(item.idxs) for item in whole]:
            return whole
    return None


def _group(group: Any, names: dict[nn.Module, str], *, cell: int = 1) -> ChannelGroup:
    channels = len(group[0].idxs)
    norms = 0.0
    inputs: dict[str, float] = {}
    outputs: dict[str, float] = {}
    for item in group:
        module, share = item.dep.target.module, len(item.idxs) / channels
        if isinstance(module, nn.Conv2d | nn.Linear):
            side = inputs if is_consumer(item.dep) else outputs
            side[names[module]] = side.get(names[module], 0.0) + share
        elif isinstance(module, nn.Parameter):
            norms += share
        elif isinstance(module, nn.Module):
            norms += share * sum(1 for _ in module.parameters(recurse=False))
        if whole_groups(module):
            width = channels // (module.groups if isinstance(module, nn.Conv2d) else module.num_groups)
            cell = math.lcm(cell, width)
    return ChannelGroup(
        name=names[group[0].dep.target.module],
        channels=channels,
        cell=cell,
        inputs=inputs,
        outputs=outputs,
        norms=norms,
        members=group,
    )
