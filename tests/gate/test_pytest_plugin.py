from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgetl.gate.pytest_plugin import failure_text
from edgetl.gate.stage import make_baseline
from tests.bench_stage.bundles import evaluation, write_bundle
from tests.gate.test_compare import compare, figures


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Somebody's project: two bundles, a baseline, and tests that use the fixture."""
    home = tmp_path_factory.mktemp("project")
    good = write_bundle(home / "good.edgetl", test=evaluation(85))
    write_bundle(home / "worse.edgetl", test=evaluation(60))
    make_baseline(good, threads=1, runs=30).save(home / "baseline.json")
    (home / "test_ship.py").write_text(
        "from edgetl.gate.compare import Limits\n"
        "WIDE = Limits(max_latency_increase=5.0)\n"
        "def test_good(edgetl_gate):\n"
        "    assert edgetl_gate('good.edgetl', baseline='baseline.json', limits=WIDE).passed\n"
        "def test_worse(edgetl_gate):\n"
        "    edgetl_gate('worse.edgetl', baseline='baseline.json', limits=WIDE)\n"
        "def test_beside(edgetl_gate):\n"
        "    edgetl_gate('worse.edgetl', against='good.edgetl', threads=1, limits=WIDE)\n"
        "def test_missing(edgetl_gate):\n"
        "    edgetl_gate('good.edgetl', baseline='gone.json')\n"
        "def test_nothing(edgetl_gate):\n"
        "    edgetl_gate('good.edgetl')\n"
    )
    return home


def test_the_fixture_gates_a_users_tests(project: Path) -> None:
    root = Path(__file__).parents[2]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "edgetl.gate.pytest_plugin",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(
        [*command, str(project)],
        cwd=project,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(root), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "4 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert "AssertionError: worse.edgetl (fp32) is worse than good.edgetl allows:" in done.stdout
    assert "There is no baseline at gone.json" in done.stdout
    assert "Name one thing to compare with: baseline=FILE or against=BUNDLE." in done.stdout
    # Users see their own line and the table, not the inside of the plugin.
    assert "raise AssertionError" not in done.stdout


def test_the_failure_is_a_table() -> None:
    text = failure_text(compare(figures(), figures(right=900, size=1_200_000), spread=0.001))
    lines = text.splitlines()
    assert lines[0] == "model.edgetl (int8) is worse than model.edgetl allows:"
    assert lines[1].split() == ["check", "baseline", "current", "change", "limit"]
    assert lines[2].split() == ["accuracy", "(top-1)", "0.95", "0.9", "-5.00%", "-1.00%", "FAILED"]
    assert lines[3].split()[-1] == "passed"
    assert lines[4].split() == ["size", "(bytes)", "1e+06", "1.2e+06", "+20.00%", "+5.00%", "FAILED"]
    assert lines[6].startswith("Top-1 went from 95.0% to 90.0%")


def test_the_plugin_imports_nothing_heavy() -> None:
    code = (
        "import sys, pytest\n"
        "before = set(sys.modules)\n"
        "import edgetl.gate.pytest_plugin\n"
        "new = {name for name in set(sys.modules) - before if not name.startswith('edgetl')}\n"
        "assert not {'numpy', 'PIL', 'onnxruntime', 'torch', 'rich', 'pydantic'} & new, new\n"
        "assert len(new) < 5, new\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
