"""The whole way on a tiny network: end to end, cached, stale only where it must be, and resumed after a kill."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from torch import nn

import edgetl
from edgetl import config, pipeline
from edgetl.bench.stage import model_call
from edgetl.bundle.archive import open_bundle
from edgetl.config import DataConfig, Recipe
from edgetl.data.index import build_index
from edgetl.errors import ConfigError, DataError, EdgetlError, Interrupted, ModelError, UncuttableError
from edgetl.models import checkpoint
from edgetl.models.architecture import Architecture
from edgetl.pipeline import Stage, flow
from edgetl.progress import SILENT, SilentProgress
from edgetl.prune.stage import PruneInputs
from edgetl.records.codec import to_json
from edgetl.records.scores import value
from edgetl.runtime.evaluate import evaluate, evaluate_folder
from edgetl.transfer import stage as transfer
from tests.images import write_set

ALL = tuple(Stage)
DONE = tuple(stage for stage in Stage if stage not in (Stage.PRETRAIN, Stage.ADAPT))
"""What there is to do where nothing is learned before the data."""


def tiny_recipe(source: Path, **changes: dict[str, object]) -> Recipe:
    values: dict[str, dict[str, object]] = {
        "data": {"source": str(source)},
        "preprocess": {"size": 32},
        "train": {
            "backbone": "test_efficientnet",
            "weights": "none",
            "head_epochs": 1,
            "epochs": 2,
            "batch_size": 8,
            "lr": 3e-3,
        },
        "prune": {
            "target_macs": 0.8,
            "start_epochs": 1,
            "steps": 1,
            "recovery_epochs": 1,
            "max_drop": 0.9,
        },
        "distill": {"epochs": 2},
        "quantize": {"images": 12, "max_drop": 0.9},
        "bench": {"threads": 1, "warmup": 2, "runs": 10},
        "bundle": {"max_drop": 0.9, "golden_images": 2},
    }
    for section, extra in changes.items():
        values[section] = {**values.get(section, {}), **extra}
    return config.parse({"name": "tiny", **values})


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("images"), {"train": 12, "val": 4, "test": 4})


@pytest.fixture(scope="module")
def finished(images: Path, tmp_path_factory: pytest.TempPathFactory) -> pipeline.Outcome:
    return pipeline.run(tiny_recipe(images), tmp_path_factory.mktemp("runs") / "tiny")


def model_hashes(run_dir: Path) -> dict[str, str]:
    measured = json.loads((run_dir / "measure" / "stage.json").read_text())["record"]
    return {v["name"]: v["sha256"] for v in measured["variants"]}


def test_a_run_gives_a_bundle_that_predicts(finished: pipeline.Outcome, images: Path) -> None:
    assert tuple(finished.records) == ALL
    assert finished.cached == ()
    assert finished.bundle is not None
    with edgetl.load(finished.bundle, threads=1) as session:
        assert session.labels == ("blue", "green", "red")
        prediction = session.predict(images / "test" / "red" / "000.png")
        assert prediction.label in session.labels
        assert session.verify().passed
        assert session.run(np.zeros((2, 3, 32, 32), np.float32))["logits"].shape == (2, 3)


def test_the_bundle_knows_how_sure_its_variants_are(finished: pipeline.Outcome, images: Path) -> None:
    measured = finished.records[Stage.MEASURE]
    assert finished.bundle is not None
    manifest = open_bundle(finished.bundle).manifest
    for variant in measured.variants:
        [one] = variant.confidence
        assert (one.images, one.temperature, one.split) == (12, 1.0, "test")
        assert one.note.endswith("a temperature needs 20")
        packed = manifest.variant(variant.name)
        assert packed is not None
        assert packed.temperatures == {"logits": 1.0}
        with edgetl.load(finished.bundle, variant=variant.name, threads=1) as session:
            for stated in one.coverage:
                [found] = evaluate_folder(session, images, coverage=stated.asked).coverage
                assert found == stated
        assert [covered.asked for covered in one.coverage] == [0.8, 0.9]
    assert 'id="confidence"' in (finished.run_dir / "report.html").read_text()


def test_one_thread_and_all_are_timed_and_the_better_number_travels(
    finished: pipeline.Outcome, images: Path, tmp_path: Path
) -> None:
    run_dir = shutil.copytree(finished.run_dir, tmp_path / "tiny")
    again = pipeline.run(tiny_recipe(images, bench={"threads": 2}), run_dir)
    assert again.bundle is not None
    measured, manifest = again.records[Stage.MEASURE], open_bundle(again.bundle).manifest
    assert {measured.teacher_latency.threads, measured.teacher_other_latency.threads} == {1, 2}
    for variant in measured.variants:
        packed = manifest.variant(variant.name)
        assert packed is not None
        better, other = variant.latency.threads, variant.other_latency.threads
        assert {better, other} == {1, 2}
        assert (packed.latency.threads, packed.other_latency.threads) == (better, other)
    with edgetl.load(again.bundle) as session:
        assert session.backend.threads == session.variant.latency.threads


def test_a_run_leaves_its_report_and_the_lock_file(finished: pipeline.Outcome) -> None:
    lock = finished.run_dir / "recipe.lock.toml"
    again = config.load(lock)
    assert again.preprocess.mean is not None
    assert "temperature = 2.0" in lock.read_text()
    report = json.loads((finished.run_dir / "report.json").read_text())
    assert report["name"] == "tiny"
    assert (finished.run_dir / "report.html").read_text().startswith("<!doctype html>")
    assert (finished.run_dir / "model-card.md").read_text().startswith("# tiny\n")
    bill = json.loads((finished.run_dir / "tiny.cdx.json").read_text())
    assert bill["metadata"]["component"]["hashes"][0]["content"] == report["bundle"]["sha256"]


def test_every_setting_of_preprocessing_reaches_the_models(tmp_path: Path) -> None:
    asked = {
        "size": 48,
        "resize": "squash",
        "crop_fraction": 0.8,
        "interpolation": "lanczos",
        "decoding": "fast",
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "window": [1.0, 2.0],
    }
    assert asked.keys() == config.PreprocessConfig.model_fields.keys()
    recipe = tiny_recipe(tmp_path, preprocess=asked)
    run = flow.Run(recipe, tmp_path / "run", SILENT)
    assert to_json(run.spec).items() >= asked.items()
    assert run.student_spec == run.spec
    suggested = to_json(transfer._spec(recipe.preprocess, 48, None))
    assert {name for name in asked if suggested[name] != asked[name]} == {"mean", "std"}  # the backbone's own


def test_a_second_run_redoes_nothing(finished: pipeline.Outcome, images: Path) -> None:
    page = finished.run_dir / "report.html"
    report = page.read_text()
    again = pipeline.run(tiny_recipe(images), finished.run_dir)
    assert again.cached == DONE
    assert "<title>tiny: edgetl report</title>" in report
    assert "<title>tiny: edgetl report</title>" in page.read_text()


def test_only_stale_stages_are_redone(finished: pipeline.Outcome, images: Path) -> None:
    changed = pipeline.run(tiny_recipe(images, quantize={"images": 9}), finished.run_dir)
    assert changed.cached == (Stage.DATA, Stage.TRAIN, Stage.PRUNE, Stage.DISTILL, Stage.EXPORT)


def test_the_bundle_holds_what_its_variants_make_of_known_images(
    finished: pipeline.Outcome, images: Path
) -> None:
    assert finished.bundle is not None
    bundle = open_bundle(finished.bundle)
    for variant in bundle.manifest.variants:
        with edgetl.load(bundle.path, variant=variant.name, threads=1) as session:
            known = session.known_images("unknown")
            found = session.embedding(images / "val" / "red" / "000.png")
        assert known.counts.tolist() == [12, 12, 12]
        assert len(known.validation) == 12
        assert np.abs(known.validation - found).max(axis=1).min() < 0.02 * np.abs(found).max()


def test_variants_that_normalise_inside_are_measured_and_packed_too(
    finished: pipeline.Outcome, images: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished.run_dir, tmp_path / "tiny")
    outcome = pipeline.run(tiny_recipe(images, export={"uint8_input": True}), tmp_path / "tiny")
    assert outcome.cached[:4] == (Stage.DATA, Stage.TRAIN, Stage.PRUNE, Stage.DISTILL)
    assert outcome.bundle is not None
    names = [
        f"{name}{ending}"
        for ending in ("", "-uint8")
        for name in ("fp32", "fp32-half-weights", "int8-cpu-x86", "fp32-int8-weights")
    ]
    manifest = open_bundle(outcome.bundle).manifest
    assert [v.name for v in manifest.variants] == names
    scores = {v.name: value(v.val, "top1") for v in manifest.variants if v.val}
    assert scores["fp32-uint8"] == scores["fp32"]
    picture = images / "test" / "red" / "000.png"
    with (
        edgetl.load(outcome.bundle, variant="fp32-uint8") as inside,
        edgetl.load(finished.bundle or "") as outside,
    ):
        assert inside.verify().passed
        assert inside.predict(picture).label == outside.predict(picture).label
        timed = model_call(inside, [picture.read_bytes()], 2)()
        assert timed["logits"].shape == (2, 3)


def test_an_altered_output_is_made_again(finished: pipeline.Outcome, images: Path) -> None:
    before = pipeline.run(tiny_recipe(images), finished.run_dir)
    exported = finished.run_dir / before.records[Stage.EXPORT].onnx
    exported.write_bytes(exported.read_bytes() + b"x")
    again = pipeline.run(tiny_recipe(images), finished.run_dir)
    assert Stage.EXPORT not in again.cached
    assert Stage.DISTILL in again.cached
    assert model_hashes(again.run_dir) == model_hashes(before.run_dir)


def test_unlabelled_images_make_distillation_stale_where_their_contents_change(
    finished: pipeline.Outcome, images: Path, tmp_path: Path
) -> None:
    runs = shutil.copytree(finished.run_dir, tmp_path / "tiny")
    photos = write_set(tmp_path, {"photos": 2}, seed=5) / "photos"
    shutil.copy(images / "val" / "red" / "000.png", photos / "leak.png")
    recipe = tiny_recipe(images, distill={"unlabelled": str(photos), "epochs": 1})
    first = (Stage.DATA, Stage.TRAIN, Stage.PRUNE)

    def run() -> pipeline.Outcome:
        return pipeline.run(recipe, runs, until=Stage.DISTILL)

    begun = run()
    assert begun.cached == first
    assert begun.records[Stage.DISTILL].unlabelled == 6
    (photos / "red" / "000.png").rename(photos / "moved.png")
    assert run().cached == (*first, Stage.DISTILL)
    shutil.copy(images / "train" / "red" / "000.png", photos / "another.png")
    changed = run()
    assert changed.cached == first
    assert changed.records[Stage.DISTILL].unlabelled == 7


def test_missing_unlabelled_images_are_told_before_anything_is_trained(images: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(images, distill={"unlabelled": str(tmp_path / "gone")})
    with pytest.raises(DataError, match=r"distill\.unlabelled: .*gone does not exist"):
        pipeline.run(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "train").exists()


def test_a_finished_run_is_not_overwritten_by_another_data_set_of_the_same_name(tmp_path: Path) -> None:
    for parent in "ab":
        write_set(tmp_path / parent / "photos", {"train": 8, "val": 3, "test": 3}, side=24)
    mine, other = (tiny_recipe(tmp_path / parent / "photos") for parent in "ab")
    out = tmp_path / "runs" / "photos"
    pipeline.run(mine, out, until=Stage.DATA)
    pipeline.run(other, out, until=Stage.DATA)  # nothing was trained yet
    pipeline.run(mine, out, until=Stage.DATA)
    (out / "train").mkdir()
    (out / "train" / "stage.json").write_text("{}")
    before = (out / "recipe.lock.toml").read_text()
    for going in (lambda: pipeline.run(other, out), lambda: pipeline.cross_validate(other, out, 2)):
        with pytest.raises(
            ConfigError, match=r"holds a finished run of another data set, .*a/photos; .*--out"
        ):
            going()
    assert (out / "recipe.lock.toml").read_text() == before
    assert pipeline.run(mine, out, until=Stage.DATA).cached == (Stage.DATA,)
    (tmp_path / "a" / "photos").rename(tmp_path / "a" / "moved")  # the same images at another place may go on
    assert pipeline.other_source(out, str(tmp_path / "a" / "moved")) is None


def test_a_stage_can_be_the_last(images: Path, tmp_path: Path) -> None:
    outcome = pipeline.run(tiny_recipe(images), tmp_path, until=Stage.DATA)
    assert tuple(outcome.records) == (Stage.DATA,)
    assert outcome.bundle is None
    assert outcome.report is None
    page = (tmp_path / "report.html").read_text()
    assert "Done up to data, as asked for." in page
    assert " images of 3 classes" in page


def test_a_stopped_run_says_so_on_its_page(images: Path, tmp_path: Path) -> None:
    class Impatient(SilentProgress):
        def message(self, text: str) -> None:
            if text.startswith("full 1/"):
                assert "Stage 3 of 3, train, since" in (tmp_path / "report.html").read_text()
                raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        pipeline.run(tiny_recipe(images), tmp_path, until=Stage.TRAIN, progress=Impatient())
    page = (tmp_path / "report.html").read_text()
    assert "The run was stopped: Stopped in epoch" in page
    assert "location.reload" not in page


def test_another_backbone_can_be_the_student(images: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(images, distill={"student": "test_resnet", "weights": "none", "epochs": 1})
    outcome = pipeline.run(recipe, tmp_path, until=Stage.EXPORT)
    assert outcome.records[Stage.PRUNE] is None
    assert outcome.records[Stage.DISTILL].backbone == "test_resnet"


@pytest.mark.parametrize(("section", "key"), [("prune", "network"), ("distill", "student")])
def test_a_wrong_student_is_told_before_the_teacher_is_trained(
    section: str, key: str, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="No backbone is called 'resnet_18x'"):
        pipeline.run(tiny_recipe(images, **{section: {key: "resnet_18x"}}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"prune": {"target_macs": 0.001}},
            r"cannot be cut to 0\.1% .* the best reachable is .* smaller prune\.round_to",
        ),
        ({"prune": {"target_parameters": 0.001}}, r"and 0\.1% of its parameters: .* the best reachable is"),
        ({"prune": {"keep": ["no.such.layer"]}}, r"no\.such\.layer"),
        ({"prune": {"network": "torchvision/mobilenet_v2"}}, r"mobilenet_v2"),
        ({"distill": {"teachers": ["nothing.safetensors"]}}, r"nothing\.safetensors"),
        ({"distill": {"mix": "cutmix", "loss": "dkd"}}, r"dkd"),
        ({"distill": {"student": "torchvision/mobilenet_v2"}}, r"mobilenet_v2"),
        (
            {"quantize": {"target": "litert"}, "export": {"dynamic_size": True}},
            r"\.tflite file has fixed sizes",
        ),
    ],
    ids=["macs", "parameters", "keep", "network", "teacher", "mixing", "student", "litert"],
)
def test_what_stops_a_later_stage_is_said_before_anything_is_trained(
    images: Path, tmp_path: Path, changes: dict[str, dict[str, object]], said: str
) -> None:
    with pytest.raises(EdgetlError, match=said):
        pipeline.run(tiny_recipe(images, **changes), tmp_path)
    assert not (tmp_path / "train" / "stage.json").exists()


def test_a_teacher_that_cannot_be_cut_is_said_before_it_is_trained(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    class Listening(SilentProgress):
        def message(self, text: str) -> None:
            order.append(text)

    def refuse(*_: object, **__: object) -> None:
        raise UncuttableError("Net cannot be traced for pruning at 1: not today.")

    monkeypatch.setattr("edgetl.prune.stage.trace", refuse)
    pipeline.run(tiny_recipe(images), tmp_path, until=Stage.TRAIN, progress=Listening())
    assert not any("cannot be traced" in text for text in order)  # nothing is asked of training alone
    shutil.rmtree(tmp_path / "train")
    pipeline.run(tiny_recipe(images), tmp_path, until=Stage.PRUNE, progress=Listening())
    said = next(n for n, text in enumerate(order) if "shipped whole: Net cannot be traced" in text)
    assert said < max(n for n, text in enumerate(order) if text.startswith("full "))


@pytest.mark.parametrize(("target", "alignment"), [("cpu-x86", 16), ("cpu-arm", 8)])
def test_channels_are_aligned_for_the_target(
    finished: pipeline.Outcome,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    alignment: int,
) -> None:
    seen: list[int] = []

    def stop(config: object, inputs: PruneInputs, **_: object) -> None:
        seen.append(inputs.alignment)
        raise ModelError("far enough")

    shutil.copytree(finished.run_dir, tmp_path / "tiny")
    monkeypatch.setattr("edgetl.prune.stage.run", stop)
    recipe = tiny_recipe(images, prune={"recovery_epochs": 2}, quantize={"target": target})
    with pytest.raises(ModelError, match="far enough"):
        pipeline.run(recipe, tmp_path / "tiny")
    assert seen == [alignment]


def test_a_student_of_a_smaller_input_size_ships_at_that_size(images: Path, tmp_path: Path) -> None:
    for_litert = find_spec("ai_edge_litert") is not None
    targets = ["cpu-x86", *(["litert"] if for_litert else [])]
    recipe = tiny_recipe(images, distill={"size": 24}, quantize={"target": targets})
    outcome = pipeline.run(recipe, tmp_path)
    records = outcome.records
    teacher, student = records[Stage.TRAIN], records[Stage.DISTILL]
    assert [s.step for s in records[Stage.PRUNE].steps] == [0, 1]
    assert records[Stage.PRUNE].before.macs < teacher.size.macs
    assert student.size.macs == records[Stage.PRUNE].after.macs
    assert outcome.bundle is not None
    assert open_bundle(outcome.bundle).manifest.preprocess.size == 24
    with edgetl.load(outcome.bundle, threads=1) as session:
        assert session.verify().passed
        assert session.run(np.zeros((2, 3, 24, 24), np.float32))["logits"].shape == (2, 3)
        scored = evaluate(session, build_index(DataConfig(source=str(images))).split("test"))
    measured = {v.name: v.test for v in records[Stage.MEASURE].variants}
    assert scored.detail == measured[records[Stage.MEASURE].default].detail
    if for_litert:
        assert {"fp32-litert", "fp32-litert-half-weights", "int8-litert"} <= set(measured)
        assert measured["fp32-litert"].scores["top1"] == measured["fp32"].scores["top1"]
        assert "litert" not in records[Stage.MEASURE].default  # a device may lack it
    assert "input size" in (tmp_path / "report.html").read_text()
    again = pipeline.run(recipe, tmp_path)
    assert again.cached == DONE


def test_the_latency_baseline_stays_at_the_teachers_size(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []
    loaded = checkpoint.load

    def spy(path: Path) -> tuple[nn.Module, Architecture]:
        model, architecture = loaded(path)
        if path.name == "teacher.safetensors":
            model.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape)))
        return model, architecture

    recipe = tiny_recipe(images, distill={"size": 24}, prune={"enabled": False}, quantize={"enabled": False})
    pipeline.run(recipe, tmp_path, until=Stage.EXPORT)
    monkeypatch.setattr(checkpoint, "load", spy)
    pipeline.run(recipe, tmp_path, until=Stage.MEASURE)
    assert set(seen) == {(1, 3, 32, 32)}


RUN = """
import sys
from pathlib import Path
from edgetl import config, pipeline
recipe = config.load(Path(sys.argv[1]))
pipeline.run(recipe, Path(sys.argv[2]))
"""


def test_killed_in_every_stage_that_trains_it_ends_with_the_same_models(
    finished: pipeline.Outcome, images: Path, tmp_path: Path
) -> None:
    pipeline.run(tiny_recipe(images), finished.run_dir)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(config.dump(tiny_recipe(images)))
    run_dir = tmp_path / "run"
    for stage in (run_dir / name for name in ("train", "prune", "distill")):
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(recipe), str(run_dir)], stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 600
        while not any(stage.glob("*.state")) and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert any(stage.glob("*.state")), "it was to be killed in the middle of the stage"
        assert not (stage / "stage.json").exists()
    resumed = pipeline.run(tiny_recipe(images), run_dir)
    assert model_hashes(resumed.run_dir) == model_hashes(finished.run_dir)
