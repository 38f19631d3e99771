from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from edgetl.gate.loads import measure_loads, rank_tail
from edgetl.records.bench import Footprint
from tests.bench_stage.bundles import write_bundle


def test_a_bundle_is_loaded_in_fresh_processes(tmp_path: Path) -> None:
    [loads] = measure_loads([write_bundle(tmp_path / "model.edgetl")], threads=1, repeats=2)
    assert len(loads.load_ms) == len(loads.peak_memory_bytes) == 2
    assert min(loads.load_ms) > 1
    assert min(loads.peak_memory_bytes) > 10_000_000


def test_bundles_are_loaded_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    order = []

    def load(bundle: Path, **_: object) -> Footprint:
        order.append(bundle.name)
        return Footprint(load_ms=len(order), first_ms=1, peak_memory_bytes=len(order), base_memory_bytes=1)

    monkeypatch.setattr("edgetl.gate.loads.load_fresh", load)
    first, second = measure_loads([Path("a"), Path("b")], repeats=3)
    assert "".join(order) == "abbaab"
    assert (first.load_ms, second.load_ms) == ((1, 4, 5), (2, 3, 6))


@pytest.mark.parametrize(("first", "second"), [(5, 5), (3, 4), (7, 2)])
def test_rank_tail_is_the_exact_distribution(first: int, second: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    for below in itertools.islice(itertools.combinations(range(first + second), first), 0, None, 17):
        above = sorted(set(range(first + second)) - set(below))
        u = sum(b > a for b in below for a in above)
        exact = stats.mannwhitneyu(np.array(below), above, alternative="less", method="exact")
        assert exact.statistic == u
        assert rank_tail(u, first, second) == pytest.approx(exact.pvalue)
    assert rank_tail(0, 5, 5) == pytest.approx(1 / 252)
