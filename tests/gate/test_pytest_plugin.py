from __future__ import annotations

import functools
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgetl.gate import loads, pytest_plugin
from edgetl.gate.pytest_plugin import _BAD_IMAGES, failure_text
from edgetl.gate.stage import make_baseline
from edgetl.records.scores import BadImages
from edgetl.tasks.all import task_of
from edgetl.tasks.base import Classification, MultiHead, MultiLabel, ScoreLimits, TaskSpec
from tests.bench_stage.bundles import LABELS, colour_png, evaluation, write_bundle
from tests.gate.test_compare import figures, held

ROOT = Path(__file__).parents[2]
CONFUSED = np.array([[1, 0, 0], [0, 0, 1], [0, 1, 0]])


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Somebody's project: the example, two bundles, pictures, a baseline, and more tests."""
    home = tmp_path_factory.mktemp("project")
    good = write_bundle(home / "model.edgetl", test=evaluation(85))
    write_bundle(home / "worse.edgetl", weights=CONFUSED)
    for at, label in enumerate(LABELS):
        (home / "photos" / label).mkdir(parents=True)
        for number in range(12):
            (home / "photos" / label / f"{number}.png").write_bytes(colour_png(at, noise=10 * number + at))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loads, "load_fresh", functools.cache(loads.load_fresh))
        made = make_baseline(good, threads=1, runs=30, data=home / "photos")
    made.save(home / "baseline.json")
    (
        home / "conftest.py"
    ).write_text(  # One fresh process for each bundle: the gate's figures are tested elsewhere.
        "import functools\n"
        "from edgetl.gate import loads\n"
        "loads.load_fresh = functools.cache(loads.load_fresh)\n"
    )
    shutil.copy(Path(__file__).with_name("example_edge_gate.py"), home / "test_example.py")
    (home / "test_worse.py").write_text(
        "import pytest\n"
        "pytestmark = pytest.mark.edge(bundle='worse.edgetl', baseline='baseline.json', data='photos', threads=1)\n"
        "def test_accuracy(assert_accuracy):\n"
        "    assert_accuracy()\n"
        "def test_report(edge_report):\n"
        "    assert edge_report.flips.lost == 24\n"
        "@pytest.mark.edge(baseline='gone.json')\n"
        "def test_missing(assert_accuracy):\n"
        "    assert_accuracy()\n"
        "@pytest.mark.edge(against='model.edgetl')\n"
        "def test_two(assert_accuracy):\n"
        "    assert_accuracy()\n"
        "@pytest.mark.edge(max_acuracy_drop=0.1)\n"
        "def test_typo(assert_accuracy):\n"
        "    assert_accuracy()\n"
        "@pytest.mark.edge(max_accuracy_drop=2)\n"
        "def test_wrong(assert_accuracy):\n"
        "    assert_accuracy()\n"
    )
    (home / "test_bare.py").write_text("def test_bare(assert_accuracy):\n    assert_accuracy()\n")
    return home


def run(
    project: Path, *arguments: str, plugins: tuple[str, ...] = (), summary: Path | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider"]
    for plugin in ("edgetl.gate.pytest_plugin", *plugins):
        command += ["-p", plugin]
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "EDGETL_CACHE": str(project / ".cache"),
        "COLUMNS": "160",
    }
    if summary is not None:
        environment["GITHUB_STEP_SUMMARY"] = str(summary)
    return subprocess.run(
        [*command, *arguments], cwd=project, env=environment, capture_output=True, text=True, check=False
    )


def test_the_example_works_and_a_table_stands_at_the_end(project: Path, tmp_path: Path) -> None:
    done = run(
        project,
        "test_example.py",
        "--edge-unsure=skip",
        f"--junitxml={tmp_path / 'junit.xml'}",
        "--strict-markers",
    )
    assert "2 passed, 1 skipped" in done.stdout or "3 passed" in done.stdout, done.stdout + done.stderr
    lines = done.stdout.split(" edge models ")[1].splitlines()[1:]
    assert lines[0].split() == ["bundle", "check", "baseline", "now", "change", "allowed", "result"]
    accuracy = next(line for line in lines if " accuracy " in line)
    # 36 images settle 7.5 points; the file and its predictions are the baseline's.
    assert accuracy.split() == [
        "model.edgetl", "(fp32)", "accuracy", "100.0%", "100.0%", "+0.0", "points", "-10", "points", "passed"
    ]  # fmt: skip
    cases = ElementTree.parse(tmp_path / "junit.xml").iter("testcase")
    found = {
        case.get("name"): {p.get("name"): p.get("value") for p in case.iter("property")} for case in cases
    }
    assert found["test_no_accuracy_is_lost"]["edge.accuracy.verdict"] == "pass"
    assert found["test_no_accuracy_is_lost"]["edge.accuracy.current"] == "1.0"
    assert "edge.load_time.verdict" in found["test_no_accuracy_is_lost"]
    assert found["test_it_knows_a_red_picture"] == {}


def test_what_got_worse_fails_and_what_is_missing_is_one_sentence(project: Path, tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("# Before\n")
    done = run(project, "test_worse.py", "test_bare.py", summary=summary)
    assert "1 failed, 1 passed, 5 errors" in done.stdout, done.stdout + done.stderr
    assert "AssertionError: worse.edgetl (fp32) is worse than model.edgetl allows:" in done.stdout
    assert "Top-1 went from 100.0% to 33.3% on 36 images (24 right to wrong, 0 wrong to right)" in done.stdout
    for sentence in (
        f"There is no baseline at {project / 'gone.json'}. Write one with: edgetl baseline BUNDLE -o",
        "Name one thing to compare with: a baseline or another bundle (against).",
        "The marker edge does not know max_acuracy_drop; it knows against, allow_other_machine, bad_images, baseline,",
        "max_accuracy_drop is 2, expected a share from 0 to 1.",
        "No bundle is named: give @pytest.mark.edge(bundle=...) or --edge-bundle.",
    ):
        assert sentence in done.stdout, done.stdout
    # Users see their own line and the table, not the inside of the plugin.
    assert "raise AssertionError" not in done.stdout
    assert "pytest_plugin.py" not in done.stdout
    assert "Traceback" not in done.stdout
    written = summary.read_text().splitlines()
    assert written[:4] == [
        "# Before",
        "### Edge models",
        "",
        "| bundle | check | baseline | now | change | allowed | result |",
    ]
    assert (
        "| worse.edgetl (fp32) | accuracy | 100.0% | 33.3% | -66.7 points | -10 points | FAILED |" in written
    )
    assert any(line.startswith("- Recall went down in 2 of 3 classes: ") for line in written)


def test_options_stand_in_for_the_marker_and_two_bundles_are_measured_side_by_side(project: Path) -> None:
    (project / "test_beside.py").write_text(
        "import pytest\n"
        "@pytest.mark.edge(max_latency_increase=9)\n"
        "def test_beside(assert_accuracy, assert_latency):\n"
        "    assert_accuracy()\n"
        "    assert_latency()\n"
    )
    options = (
        "--edge-bundle=model.edgetl",
        "--edge-against=model.edgetl",
        "--edge-data=photos",
        "--edge-threads=1",
    )
    done = run(project, "test_beside.py", *options)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_bad_images_are_refused_or_skipped_and_named(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project / "photos", project / "some bad")
    (project / "some bad" / LABELS[0] / "cut.png").write_bytes(colour_png(0)[:60])
    (project / "test_bad.py").write_text(
        "import pytest\n"
        "pytestmark = pytest.mark.edge(bundle='model.edgetl', against='model.edgetl', data='some bad', threads=1)\n"
        "def test_refused(assert_accuracy):\n"
        "    assert_accuracy()\n"
        "@pytest.mark.edge(bad_images='skip')\n"
        "def test_skipped(assert_accuracy, edge_report):\n"
        "    assert_accuracy()\n"
        "    assert edge_report.image_set.images == 36\n"
        "@pytest.mark.edge(bad_images='ignore')\n"
        "def test_wrong(assert_accuracy):\n"
        "    assert_accuracy()\n"
    )
    summary = tmp_path / "summary.md"
    done = run(project, "test_bad.py", summary=summary)
    assert "1 passed, 2 errors" in done.stdout, done.stdout + done.stderr
    assert "1 of 37 images cannot be used" in done.stdout
    assert "leave them out with --edge-bad-images=skip." in done.stdout
    assert "bad_images is 'ignore', expected 'refuse' or 'skip'." in done.stdout
    stated = f"{project / 'some bad'}: 1 images cannot be used and are skipped, 36 are scored"
    table = done.stdout.split(" edge models ")[1]
    assert stated in table
    assert f"{LABELS[0]}/cut.png: " in table
    assert stated in summary.read_text()
    by_option = run(project, "test_bad.py", "-k", "refused", "--edge-bad-images=skip")
    assert "1 passed" in by_option.stdout, by_option.stdout


def test_what_the_plugin_takes_for_bad_images_is_what_there_is() -> None:
    assert {item.value for item in BadImages} == set(_BAD_IMAGES)


def test_workers_measure_once_and_one_at_a_time(project: Path, tmp_path: Path) -> None:
    pytest.importorskip("xdist")
    (project / "test_many.py").write_text(
        "import fcntl, pytest, edgetl.gate.stage as stage\n"
        "from edgetl.files import cache_dir\n"
        "kept = stage.gate_baseline\n"
        "def watched(*arguments, **options):\n"
        "    with (cache_dir() / 'measuring.lock').open('a') as file, pytest.raises(BlockingIOError):\n"
        "        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        f"    with open({str(tmp_path / 'log')!r}, 'a') as log:\n"
        "        log.write('begin\\n')\n"
        "        log.flush()\n"
        "        report = kept(*arguments, **options)\n"
        "        log.write('end\\n')\n"
        "    return report\n"
        "stage.gate_baseline = watched\n"
        "@pytest.mark.parametrize('number', range(4))\n"
        "@pytest.mark.edge(bundle='model.edgetl', baseline='baseline.json', data='photos', threads=1)\n"
        "def test_same(assert_accuracy, number):\n"
        "    assert_accuracy()\n"
        "@pytest.mark.edge(bundle='model.edgetl', baseline='baseline.json', data='photos', max_accuracy_drop=0.2)\n"
        "@pytest.mark.edge(threads=1)\n"
        "def test_other(assert_accuracy):\n"
        "    assert_accuracy()\n"
    )
    done = run(project, "test_many.py", "-n", "2", plugins=("xdist.plugin",))
    assert "5 passed" in done.stdout, done.stdout + done.stderr
    assert (tmp_path / "log").read_text().split() == ["begin", "end"] * 2
    [table] = done.stdout.split(" edge models ")[1:]
    assert table.count(" accuracy ") == 2  # Of two settings, though five tests asked.


def test_the_failure_is_a_table() -> None:
    report = held(figures(), figures(right=900, size=1_200_000))
    lines = failure_text(report, [c for c in report.checks if c.name in ("accuracy", "size")]).splitlines()
    assert lines[0] == "model.edgetl (int8) is worse than model.edgetl allows:"
    assert lines[1].split() == ["check", "baseline", "now", "change", "allowed", "result"]
    assert lines[2].split() == ["accuracy", "95.0%", "90.0%", "-5.0", "points", "-1.5", "points", "FAILED"]
    assert lines[3].split() == ["size", "1", "MB", "1.2", "MB", "+20.0%", "+5%", "FAILED"]
    assert lines[5].startswith("- Top-1 went from 95.0% to 90.0%")


def test_what_cannot_be_told_is_said_so() -> None:
    report = held(figures(), figures(right=938))
    [accuracy, *_] = report.checks
    head, *_ = failure_text(report, [accuracy]).splitlines()
    assert head == "model.edgetl (int8) cannot be shown to be as good as model.edgetl:"


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


@pytest.mark.parametrize(
    ("spec", "truths", "answers"),
    [
        (Classification(labels=("a", "b")), [0, 1], [0, 0]),
        (MultiLabel(labels=("a", "b")), [[0], [1]], [[0], [0]]),
        (
            MultiHead(heads={"kind": Classification(labels=("a", "b"))}),
            [{"kind": 0}, {"kind": 1}],
            [{"kind": 0}] * 2,
        ),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_every_check_of_a_tasks_scores_is_asserted_as_accuracy(
    spec: TaskSpec, truths: list[object], answers: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(spec)
    right, given = task.read(truths * 100), task.read(answers * 100)
    checks = task.judge(right, right, given, ScoreLimits())
    seen: list[object] = []
    monkeypatch.setattr(pytest_plugin, "failure_text", lambda _, found: seen.extend(found) or "worse")
    config = SimpleNamespace(getoption=lambda _: "fail")
    with pytest.raises(AssertionError, match="worse"):
        pytest_plugin._assertion(SimpleNamespace(checks=checks), None, config)()
    assert seen == list(checks)
