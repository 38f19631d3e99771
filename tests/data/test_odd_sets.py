"""A few sets as people have them, through `init`, `data check`, the data stage and the device: see the slow test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.odd_sets import try_sets


def test_odd_sets_give_an_answer_or_an_error_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcomes, faults = try_sets(tmp_path, range(5000, 5012))
    assert faults == []
    for name in ("init", "data check", "data stage", "unlabelled", "device images", "device labels"):
        assert outcomes[f"{name}: answer"] > 0
        assert outcomes[f"{name}: error of ours"] > 0
