"""The manual's lines for launchers, as they stand there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.images import write_set
from tests.train.test_processes import RECIPE, ROOT

PAGE = ROOT / "edgetl" / "guide" / "train.md"
LINES = re.findall(r"^(?:torchrun|accelerate launch) .*$", PAGE.read_text(), re.MULTILINE)


def test_the_manual_has_a_line_for_each_launcher() -> None:
    assert [line.split()[0] for line in LINES] == ["torchrun", "torchrun", "accelerate"]


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES)
def test_the_manual_s_lines_train(line: str, tmp_path: Path) -> None:
    source = write_set(tmp_path / "images", {"train": 8, "val": 4})
    (tmp_path / "recipe.toml").write_text(RECIPE.format(source=source))
    beside = str(Path(sys.executable).parent)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([beside, os.environ.get("PATH", "")]),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HOME": str(tmp_path / "hub"),  # no settings of this machine's
    }
    done = subprocess.run(
        shlex.split(line),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/two/train/teacher.safetensors").is_file()
    assert done.stdout.count("test_efficientnet") <= 2  # one process speaks
