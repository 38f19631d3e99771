"""Two thousand image sets as people have them: each gives an answer or an error of ours, never anything else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.data.odd_sets import try_sets

pytestmark = pytest.mark.slow


def test_two_thousand_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    start = int(os.environ.get("EDGETL_SEED", "0"))
    outcomes, faults = try_sets(tmp_path, range(start, start + 2000))
    print("\n".join(f"{name}: {count}" for name, count in sorted(outcomes.items())))
    assert faults == []
    assert all(outcomes[f"{name}: answer"] > 200 for name in ("init", "data check", "data stage"))
