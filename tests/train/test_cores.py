from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from edgetl.process import physical_cores
from edgetl.train.cores import own_cores

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or len(physical_cores()) < 2,
    reason="threads are bound on Linux, where there are two cores or more",
)

# Each thread's cores inside a block, inside one within it, and after it.
BIND = """
import os
import torch
from edgetl.train.cores import own_cores
def held():
    found = [sorted(os.sched_getaffinity(int(task))) for task in os.listdir("/proc/self/task")]
    return sorted(cores[0] for cores in found if len(cores) == 1)
work = torch.ones(1 << 20)
with own_cores(torch.device("cpu")):
    work.exp().sum()
    print(held())
    with own_cores(torch.device("cpu")):
        pass
    print(held())
print(held())
"""


def bind(**environment: str) -> list[str]:
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "MKL_"))}
    done = subprocess.run(
        [sys.executable, "-c", BIND], env=plain | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split("\n")[:3]


def test_each_thread_gets_a_core_and_gives_it_back() -> None:
    inside, nested, after = bind()
    assert len(inside.split(",")) >= 2
    assert len(set(inside.strip("[]").split(", "))) == len(inside.split(","))
    assert (nested, after) == (inside, "[]")


@pytest.mark.parametrize("environment", [{"OMP_NUM_THREADS": "1"}, {"OMP_PLACES": "cores"}])
def test_nothing_is_bound_where_cores_are_shared_or_the_user_binds(environment: dict[str, str]) -> None:
    inside, nested, after = bind(**environment)
    assert inside == nested == after


def test_nothing_is_bound_for_a_gpu() -> None:
    before = os.sched_getaffinity(0)
    with own_cores(torch.device("cuda")):
        assert os.sched_getaffinity(0) == before
