"""A detector's bundle on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgetl.bundle.pack import pack
from edgetl.deploy.serving import ServeOptions, write_onnx, write_triton
from edgetl.errors import ModelError
from edgetl.inputs.image import load_pixels
from edgetl.runtime import load
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from edgetl.tasks.detection.answers import Detections
from tests.bundles import contents
from tests.cli.typed import edgetl
from tests.squares import SPEC, drawn, encoded, model, squares, write_bundle, write_set


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("squares")
    write_bundle(path / "squares.edgetl")
    write_set(path / "set", 4)
    return path


def test_predict_shows_a_row_a_box(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a long path would take several lines
    (tmp_path / "black.png").write_bytes(encoded(drawn([])))
    (tmp_path / "some.png").write_bytes(encoded(drawn(squares(5))))
    done = edgetl("predict", folder / "squares.edgetl", ".", "--threads", 1)
    assert done.returncode == 0, done.stderr
    head, _, black, *rows = done.stdout.splitlines()
    assert head.split() == ["image", "label", "score", "x1", "y1", "x2", "y2"]
    assert black.split()[1:] == ["nothing"]
    assert len([row for row in rows if row]) == len(squares(5))


def test_predict_as_json_and_in_coco_s_form(folder: Path) -> None:
    found = edgetl("predict", folder / "squares.edgetl", folder / "set", "--json", "--threads", 1)
    first = json.loads(found.stdout)[0]["prediction"]
    assert set(first) == {"items", "width", "height"}
    assert set(first["items"][0]) == {"box", "label", "index", "score"}
    annotations = folder / "set" / "annotations.json"
    coco = edgetl("predict", folder / "squares.edgetl", folder / "set", "--coco", annotations, "--threads", 1)
    rows = json.loads(coco.stdout)
    assert len(rows) == sum(len(one["prediction"]["items"]) for one in json.loads(found.stdout))
    assert set(rows[0]) == {"image_id", "category_id", "bbox", "score"}
    both = edgetl("predict", folder / "squares.edgetl", folder / "set", "--coco", annotations, "--json")
    assert both.returncode == 2


def test_predict_saves_pictures(folder: Path, tmp_path: Path) -> None:
    done = edgetl("predict", folder / "squares.edgetl", folder / "set", "--save", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").glob("*.jpg"))) == 4


@pytest.mark.parametrize("threshold", ["0", "1", "1.5"])
def test_a_threshold_that_cannot_be_ends_with_one_sentence(folder: Path, threshold: str) -> None:
    done = edgetl("predict", folder / "squares.edgetl", folder / "set", "--threshold", threshold)
    assert done.returncode == 2
    assert "expected a score above 0 and below 1" in done.stderr
    assert "Traceback" not in done.stderr


def test_options_of_detectors_are_refused_for_other_tasks(folder: Path, tmp_path: Path) -> None:
    pack(contents(tmp_path), tmp_path / "flowers.edgetl")
    for option in (("--threshold", 0.5), ("--coco", folder / "set" / "annotations.json")):
        done = edgetl("predict", tmp_path / "flowers.edgetl", folder / "set", *option)
        assert done.returncode == 2
        assert "of the task classification" in done.stderr


def test_eval_verify_info_bench_and_tune(folder: Path) -> None:
    scored = edgetl("eval", folder / "squares.edgetl", folder / "set", "--threads", 1)
    assert scored.returncode == 0, scored.stderr
    assert "mAP50" in scored.stdout
    assert "wrong place" in scored.stdout
    values = json.loads(edgetl("eval", folder / "squares.edgetl", folder / "set", "--json").stdout)
    assert values["detail"]["kind"] == "detection"
    assert edgetl("verify", folder / "squares.edgetl").returncode == 0
    shown = edgetl("info", folder / "squares.edgetl")
    assert shown.returncode == 0, shown.stderr
    assert "detection" in shown.stdout
    assert "0.50" in shown.stdout  # the threshold
    bench = edgetl("bench", folder / "squares.edgetl", "--runs", 10, "--threads", 1, "--json")
    assert bench.returncode == 0, bench.stderr
    assert json.loads(bench.stdout)["end_to_end"]["p50_ms"] > 0


def test_baseline_and_gate_from_the_command_line(folder: Path, tmp_path: Path) -> None:
    data = write_set(tmp_path / "set", 24)
    write_bundle(tmp_path / "blind.edgetl", {"fp32": model(blind=1)})
    kept = ("--data", data, "--threads", 1)
    made = edgetl("baseline", folder / "squares.edgetl", "-o", tmp_path / "b.json", *kept, "--runs", 20)
    assert made.returncode == 0, made.stderr
    page = tmp_path / "gate.html"
    done = edgetl(
        "gate", tmp_path / "blind.edgetl", "--baseline", tmp_path / "b.json", *kept, "--report", page
    )
    assert done.returncode == 1, done.stderr
    assert "green" in done.stdout
    assert "<svg" in page.read_text()


def test_tune_tries_every_variant_and_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGETL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("edgetl.bench.tune.PAUSE_S", 0.0)
    bundle = write_bundle(tmp_path / "b.edgetl", {"fp32": model(), "fp32-again": model()})
    done = edgetl("tune", bundle, "--threads", 1, "--seconds", 1, "--json")
    assert done.returncode == 0, done.stderr
    trials = json.loads(done.stdout)["trials"]
    assert [t["note"] for t in trials if t["outcome"] in ("failed", "wrong")] == []
    assert {t["variant"] for t in trials if t["target"] == "cpu"} == {"fp32", "fp32-again"}
    assert [t["outcome"] for t in trials].count("chosen") == 1


def test_the_model_of_a_detector_for_other_runtimes(folder: Path, tmp_path: Path) -> None:
    bundle = folder / "squares.edgetl"
    record = write_triton(bundle, ServeOptions(), tmp_path / "models")
    text = (Path(record.path) / "config.pbtxt").read_text()
    assert '"boxes"' in text
    assert '"scores"' in text
    assert (Path(record.path) / "labels.txt").read_text().split() == ["red", "green", "blue"]
    pixels = np.asarray(load_pixels(encoded(drawn(squares(5))), SPEC))[None]
    write_onnx(bundle, ServeOptions(uint8=True), tmp_path / "m.onnx")
    with load(bundle, threads=1) as session, OnnxBackend(tmp_path / "m.onnx", threads=1) as backend:
        expected, found = session.run(pixels), backend.run(pixels)
    assert found["scores"] == pytest.approx(expected["scores"], abs=1e-4)
    assert found["boxes"] == pytest.approx(expected["boxes"], abs=1e-3)
    with pytest.raises(ModelError, match="A detector puts out boxes and scores"):
        write_onnx(bundle, ServeOptions(softmax=True), tmp_path / "n.onnx")


def test_every_engine_that_is_here_gives_the_same_boxes(folder: Path) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install openvino")
    pictures = [encoded(drawn(squares(seed))) for seed in range(6)]
    found = []
    for target in ("cpu", "openvino"):
        with load(folder / "squares.edgetl", threads=2, target=target) as session:
            answers = session.predict(pictures)
            assert answers == [session.predict(picture) for picture in pictures]
            assert session.verify().passed
            found.append(answers)
    for first, second in zip(*found, strict=True):
        assert isinstance(first, Detections)
        assert isinstance(second, Detections)
        rows = [sorted((*item.box, item.score) for item in one.items) for one in (first, second)]
        assert np.array(rows[0]) == pytest.approx(np.array(rows[1]), abs=1e-2)
