"""A device says how sure it is: calibrated scores, sets for any coverage, and one clear error where there are none."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgetl.bundle.archive import open_bundle
from edgetl.bundle.confidence import ConfidenceSource
from edgetl.errors import BundleError, ConfigError
from edgetl.report.terminal import device, run
from edgetl.runtime.evaluate import evaluate_folder
from edgetl.runtime.inputs import ImageResult, open_source, predict_all
from edgetl.runtime.session import load
from edgetl.tasks.base import MultiHead, TaskSpec
from edgetl.tasks.conformal import conformity
from tests import squares
from tests.bundles import picture
from tests.cli.typed import edgetl as typed
from tests.report.test_terminal import shown
from tests.runtime.test_tasks import COLOURS, TASKS, linear_bundle

RANKED = conformity(np.linspace(0.0, 1.0, 99))


def sure(task: TaskSpec, temperature: float = 2.0) -> ConfidenceSource:
    outputs = tuple(task.heads) if isinstance(task, MultiHead) else ("logits",)
    return ConfidenceSource(
        temperatures=dict.fromkeys(outputs, temperature), conformities=dict.fromkeys(outputs, RANKED)
    )


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for label in COLOURS.labels:
        folder = tmp_path / "images" / label
        folder.mkdir(parents=True)
        for at in range(2):
            (folder / f"{at}.png").write_bytes(picture(at + len(label)))
    return tmp_path / "images"


def test_scores_are_by_the_variants_temperature(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    plain = linear_bundle(tmp_path / "plain", COLOURS)
    own = linear_bundle(tmp_path, COLOURS, confidence=sure(COLOURS))
    with load(plain, threads=1) as before, load(own, threads=1) as after:
        assert after.verify().passed, "golden outputs are what the network gives"
        pixels = before.pixels(picture())[None]
        [logits], [again] = (session.run(pixels)["logits"] for session in (before, after))
        assert (logits == again).all()
        first, second = (session.predict(picture(), top_k=3) for session in (before, after))
    assert [one.label for one in first.top] == [one.label for one in second.top]
    weights = np.exp((logits - logits.max()) / 2.0)
    assert second.score == pytest.approx(weights.max() / weights.sum(), abs=1e-6)
    assert first.possible is second.possible is None


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_every_way_to_predict_gives_the_set(task: TaskSpec, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(picture())
    with load(linear_bundle(tmp_path, task, confidence=sure(task)), threads=1) as session:
        one = session.predict(picture(), coverage=0.9)
        assert session.predict([picture(), picture(1)], coverage=0.9)[0] == one
        [result] = predict_all(session, open_source([str(path)]), coverage=0.9)
        assert result.prediction == one
        assert session.predict(picture(), coverage=0.5) != session.predict(picture(), coverage=0.99)
        assert "one of" in shown(
            device.predictions, [result, ImageResult(path="b", prediction=None, error="no")]
        )
    if not isinstance(task, MultiHead):
        assert one.possible is not None
        # A class needs the tenth of 99 conformities from below, 9 / 98.
        assert all(c.score >= 9 / 98 for c in one.possible[:1])


def test_eval_says_how_often_sets_held_the_truth(images: Path, tmp_path: Path) -> None:
    with load(linear_bundle(tmp_path, COLOURS, confidence=sure(COLOURS)), threads=1) as session:
        plain = evaluate_folder(session, images)
        found = evaluate_folder(session, images, coverage=0.99)
        sets = [session.predict(path, coverage=0.99).possible for path in sorted(images.glob("*/*.png"))]
    assert plain.coverage == ()
    [covered] = found.coverage
    assert (covered.asked, covered.images, covered.output) == (0.99, 6, "logits")
    assert covered.mean_size == pytest.approx(np.mean([len(one or ()) for one in sets]))
    assert f"sets of 0.99  held the truth of {covered.held.value:.1%} of 6 images" in shown(
        run.evaluation, found
    )
    done = typed("eval", tmp_path / "b.edgetl", images, "--coverage", "0.99", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["coverage"][0]["held"]["value"] == covered.held.value


def test_info_says_what_there_is(tmp_path: Path) -> None:
    manifest = open_bundle(linear_bundle(tmp_path, COLOURS, confidence=sure(COLOURS))).manifest
    assert "by temperature 2.00; --coverage up to 0.99 by 99 validation images" in shown(
        device.bundle, manifest
    )
    two = sure(TASKS[2])
    heads = open_bundle(linear_bundle(tmp_path, TASKS[2], confidence=two)).manifest
    assert "by temperature colour 2.00, marks 2.00;" in shown(device.bundle, heads)


@pytest.mark.parametrize("coverage", [0.0, 1.0, 95.0])
def test_a_coverage_that_is_no_share_is_refused(coverage: float, images: Path, tmp_path: Path) -> None:
    path = str(images / "red" / "0.png")
    with load(linear_bundle(tmp_path, COLOURS, confidence=sure(COLOURS)), threads=1) as session:
        sentence = rf"^coverage: got {coverage:g}, expected a share above 0 and below 1, as 0\.95"
        with pytest.raises(ConfigError, match=sentence):
            session.predict(path, coverage=coverage)
        with pytest.raises(ConfigError, match=sentence):
            next(predict_all(session, open_source([path]), coverage=coverage))
        with pytest.raises(ConfigError, match=sentence):
            evaluate_folder(session, images, coverage=coverage)


def test_more_than_the_validation_images_allow_is_refused(tmp_path: Path) -> None:
    with load(linear_bundle(tmp_path, COLOURS, confidence=sure(COLOURS)), threads=1) as session:
        with pytest.raises(
            ConfigError, match=r"0\.995 needs 199 .*b\.edgetl was made with 99, which allow at most 0\.99;"
        ):
            session.predict(picture(), coverage=0.995)
        assert session.predict(picture(), coverage=0.99).possible


def test_an_older_bundle_says_how_to_get_sets(tmp_path: Path) -> None:
    with load(linear_bundle(tmp_path, COLOURS), threads=1) as session:
        with pytest.raises(BundleError, match=r"^coverage: .*; make it again with: edgetl run RECIPE$"):
            session.predict(picture(), coverage=0.9)
        assert session.predict(picture()).score > 0


def test_boxes_have_no_sets(tmp_path: Path) -> None:
    squares.write_bundle(tmp_path / "b.edgetl")
    with (
        load(tmp_path / "b.edgetl", threads=1) as session,
        pytest.raises(
            ConfigError, match=r"^coverage: sets of labels are for classes, .* task detection; leave"
        ),
    ):
        session.predict(picture(), coverage=0.9)


def test_a_device_predicts_sets_without_torch_and_loads_nothing_for_them_before(tmp_path: Path) -> None:
    out = linear_bundle(tmp_path, COLOURS, confidence=sure(COLOURS))
    (tmp_path / "a.png").write_bytes(picture())
    code = (
        "import sys, edgetl; s = edgetl.load(sys.argv[1]); s.predict(sys.argv[2]);"
        "late = {'edgetl.tasks.' + n for n in ('confidence', 'conformal', 'temperature', 'reliability')};"
        "late |= {'edgetl.records.' + n for n in ('train', 'gate', 'extend')};"  # the host's, which cost a start
        "assert not late & set(sys.modules), late & set(sys.modules);"
        "print(len(s.predict(sys.argv[2], coverage=0.9).possible));"
        "assert not {'torch', 'onnx', 'pydantic'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, str(out), str(tmp_path / "a.png")]
    assert int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) >= 1
    done = typed("predict", out, tmp_path / "a.png", "--coverage", "0.9", "--json")
    [answer] = json.loads(done.stdout)
    assert answer["prediction"]["possible"][0]["label"] == answer["prediction"]["label"]
    refused = typed("predict", out, tmp_path / "a.png", "--coverage", "1.5")
    assert refused.returncode == 2
    assert "coverage: got 1.5, expected a share above 0 and below 1" in refused.stderr


def test_groups_and_sets_go_together(tmp_path: Path) -> None:
    from edgetl.tasks.relations import Tree

    tree = Tree(parents={"red": "warm", "green": "cold", "blue": "cold", "warm": "any", "cold": "any"})
    task = replace(COLOURS, relation=tree)
    out = linear_bundle(tmp_path, task, confidence=sure(task, temperature=50.0))
    with load(out, threads=1) as session:
        plain = session.predict(picture())
        assert plain.score == pytest.approx(1 / 3, abs=0.05), "by the temperature"
        both = session.predict(picture(), sure=0.9, coverage=0.99)
    assert both.label == "any", "groups are sums of scores with the temperature"
    assert {one.label for one in both.possible or ()} == set(COLOURS.labels)
