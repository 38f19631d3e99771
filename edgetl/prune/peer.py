"""torch-pruning's inner parts that tracing replaces while it runs: the one place that reaches into another package.

Its graph of dependencies is followed through public names elsewhere. Here three of its private ones are swapped, which
a new version may have moved; `replaced` says so instead of tracing with other results.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from types import ModuleType
from typing import Any

from edgetl.errors import MissingDependencyError
from edgetl.packages import pip_install

TRIED = ("1.6.1",)
"""Versions of torch-pruning that have this layout."""
MOST_STEPS = 2000
"""So many entries a group may have before it is put together; the time to find one grows with their square."""
MOST_INDICES = 1_000_000
"""So many indices its entries may have together; 232,000 are VGG's, whose channels meet 49 inputs of a layer each."""

_MAPPING, _UPDATE, _FLATTEN = (
    "torch_pruning.dependency.index_mapping",
    "update_index_mapping",
    "_FlattenIndexMapping",
)
_GRAPH, _GROUP, _ADD = "torch_pruning.dependency.graph", "Group", "add_dep"


@contextmanager
def replaced() -> Iterator[None]:
    """Within, indices are mapped once and groups are bounded. Not for two threads at a time.

    torch-pruning works out all mappings of indices anew for each group, minutes in all, though none changes while a
    network is traced. And it follows each way through slices and concatenations on its own: in some networks without
    an end, and in some (EfficientFormerV2) each step over a reshape gives 128 indices for one; within, a group of more
    than `MOST_STEPS` entries or `MOST_INDICES` indices raises RuntimeError.

    Raises:
        MissingDependencyError: torch-pruning has another layout than in the versions that this was tried on.
    """
    mapping, graph = _layout()
    update, flatten, whole = getattr(mapping, _UPDATE), getattr(mapping, _FLATTEN), getattr(graph, _GROUP)
    done: list[Any] = []

    def once(of: Any) -> None:
        if of not in done:
            done.append(of)
            update(of)

    def hold(indices: int) -> None:
        if indices > MOST_INDICES:
            raise RuntimeError(f"more than {MOST_INDICES} indices from one layer")

    class Bounded(whole):  # type: ignore[misc, valid-type]
        indices = 0

        def add_dep(self, dep: Any, idxs: Any) -> None:
            if len(self) >= MOST_STEPS:
                raise RuntimeError(f"more than {MOST_STEPS} steps from one layer")
            self.indices += len(idxs)
            hold(self.indices)
            super().add_dep(dep, idxs)

    class BoundedFlatten(flatten):  # type: ignore[misc, valid-type]
        def __call__(self, idxs: Any) -> Any:
            hold(len(idxs) * (1 if self.reverse else self._stride))
            return super().__call__(idxs)

    setattr(mapping, _UPDATE, once)
    setattr(mapping, _FLATTEN, BoundedFlatten)
    setattr(graph, _GROUP, Bounded)
    try:
        yield
    finally:
        setattr(mapping, _UPDATE, update)
        setattr(mapping, _FLATTEN, flatten)
        setattr(graph, _GROUP, whole)


def _layout() -> tuple[ModuleType, ModuleType]:
    """The modules whose names are replaced, after a look at what stands there."""
    try:
        mapping, graph = import_module(_MAPPING), import_module(_GRAPH)
        update, add = getattr(mapping, _UPDATE), getattr(getattr(graph, _GROUP), _ADD)
        flatten = getattr(mapping, _FLATTEN)
        # it is the module's attribute that the graph calls, so that a replaced one counts
        fits = f"index_mapping.{_UPDATE}(self)" in inspect.getsource(graph)
        fits = fits and list(inspect.signature(update).parameters) == ["graph"]
        fits = fits and list(inspect.signature(add).parameters) == ["self", "dep", "idxs"]
        fits = fits and vars(flatten(stride=2)) == {"_stride": 2, "reverse": False}
    except (ImportError, AttributeError, OSError, TypeError) as error:
        raise _other_layout() from error
    if not fits:
        raise _other_layout()
    return mapping, graph


def _other_layout() -> MissingDependencyError:
    tried, installed = ", ".join(TRIED), version("torch-pruning")
    return MissingDependencyError(
        f"A torch-pruning whose inner parts are known (tried: {tried}; installed: {installed})",
        f"Install it with: {pip_install('torch_pruning')}=={TRIED[-1]}",
    )
