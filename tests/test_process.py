from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgetl import process
from edgetl.process import usable_cores

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")

FAULTS = """
import resource
from edgetl.process import tune
if {tuned}:
    tune()
import numpy as np
def use():
    for _ in range(20):
        np.ones(60_000_000, np.uint8)
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


HOLES = """
from edgetl.process import release, tune
tune()
import numpy as np
def resident():
    with open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith("VmRSS")).split()[1])
before = resident()
blocks = [np.ones(1_000_000, np.uint8) for _ in range(200)]
living = blocks[::10]
del blocks
held = resident()
release()
print(held - before, resident() - before)
"""


def run(code: str, **environment: str) -> str:
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("GOMP_", "MALLOC_"))}
    # numpy asks for huge pages, which would hide the faults
    plain["NUMPY_MADVISE_HUGEPAGE"] = "0"
    done = subprocess.run(
        [sys.executable, "-c", code], env=plain | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_freed_memory_is_kept() -> None:
    assert int(run(FAULTS.format(tuned=True))) < 0.1 * int(run(FAULTS.format(tuned=False)))


def test_memory_between_what_lives_on_is_given_back_when_asked_for() -> None:
    held, released = map(int, run(HOLES).split())
    assert held > 150_000
    assert released < 0.3 * held


def test_what_the_environment_sets_stays() -> None:
    faults = FAULTS.format(tuned=True)
    assert int(run(faults, MALLOC_MMAP_THRESHOLD_="131072")) > 10 * int(run(faults))
    spins = "import os; from edgetl.process import tune; tune(); print(os.environ['GOMP_SPINCOUNT'])"
    assert run(spins, GOMP_SPINCOUNT="7") == "7"
    assert int(run(spins)) > 0


def test_a_run_is_tuned_before_torch_is_imported(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from edgetl import pipeline
seen = []
pipeline.flow.tune = lambda: seen.append("torch" in sys.modules)
pipeline.flow.resolve = lambda recipe: recipe
pipeline.flow.Run = lambda *args: sys.exit(print(*seen))
pipeline.run(None, Path({str(tmp_path)!r}))
"""
    assert run(code) == "False"


def test_cores_respect_affinity_and_container_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    text = "max 100000"
    monkeypatch.setattr(Path, "read_text", lambda self: text)
    assert usable_cores() == 8
    text = "150000 100000"
    assert usable_cores() == 2
    text = "5000 100000"
    assert usable_cores() == 1
    text = "nonsense"
    assert usable_cores() == 8


def test_torch_takes_no_more_threads_than_a_container_may_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", environment := {"MALLOC_ARENA_MAX": "4"})
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(process, "physical_cores", lambda: list(range(8)))
    monkeypatch.setattr(process, "usable_cores", lambda: 8)
    process.tune()
    assert "OMP_NUM_THREADS" not in environment
    monkeypatch.setattr(process, "usable_cores", lambda: 3)
    process.tune()
    assert environment["OMP_NUM_THREADS"] == "3"
    monkeypatch.setattr(process, "usable_cores", lambda: 2)
    process.tune()
    assert environment["OMP_NUM_THREADS"] == "3"


def test_hardware_threads_of_one_core_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 2, 3, 5}, raising=False)
    siblings = {"cpu1": "1,5", "cpu2": "2", "cpu3": "3,7", "cpu5": "1,5"}
    monkeypatch.setattr(Path, "read_text", lambda self: siblings[self.parts[-3]])
    assert process.physical_cores() == [1, 2, 3]

    def missing(self: Path) -> str:
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "read_text", missing)
    assert process.physical_cores() == [1, 2, 3, 5]
