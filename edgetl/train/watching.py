"""What a network's inner modules give while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def watching(network: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Gather the outputs of the named modules, in the order in which they run; of `>NAME` its input."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str, value: object) -> None:
        if isinstance(value, Tensor):
            outputs.pop(name, None)
            outputs[name] = value

    hooks = []
    for name in names:
        module = network.get_submodule(name.removeprefix(">"))
        if name.startswith(">"):
            hooks.append(module.register_forward_pre_hook(lambda _, args, name=name: keep(name, args[0])))
        else:
            hooks.append(module.register_forward_hook(lambda _, __, value, name=name: keep(name, value)))
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()
