"""Two real processes on the loopback against one: the same curve at the same global batch."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgetl.train.processes import Group
from tests.images import write_set

from .spread import curves

ROOT = Path(__file__).parents[2]
# Each launch is two processes of their own; they are forked from one that has loaded torch, since that takes seconds.
LAUNCH = """
import json, os, runpy, sys, traceback
import edgetl.pipeline
from edgetl.models import backbones
from edgetl.train import stage
backbones.create("test_vit", 3, "none")
if os.path.exists("/proc/self/task"):  # A child would wait for ever for what another thread holds.
    assert len(os.listdir("/proc/self/task")) == 1
for name, port, module, *arguments in json.loads(sys.argv[1]):
    ranks = []
    for rank in range(2):
        if child := os.fork():
            ranks.append(child)
            continue
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), MASTER_PORT=str(port))
        for descriptor, ending in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{name}-{rank}.{ending}", os.O_CREAT | os.O_WRONLY), descriptor)
        sys.argv[1:] = arguments
        code = 0
        try:
            runpy.run_module(module, run_name="__main__")
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # To take a fork apart means to copy all that it shares, which takes seconds.
    print(*(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in ranks), flush=True)
"""
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
head_epochs = 1
batch_size = 8
"""


PRETRAIN = """
[pretrain]
images = "{images}"
epochs = 1
batch_size = 8
"""


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Launched:
    folder: Path
    by_name: dict[str, tuple[Done, Done]]


def _free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Launched:
    folder = tmp_path_factory.mktemp("launched")
    source = write_set(folder / "images", {"train": 8, "val": 4})
    (folder / "recipe.toml").write_text(RECIPE.format(source=source))
    photos = write_set(folder / "further", {"photos": 4}, seed=9) / "photos"
    judged = RECIPE.format(source=source).replace("two", "judged") + PRETRAIN.format(images=photos)
    (folder / "judged.toml").write_text(judged)
    command = ("edgetl", "finetune", "recipe.toml")
    write_set(folder / "target", {"photos": 3}, seed=1)
    adapt = ("--set", "adapt.images=target", "--set", "adapt.method=bn")
    launches = {
        "curves": ("tests.train.spread", "two"),
        "command": (*command, "--json"),
        "again": command,
        "adapted": (*command, *adapt),
        "judged": ("edgetl", "finetune", "judged.toml", "--json"),
    }
    plain = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    group = {"MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    jobs = [
        (name, port, *launches[name]) for name, port in zip(launches, _free_ports(len(launches)), strict=True)
    ]
    done = subprocess.run(
        [sys.executable, "-c", LAUNCH, json.dumps(jobs)],
        env=os.environ | plain | group | {"EDGETL_CACHE": str(folder / "cache")},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    codes = [line.split() for line in done.stdout.splitlines()]

    def said(name: str, rank: int, code: str) -> Done:
        out, err = ((folder / f"{name}-{rank}.{ending}").read_text() for ending in ("out", "err"))
        return Done(int(code), out, err)

    return Launched(
        folder,
        {
            name: (said(name, 0, first), said(name, 1, second))
            for name, (first, second) in zip(launches, codes, strict=True)
        },
    )


def test_two_processes_give_the_curve_of_one(launched: Launched) -> None:
    for done in launched.by_name["curves"]:
        assert done.returncode == 0, done.stderr
    first, second = (json.loads((launched.folder / f"two-{rank}").read_text()) for rank in range(2))
    one = curves(accumulate=1)
    assert len(one) == 3
    for name, expected in one.items():
        assert first[name] == pytest.approx(expected, rel=2e-4), name
        assert second[name] == first[name]


def test_a_launched_command_trains_once_and_only_the_first_process_speaks(launched: Launched) -> None:
    first, second = launched.by_name["command"]
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert [e["phase"] for e in json.loads(first.stdout)["epochs"]] == ["head", "full", "full"]
    assert (second.stdout, second.stderr) == ("", "")
    assert sorted(p.name for p in (launched.folder / "runs/two/train").iterdir()) == [
        "stage.json",
        "started",
        "teacher.safetensors",
    ]


def test_a_launched_command_that_is_up_to_date_ends(launched: Launched) -> None:
    first, second = launched.by_name["again"]
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "train: up to date" in first.stderr


def test_the_first_process_adapts_after_the_others_have_left(launched: Launched) -> None:
    first, second = launched.by_name["adapted"]
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "train: up to date" in first.stderr
    assert (launched.folder / "runs/two/adapt/adapted.safetensors").exists()


def test_both_trainings_that_judge_pretraining_are_shared(launched: Launched) -> None:
    first, second = launched.by_name["judged"]
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert (second.stdout, second.stderr) == ("", "")
    assert json.loads(first.stdout)["start"]["judge"] == "training"
    assert first.stderr.count("full 2/2") == 2
    assert sorted(p.name for p in (launched.folder / "runs/judged/train").iterdir()) == [
        "stage.json",
        "started",
        "teacher.safetensors",
    ]


def test_shares_cover_all_and_differ_by_one() -> None:
    for items in range(2, 40):
        for count in (1, 2, 3, 7):
            shares = [Group(rank, count).share(items) for rank in range(count)]
            assert [i for s in shares for i in range(items)[s]] == list(range(items))
            sizes = [len(range(items)[s]) for s in shares]
            assert max(sizes) - min(sizes) <= 1
