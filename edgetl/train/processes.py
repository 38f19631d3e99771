"""The processes that `torchrun` or `accelerate launch` started, each with its share of every batch.

Only the first process (rank 0) writes and reports; the others follow it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor, nn

T = TypeVar("T")
_PATIENCE = timedelta(hours=24)
"""How long the others wait while the first process decodes images or computes features."""


@dataclass(frozen=True)
class Group:
    """This process among those that train together: `rank` of `count`."""

    rank: int = 0
    count: int = 1

    @property
    def main(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    def share(self, items: int) -> slice:
        """Which of `items` this process takes; the shares differ by one at most and cover all."""
        return slice(items * self.rank // self.count, items * (self.rank + 1) // self.count)

    def add(self, values: Tensor) -> Tensor:
        """The sum over the processes, in place."""
        if self.count > 1:
            import torch.distributed

            torch.distributed.all_reduce(values)
        return values

    def gather(self, value: T) -> list[T]:
        """Every process's value, by rank."""
        if self.count == 1:
            return [value]
        import torch.distributed

        found: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(found, value)
        return found

    def same_buffers(self, model: nn.Module) -> None:
        """Take the first process's statistics of batch norms, in place."""
        if self.count > 1:
            import torch.distributed

            for buffer in model.buffers():
                torch.distributed.broadcast(buffer, 0)


SINGLE = Group()


def launched() -> Group:
    """The group as the launcher set it in the environment; joins nothing."""
    return Group(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


def join() -> Group:
    """Meet the other processes, where there are any."""
    group = launched()
    if group.count > 1:
        import torch
        from accelerate.state import PartialState

        PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE)
    return group


@contextmanager
def main_first() -> Iterator[None]:
    """The first process goes through the block before the others do, e.g. to write a file that all read."""
    group = join()
    if not group.main:
        _barrier()
    yield
    if group.main and group.count > 1:
        _barrier()


def _barrier() -> None:
    import torch.distributed

    torch.distributed.barrier()


def from_main(value: T) -> T:
    """The first process's value, in every process; plain data."""
    if join().count == 1:
        return value
    import torch.distributed

    box = [value]
    torch.distributed.broadcast_object_list(box, 0)
    return box[0]


def leave() -> None:
    """Part from the other processes."""
    import torch.distributed

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
