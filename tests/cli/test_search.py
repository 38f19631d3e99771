"""`edgetl search` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgetl.search import stage
from tests.cli.typed import edgetl
from tests.search.records import final, searched


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text('name = "digits"\n')
    return path


@pytest.mark.parametrize(
    ("words", "stated"),
    [
        (("--latency-ms", "0"), "--latency-ms: got 0, expected a number above 0."),
        (("--latency-ms", "3", "--floor", "95"), "--floor: got 95, expected a score above 0 and at most 1"),
        (("--latency-ms", "3", "--sizes", "8"), "--sizes: got '8', expected whole numbers of pixels from 16"),
        (
            ("--latency-ms", "3", "--backbones", "a,"),
            "--backbones: got 'a,', expected names parted by commas.",
        ),
        (
            ("--latency-ms", "3", "--depths", "half"),
            "--depths: got 'half', expected numbers parted by commas",
        ),
        (
            ("--latency-ms", "3", "--filters", "cubic"),
            "--filters: got 'cubic', expected nearest, bilinear, bicubic or lanczos.",
        ),
        (("--latency-ms", "3", "--sampler", "grid"), "--sampler: got 'grid', expected tpe or random."),
        ((), "Missing option '--latency-ms'"),
    ],
)
def test_wrong_words_are_refused(words: tuple[str, ...], stated: str, recipe: Path) -> None:
    pytest.importorskip("optuna", reason="optuna is not installed: pip install optuna")
    done = edgetl("search", recipe, *words)
    assert done.returncode == 2
    assert stated in " ".join(done.stderr.split())


def test_it_prints_json_alone_and_writes_a_page(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(stage, "run", lambda *given, **_: (seen.append(given), searched())[1])
    out = tmp_path / "out"
    words = ("--latency-ms", "1", "--backbones", "teacher,resnet18", "--filters", "bilinear", "--trials", "4")
    words = (*words, "--depths", "0,0.25")
    done = edgetl("search", recipe, *words, "--out", out, "--set", "seed=3", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["holds"], len(found["trials"]), found["finals"][0]["trial"]) == (True, 6, 0)
    [(asked, loaded, folder)] = seen
    assert (asked.networks, asked.trials, asked.sizes) == (("teacher", "resnet18"), 4, None)
    assert asked.depths == (0.0, 0.25)
    assert (loaded.seed, folder) == (3, out)
    assert "<svg" in (out / "search.html").read_text()
    assert f"Wrote {out / 'search.html'}." in done.stderr


def test_nothing_found_is_exit_code_1(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = searched(holds=False, reason="none", finals=(final(0, 1.4, problems=("1.4 ms, over 1 ms",)),))
    monkeypatch.setattr(stage, "run", lambda *_, **__: lost)
    done = edgetl("search", recipe, "--latency-ms", "1", "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "Not found: none." in done.stdout
