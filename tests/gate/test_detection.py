"""The gate between detectors: what is lost and new, whatever their inputs' sizes, on pages and in baselines."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgetl.bench import memory
from edgetl.bundle.pack import pack
from edgetl.errors import BaselineError, DataError
from edgetl.gate import baseline as baselines
from edgetl.gate.baseline import Baseline
from edgetl.gate.compare import compare
from edgetl.gate.pytest_plugin import failure_text
from edgetl.gate.stage import gate_against, make_baseline
from edgetl.records.codec import from_json, to_json
from edgetl.records.gate import BoxTurn, GateReport, Verdict
from edgetl.report.page.gate import render, write_page
from edgetl.report.terminal import device
from edgetl.tasks.detection.found import Found, Truth
from edgetl.tasks.detection.turns import turns
from tests.bundles import contents
from tests.report.test_terminal import shown
from tests.squares import COLOURS, SPEC, TASK, model, write_bundle, write_set


@pytest.fixture(autouse=True, scope="module")
def _one_fresh_process_for_each_bundle() -> Iterator[None]:
    once = functools.cache(memory.load_fresh)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgetl.gate.loads.load_fresh", once)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("squares")
    write_set(path / "set", 24)
    write_bundle(path / "sound.edgetl")
    write_bundle(path / "blind.edgetl", {"fp32": model(blind=1)})
    half = dataclasses.replace(SPEC, size=48)
    write_bundle(path / "half.edgetl", {"fp32": model(side=8, spec=half)}, spec=half)
    return path


def figures(folder: Path, name: str) -> Baseline:
    return make_baseline(folder / f"{name}.edgetl", data=folder / "set", threads=1, warmup=2, runs=12)


@pytest.fixture(scope="module")
def sound(folder: Path) -> Baseline:
    made = figures(folder, "sound")
    made.save(folder / "baseline.json")
    return baselines.load(folder / "baseline.json")


@pytest.fixture(scope="module")
def failed(folder: Path, sound: Baseline) -> GateReport:
    return compare(sound, figures(folder, "blind"))


def of_scores(report: GateReport) -> dict[str, Verdict]:
    return {check.name: check.verdict for check in report.checks if check.name in ("mAP", "class AP")}


def test_a_baseline_holds_boxes_in_the_pictures_pixels_and_no_place_of_this_machine(
    folder: Path, sound: Baseline
) -> None:
    assert sound.task == TASK
    best, true = sound.accuracy.predictions[0]["boxes"][0], sound.accuracy.truth[0]["boxes"]
    assert np.abs(np.array(true) - best).max(axis=1).min() <= 3
    assert str(folder) not in (folder / "baseline.json").read_text()


def test_a_detector_passes_against_itself_and_one_of_another_input_size(
    folder: Path, sound: Baseline
) -> None:
    for name in ("sound", "half"):
        report = compare(sound, figures(folder, name))
        assert of_scores(report) == {"mAP": Verdict.PASS, "class AP": Verdict.PASS}
        assert report.boxes is not None
        assert report.flips is None
        assert (report.boxes.lost, report.boxes.new) == (0, 0)
    assert "No object was lost or won" in render(report)


def test_a_class_that_is_no_longer_found_fails_and_its_boxes_are_shown(
    folder: Path, failed: GateReport, tmp_path: Path
) -> None:
    assert failed.verdict is Verdict.FAIL
    assert of_scores(failed) == {"mAP": Verdict.FAIL, "class AP": Verdict.FAIL}
    assert from_json(GateReport, json.loads(json.dumps(to_json(failed)))) == failed
    content = json.loads((folder / "set" / "annotations.json").read_text())
    greens = [a for a in content["annotations"] if a["category_id"] == 11]
    assert failed.boxes is not None
    assert (failed.boxes.lost, failed.boxes.won) == (len(greens), 0)
    assert failed.boxes.changed == len({a["image_id"] for a in greens})
    assert {box.label for image in failed.boxes.images for box in image.boxes} == {"green"}
    text = shown(device.gate, failed)
    assert f"{len(greens)} objects lost, 0 won" in text
    failing = failure_text(failed, [check for check in failed.checks if check.name == "class AP"])
    assert re.search(r"class AP +\d+\.\d% +0\.0% +-\d+\.\d points +-10 points +FAILED", failing)
    assert re.search(r"class AP +\d+\.\d% +0\.0% +-\d", text)
    write_page(failed, tmp_path / "gate.html", folder / "set")
    page = (tmp_path / "gate.html").read_text()
    assert page.count('<image href="data:image/jpeg;base64,') == min(18, failed.boxes.changed)
    assert page.count("<title>green: lost</title>") >= 18
    assert all(at.startswith("data:") for at in re.findall(r'(?:src|href)="([^"#][^"]*)"', page))
    assert "<image href" not in render(failed)


def test_boxes_that_moved_make_another_image_set(folder: Path, sound: Baseline, tmp_path: Path) -> None:
    write_set(tmp_path / "set", 24)
    path = tmp_path / "set" / "annotations.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"][0] += 1
    path.write_text(json.dumps(content))
    moved = make_baseline(folder / "sound.edgetl", data=path, threads=1, warmup=2, runs=12)
    with pytest.raises(BaselineError, match="measured on other images"):
        compare(sound, moved)


def test_bundles_of_different_tasks_are_not_compared(folder: Path, tmp_path: Path) -> None:
    pack(contents(tmp_path), tmp_path / "flowers.edgetl")
    with pytest.raises(BaselineError, match="of the task classification, the bundle of detection"):
        gate_against(folder / "sound.edgetl", tmp_path / "flowers.edgetl", data=folder / "set")


def test_a_class_without_boxes_in_the_set_could_be_lost_unseen(folder: Path, tmp_path: Path) -> None:
    write_set(tmp_path / "set", 6)
    path = tmp_path / "set" / "annotations.json"
    content = json.loads(path.read_text())
    content["annotations"] = [a for a in content["annotations"] if a["category_id"] != 12]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="has no images of blue, which the bundle knows"):
        make_baseline(folder / "sound.edgetl", data=path, threads=1, runs=10)


def test_what_became_of_each_box() -> None:
    def found(*rows: tuple[float, int, float]) -> Found:
        return Found(
            boxes=np.array([[x, 0.0, x + 10, 10.0] for x, _, _ in rows]).reshape(-1, 4),
            labels=np.array([label for _, label, _ in rows], dtype=np.int64),
            scores=np.array([score for *_, score in rows]),
        )

    truth = Truth(boxes=found((0, 0, 1), (20, 1, 1), (40, 2, 1)).boxes, labels=np.array([0, 1, 2]))
    # Found before: 0 and 1, and wrongly at 60 and 80; now: 1 and 2, and wrongly at 81 (the same box) and 100.
    before = found((0, 0, 0.9), (21, 1, 0.8), (60, 0, 0.7), (80, 0, 0.6), (100, 0, 0.4))
    after = found((20, 1, 0.8), (41, 2, 0.7), (81, 0, 0.6), (100, 0, 0.5))
    result = turns(["a.png"], [truth], [before], [after], COLOURS, (0.5, 0.5))
    [image] = result.images
    assert [(box.turn, box.box[0], box.label) for box in image.boxes] == [
        (BoxTurn.LOST, 0.0, "red"),
        (BoxTurn.WON, 40.0, "blue"),
        (BoxTurn.NEW, 100.0, "red"),
        (BoxTurn.GONE, 60.0, "red"),
    ]
    assert (result.lost, result.won, result.new, result.gone, result.changed) == (1, 1, 1, 1, 1)
    assert turns(["a.png"], [truth], [before], [before], COLOURS, (0.5, 0.5)).changed == 0
