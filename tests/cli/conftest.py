from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

from edgetl.bench import memory


@pytest.fixture(autouse=True, scope="module")
def _one_fresh_process_for_each_bundle() -> Iterator[None]:
    """Load a bundle once in a process of its own; what repeating it shows is tested in `gate` and `bench_stage`."""
    once = functools.cache(memory.load_fresh)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgetl.bench.memory.load_fresh", once)
        patch.setattr("edgetl.gate.loads.load_fresh", once)
        yield
