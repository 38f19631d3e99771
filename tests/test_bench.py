"""The benchmarks' runner: every family is found, and a claim says whether it holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import claims
from tests.bench.__main__ import families, main
from tests.bench.claims import Claim, at_least, at_most


def test_a_claim_s_line() -> None:
    assert at_most("start", 1.5, 2, "x").line() == "start | 1.5x | <= 2x | holds"
    assert at_least("ratio", 9.96, 10, "x").line() == "ratio | 9.96x | >= 10x | falls short"
    assert Claim(name="note", measured="3 ms").line() == "note | 3 ms | - | -"


def test_every_family_is_found_and_can_run() -> None:
    from importlib import import_module

    assert {"start-up", "main-job", "predict-overhead"} <= set(families())
    for name in families():
        assert callable(import_module(f"tests.bench.{name.replace('-', '_')}").run)


def test_an_unknown_family_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main("speed") == 2
    told = capsys.readouterr().err
    assert told.startswith("no benchmark named speed; there are: ")
    assert "main-job" in told


def test_figures_are_kept_with_machine_and_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    monkeypatch.setattr(claims, "HISTORY", tmp_path / "bench.json")
    claims.keep("start-up", [at_most("start", 1.5, 2, "x")])
    claims.keep("start-up", [at_most("start", 2.5, 2, "x")])
    kept = json.loads((tmp_path / "bench.json").read_text())
    assert [entry["claims"][0]["holds"] for entry in kept] == [True, False]
    assert kept[0]["machine"]["cores"] >= 1
    assert "commit" in kept[0]
