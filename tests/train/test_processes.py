"""Two real processes on the loopback against one: the same curve at the same global batch."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from edgetl.train.processes import Group
from tests.images import write_set

from .spread import curves

ROOT = Path(__file__).parents[2]


def environment(rank: int, port: int) -> dict[str, str]:
    stated = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    plain = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, **plain, "MASTER_ADDR": "127.0.0.1", **{k: str(v) for k, v in stated.items()}}


def start_two(*arguments: str, cwd: Path = ROOT) -> list[subprocess.CompletedProcess[str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    running = [
        subprocess.Popen(
            [sys.executable, *arguments],
            env=environment(rank, port),
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    done = []
    for process in running:
        out, err = process.communicate(timeout=120)
        done.append(subprocess.CompletedProcess(process.args, process.returncode, out, err))
    return done


def test_two_processes_give_the_curve_of_one(tmp_path: Path) -> None:
    for done in start_two("-m", "tests.train.spread", f"{tmp_path}/two"):
        assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"two-{rank}").read_text()) for rank in range(2))
    one = curves(accumulate=1)
    assert len(one) == 3
    for name, expected in one.items():
        assert first[name] == pytest.approx(expected, rel=2e-4), name
        assert second[name] == first[name]


RECIPE = """
name = "two"
[data]
source = "{source}"
[preprocess]
size = 32
[train]
backbone = "test_efficientnet"
weights = "none"
epochs = 2
batch_size = 8
"""


def test_a_launched_command_trains_once_and_only_the_first_process_speaks(tmp_path: Path) -> None:
    source = write_set(tmp_path / "images", {"train": 8, "val": 4})
    (tmp_path / "recipe.toml").write_text(RECIPE.format(source=source))
    first, second = start_two("-m", "edgetl", "finetune", "recipe.toml", "--json", cwd=tmp_path)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert [e["phase"] for e in json.loads(first.stdout)["epochs"]] == ["head", "full", "full"]
    assert (second.stdout, second.stderr) == ("", "")
    assert sorted(p.name for p in (tmp_path / "runs/two/train").iterdir()) == [
        "stage.json",
        "started",
        "teacher.safetensors",
    ]


@pytest.mark.slow
def test_a_launched_command_that_is_up_to_date_ends(tmp_path: Path) -> None:
    source = write_set(tmp_path / "images", {"train": 8, "val": 4})
    (tmp_path / "recipe.toml").write_text(RECIPE.format(source=source))
    for _ in range(2):
        first, second = start_two("-m", "edgetl", "finetune", "recipe.toml", cwd=tmp_path)
        assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "train: up to date" in first.stderr


def test_shares_cover_all_and_differ_by_one() -> None:
    for items in range(2, 40):
        for count in (1, 2, 3, 7):
            shares = [Group(rank, count).share(items) for rank in range(count)]
            assert [i for s in shares for i in range(items)[s]] == list(range(items))
            sizes = [len(range(items)[s]) for s in shares]
            assert max(sizes) - min(sizes) <= 1
