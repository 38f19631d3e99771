from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgetl.bench import tune as module
from tests.bench_stage.bundles import colour_png, write_variants
from tests.cli.typed import edgetl


@pytest.fixture(autouse=True)
def _own_cache_without_pauses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGETL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "PAUSE_S", 0.0)


def test_tune_finds_the_fastest_and_the_other_commands_run_it(tmp_path: Path) -> None:
    bundle = write_variants(tmp_path / "colours.edgetl")
    (tmp_path / "red.png").write_bytes(colour_png(0))
    done = edgetl("tune", bundle, "--threads", "1", "--seconds", "1", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert (record["variant"], record["threads"]) == ("quick", 1)
    stated = f"Runs quick on {record['target']}: {record['reason']}\n"
    for command in (("predict", bundle, tmp_path / "red.png"), ("verify", bundle)):
        assert stated in edgetl(*command, "--threads", "1").stderr
    assert "Runs fp32 on cpu: " in edgetl("predict", bundle, tmp_path / "red.png", "--target", "cpu").stderr
    shown = edgetl("tune", bundle, "--seconds", "1")
    assert shown.stdout.startswith("colours.edgetl, batch 1, ")
    assert "wrong" in shown.stdout
    assert "measured here on 20" in shown.stdout
    assert "Runs quick on " in edgetl("info", bundle).stderr


def test_tune_names_what_is_wrong(tmp_path: Path) -> None:
    done = edgetl("tune", tmp_path / "no.edgetl")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"Error: There is no bundle at {tmp_path}/no.edgetl.\n"
