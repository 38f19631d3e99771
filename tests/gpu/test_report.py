"""The report's script, where there is no GPU: one sentence, and the Markdown that it would print."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.bench.claims import Claim, at_most
from tests.gpu import suite
from tests.gpu.__main__ import main, render
from tests.gpu.parts import PARTS, Place, environment, heard, told
from tests.test_setup import ROOT, script


def test_without_a_gpu_it_says_so_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("There is no NVIDIA GPU that torch ")
    assert said.err.endswith("is for a machine with one, its driver, and torch built for CUDA.\n")


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("own", [True, False])
def test_make_takes_the_environment_that_is_there_and_fetches_nothing(tmp_path: Path, own: bool) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path / "Makefile")
    python = script(tmp_path / "python", 'echo "the machine\'s own: $*"')
    if own:
        script(tmp_path / ".venv" / "bin" / "python", 'echo "of .venv: $*"; exit 2')
    clean = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "PYTHON")}
    done = subprocess.run(
        ["make", "-C", str(tmp_path), "-s", "test-gpu", f"PYTHON={python}"],
        capture_output=True,
        text=True,
        env=clean,
        check=False,
    )
    asked = "of .venv: -m tests.gpu" if own else "the machine's own: -m tests.gpu"
    assert (done.returncode, done.stdout.splitlines()[-1]) == (2 if own else 0, asked)


def test_a_claim_comes_from_a_part_as_it_was_made() -> None:
    claim = at_most("logits", 0.5, 1.0, " ms")
    assert heard(told(claim)) == claim
    assert heard("Epoch 1") is None


def test_the_report_is_a_table_for_each_part() -> None:
    claims = [
        at_most("logits", 0.5, 0.1, ""),
        Claim(name="a | b", measured="two\nlines"),
        at_most("weights", 0.05, 0.1, ""),
    ]
    assert render([(PARTS[0], claims)], [("GPU", "NVIDIA H200, driver 580")], 96.0) == (
        "## On an NVIDIA GPU\n\n- GPU: NVIDIA H200, driver 580\n- took 1.6 minutes: `make test-gpu`\n\n"
        "**CUDA against the CPU**\n\n| what | measured | aim | |\n|---|---|---|---|\n"
        "| logits | 0.5 | <= 0.1 | **falls short** |\n| a / b | two lines | - |  |\n"
        "| weights | 0.05 | <= 0.1 | holds |\n"
    )


def test_parts_fetch_nothing_and_fit_into_eight_minutes(tmp_path: Path) -> None:
    assert environment(Place(folder=tmp_path))["HF_HUB_OFFLINE"] == "1"
    assert environment(Place(folder=tmp_path, device="cpu"))["CUDA_VISIBLE_DEVICES"] == ""
    assert [part.module for part in PARTS] == ["parity", "training", "engines", "timing", "suite"]
    assert all((Path(suite.__file__).parent / f"{part.module}.py").exists() for part in PARTS)


def test_the_marked_tests_are_found() -> None:
    assert suite.marked() == [
        "tests/export/test_tensorrt_gpu.py",
        "tests/runtime/test_tensorrt.py",
        "tests/train/test_loop.py",
    ]
