"""The commands as a user types them: exit codes, messages, `--json` alone on standard output."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

from edgetl import config
from edgetl._version import BUNDLE_SCHEMA, __version__
from edgetl.bundle.manifest import Precision
from edgetl.cli import app
from edgetl.deploy import parity
from tests.cli.typed import edgetl, hears_ctrl_c
from tests.images import write_set
from tests.test_pipeline import tiny_recipe


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("images"), {"train": 12, "val": 4, "test": 4})


@pytest.fixture(scope="module")
def recipe(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipes") / "recipe.toml"
    path.write_text(config.dump(tiny_recipe(images)))
    return path


@pytest.fixture(scope="module")
def run_dir(recipe: Path) -> Path:
    folder = recipe.parent / "run"
    done = edgetl("run", recipe, "--out", folder, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["name"] == "tiny"
    return folder


def _commands() -> dict[str, str]:
    group = typer.main.get_command(app)
    found = {}
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        for inner, sub in getattr(command, "commands", {"": command}).items():
            found[f"{name} {inner}".strip()] = sub.epilog or ""
    return found


def test_the_version_is_told() -> None:
    done = edgetl("--version")
    schema = f"bundle schema {BUNDLE_SCHEMA}; what changed: edgetl guide changelog"
    assert (done.returncode, done.stdout) == (0, f"edgetl {__version__}\n{schema}\n")


def test_every_command_shows_an_example() -> None:
    commands = _commands()
    assert len(commands) == 48
    assert [name for name, text in commands.items() if not text.startswith(f"Example: edgetl {name}")] == []


def test_a_wrong_command_and_a_wrong_option_suggest_the_right_one() -> None:
    wrong = edgetl("quantise", "recipe.toml")
    assert wrong.returncode == 2
    assert "Did you mean 'quantize'" in wrong.stderr
    wrong = edgetl("run", "recipe.toml", "--ouut", "x")
    assert wrong.returncode == 2
    assert "--out" in wrong.stderr


def test_a_missing_recipe_names_the_remedy(tmp_path: Path) -> None:
    done = edgetl("run", tmp_path / "no.toml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"Error: No recipe at {tmp_path}/no.toml. Write one with: edgetl init DATA_DIR -o {tmp_path}/no.toml\n"
    )


def test_all_the_recipe_s_errors_come_at_once(tmp_path: Path, images: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(f'[data]\nsuorce = "{images}"\n[train]\nepochs = -1\n')
    done = edgetl("run", path, "--set", "prune.target_mac=0.5")
    assert done.returncode == 2
    assert "data.suorce: no such key. Did you mean data.source?" in done.stderr
    assert "train.epochs: input should be greater than or equal to 1, got -1." in done.stderr
    assert "prune.target_mac: no such key. Did you mean prune.target?" in done.stderr
    assert "Traceback" not in done.stderr


def test_init_writes_a_recipe_that_loads(images: Path, tmp_path: Path) -> None:
    path = tmp_path / "my recipe.toml"
    done = edgetl("init", images, "-o", path)
    assert done.returncode == 0, done.stderr
    assert "36 training images, 3 classes, median side 40 px" in done.stdout
    loaded = config.load(path)
    assert loaded.data.source == str(images)
    assert loaded.preprocess.size == 64
    assert "# Chosen: the images are small (40 px)" in path.read_text()
    again = edgetl("init", images, "-o", path)
    assert again.returncode == 2
    assert "overwrite it with --force" in again.stderr
    assert "golden_images" not in path.read_text()
    assert edgetl("init", images, "-o", path, "--force", "--full").returncode == 0
    assert config.load(path) == loaded
    assert "# golden_images = 8\n" in path.read_text()


def test_init_proposes_a_window_and_data_check_says_where_a_set_leaves_it(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for label in ("bar", "spot"):
        (tmp_path / "set" / label).mkdir(parents=True)
        for number in range(8):
            values = generator.normal(21_500, 100, (40, 40)).astype(np.uint16)
            Image.fromarray(values).save(tmp_path / "set" / label / f"{number}.png")
    done = edgetl("init", tmp_path / "set", "-o", tmp_path / "r.toml")
    low, high = config.load(tmp_path / "r.toml").preprocess.window or (0, 0)
    assert 21_000 < low < 21_300 < 21_700 < high < 22_000
    assert "preprocess.window = " in done.stdout
    problems = json.loads(edgetl("data", "check", tmp_path / "set", "--json").stdout)["problems"]
    assert any(p.endswith(f"set preprocess.window = [{low:.0f}, {high:.0f}].") for p in problems)
    narrow = edgetl("data", "check", tmp_path / "set", "--window", "21500", "21900", "--json")
    assert any("outside the window [21500, 21900]" in p for p in json.loads(narrow.stdout)["problems"])
    recipe = '[data]\nsource = "set"\n[preprocess]\nwindow = [21500, 21900]\n'
    (tmp_path / "narrow.toml").write_text(recipe)
    asked = edgetl("data", "check", tmp_path / "narrow.toml", "--json")
    assert json.loads(asked.stdout)["problems"] == json.loads(narrow.stdout)["problems"]
    wrong = edgetl("data", "check", tmp_path / "set", "--window", "9", "9")
    assert (wrong.returncode, "expected two finite numbers, low below high" in wrong.stderr) == (2, True)


def test_data_check_counts_what_is_wrong(images: Path, tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", {"train": 6, "val": 2, "test": 2})
    (folder / "train" / "red" / "bad.png").write_bytes(b"")
    (folder / "test" / "red" / "copy.png").write_bytes((folder / "train" / "red" / "000.png").read_bytes())
    done = edgetl("data", "check", folder, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert any("bad.png" in str(item) for item in report["skipped"])
    assert report["leaks"] == [["train/red/000.png", "test/red/copy.png"]]
    assert any("in more than one split" in problem for problem in report["problems"])


def test_data_check_reads_the_labels_as_a_recipe_asks(tmp_path: Path) -> None:
    rows = ["path,label,marks"]
    for at in range(24):
        pixels = np.random.default_rng(at).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{at}.png")
        rows.append(f"{at}.png,{'ab'[at % 2]},{('none', 'dot', 'dot|line')[at % 3]}")
    (tmp_path / "set.csv").write_text("\n".join(rows))
    heads = '{kind = {column = "label"}, marks = {kind = "multilabel", column = "marks"}}'
    (tmp_path / "r.toml").write_text(
        f'[data]\nsource = "set.csv"\n[task]\nkind = "multihead"\nheads = {heads}\n'
    )
    plain, asked = (
        json.loads(edgetl("data", "check", tmp_path / name, "--json").stdout)
        for name in ("set.csv", "r.toml")
    )
    assert set(plain["counts"]["train"]) == {"a", "b"}
    assert set(asked["counts"]["train"]) == {"kind/a", "kind/b", "marks/dot", "marks/line"}
    missing = edgetl("data", "check", tmp_path / "none.toml")
    assert (missing.returncode, "No recipe at" in missing.stderr) == (2, True)


def test_the_device_s_commands_from_one_bundle(run_dir: Path, images: Path) -> None:
    bundle = run_dir / "tiny.edgetl"
    assert json.loads(edgetl("info", bundle, "--json").stdout)["name"] == "tiny"
    assert json.loads(edgetl("verify", bundle, "--json").stdout)["passed"] is True
    results = json.loads(
        edgetl("predict", bundle, images / "test", "--limit", "2", "--top", "2", "--json").stdout
    )
    assert [len(r["prediction"]["top"]) for r in results] == [2, 2]
    assert json.loads(edgetl("eval", bundle, images, "--json").stdout)["images"] == 12
    assert "TensorRT-RTX" in edgetl("doctor").stdout


def test_what_runs_is_said_on_standard_error(run_dir: Path, images: Path) -> None:
    bundle = run_dir / "tiny.edgetl"
    for command in (("predict", bundle, images / "test", "--limit", "1"), ("info", bundle)):
        stated = edgetl(*command).stderr
        assert " on cpu: " in stated
        assert "is the bundle's default: " in stated
    assert json.loads(edgetl("bench", bundle, "--runs", "10", "--json").stdout)["variant"]
    lacking = edgetl("predict", bundle, images / "test", "--precision", "fp8")
    assert lacking.returncode == 2
    assert "has no variant in fp8 made for any or cpu or cpu-" in lacking.stderr
    wrong = edgetl("verify", bundle, "--target", "gpu")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "target: got 'gpu', expected one of auto, cpu, cuda" in wrong.stderr


def test_benchmarks_are_kept_and_their_trend_is_shown(run_dir: Path, tmp_path: Path) -> None:
    bundle, kept, page = run_dir / "tiny.edgetl", tmp_path / "h.sqlite", tmp_path / "trend.html"
    done = edgetl("bench", bundle, "--runs", "10", "--profile", "--roofline", "--history", kept, "--json")
    assert done.returncode == 0, done.stderr
    assert f"Added to {kept}" in done.stderr
    measured = json.loads(done.stdout)
    assert any("Conv" in each["operator"] for each in measured["profile"]["operators"])
    assert measured["roofline"]["of_peak"] > 0
    assert len(measured["roofline"]["layers"]) == len(measured["profile"]["layers"])
    [trend] = json.loads(edgetl("history", kept, "--html", page, "--json").stdout)["trends"]
    assert (trend["name"], trend["variant"]) == ("tiny", measured["variant"])
    assert [run["p50_ms"] for run in trend["runs"]] == [measured["latency"]["p50_ms"]]
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "tiny, variant" in edgetl("history", kept).stdout
    for arguments, message in (
        (("history", tmp_path / "gone"), "There is no history at"),
        (("bench", bundle, "--pin", "a"), "--pin: got 'a', expected cores such as 0,1 or 2-3"),
        (("bench", bundle, "--runs", "10", "--history", bundle), "is not a history, or a damaged one"),
    ):
        wrong = edgetl(*arguments)
        assert wrong.returncode == 2
        assert message in wrong.stderr


def test_predictions_come_line_by_line(run_dir: Path, images: Path) -> None:
    bundle = run_dir / "tiny.edgetl"
    done = edgetl("predict", bundle, images / "test" / "*" / "*.png", "--json-lines")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 12
    assert all(line["prediction"]["label"] for line in lines)
    endless = edgetl("predict", bundle, "camera:0")
    assert endless.returncode == 2
    assert "give --json-lines, or --limit" in endless.stderr


def test_raw_frames_on_standard_input(run_dir: Path) -> None:
    command = [sys.executable, "-m", "edgetl", "predict", str(run_dir / "tiny.edgetl"), "-"]
    command += ["--frame-size", "40x30", "--json-lines"]
    done = subprocess.run(command, input=bytes(range(200)) * 54, capture_output=True, check=True)
    assert [json.loads(line)["path"] for line in done.stdout.splitlines()] == [
        "frame#0",
        "frame#1",
        "frame#2",
    ]


def test_a_required_signature_is_held_by_every_command(run_dir: Path, images: Path, tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="signatures need: pip install cryptography")
    key, signed, unsigned = tmp_path / "k.pem", tmp_path / "s.edgetl", run_dir / "tiny.edgetl"
    made = json.loads(edgetl("keygen", key, "--json").stdout)
    assert made["public"] == f"{key}.pub"
    assert edgetl("keygen", key).returncode == 2
    done = edgetl("sign", unsigned, "--key", key, "-o", signed)
    assert done.returncode == 0
    assert signed.is_file()
    baseline = tmp_path / "baseline.json"
    commands = {
        "verify": (),
        "predict": (images / "test",),
        "eval": (images,),
        "bench": ("--runs", "10"),
        "baseline": ("-o", baseline),
        "gate": ("--baseline", baseline, "--max-latency-increase", "99"),
    }
    for name, more in commands.items():
        good = edgetl(name, signed, *more, "--require-signature", f"{key}.pub")
        assert good.returncode == 0, (name, good.stderr)
        bad = edgetl(name, unsigned, *more, "--require-signature", f"{key}.pub")
        assert bad.returncode == 2, name
        assert "is not signed" in bad.stderr


def test_doctor_lists_what_the_device_s_install_brings() -> None:
    checkup = json.loads(edgetl("doctor", "--json").stdout)
    found = {package["name"]: package["size_bytes"] for package in checkup["install"]}
    assert {"numpy", "pillow", "typer", "rich", "onnxruntime"} <= found.keys()
    assert not found.keys() & {"torch", "torchvision", "timm", "onnx", "scikit-learn"}
    assert found["numpy"] > 1_000_000
    assert "the device's install" in edgetl("doctor").stdout


def test_a_gate_passes_against_itself_and_fails_with_a_table(run_dir: Path, tmp_path: Path) -> None:
    bundle = run_dir / "tiny.edgetl"
    kept = tmp_path / "baseline.json"
    assert edgetl("baseline", bundle, "-o", kept).returncode == 0
    wide = ("--max-latency-increase", "99")
    assert edgetl("gate", bundle, "--baseline", kept, *wide).returncode == 0
    stored = json.loads(kept.read_text())
    stored["size_bytes"] //= 2
    kept.write_text(json.dumps(stored))
    page = tmp_path / "gate.html"
    failed = edgetl("gate", bundle, "--baseline", kept, *wide, "--report", page)
    assert failed.returncode == 1
    assert "Worse than allowed: size." in page.read_text(encoding="utf-8")
    assert "size" in failed.stdout
    assert "+100" in failed.stdout


def test_a_gate_that_cannot_tell_has_its_own_exit_code(run_dir: Path) -> None:
    bundle = run_dir / "tiny.edgetl"
    unsure = edgetl("gate", bundle, "--against", bundle, "--seconds", "0.05")
    assert unsure.returncode == 3, unsure.stdout + unsure.stderr
    assert "CANNOT TELL" in unsure.stdout
    assert "Gate cannot tell: latency" in unsure.stdout
    stated = edgetl("gate", bundle, "--against", bundle, "--seconds", "0.05", "--json")
    assert stated.returncode == 3
    report = json.loads(stated.stdout)
    assert (report["verdict"], report["passed"]) == ("unsure", False)
    assert report["trial"]["rounds"] >= 1
    assert len(report["trial"]["baseline_ms"]) == len(report["trial"]["current_ms"]) > 0
    none = edgetl("gate", bundle, "--against", bundle, "--seconds", "0")
    assert none.returncode == 2
    assert "seconds is 0.0, expected more than 0." in none.stderr


def test_a_gate_without_a_baseline_is_an_error_not_a_pass(run_dir: Path, tmp_path: Path) -> None:
    assert edgetl("gate", run_dir / "tiny.edgetl", "--baseline", tmp_path / "none.json").returncode == 2
    neither = edgetl("gate", run_dir / "tiny.edgetl")
    assert neither.returncode == 2
    assert "--against" in neither.stderr


def test_a_baseline_of_no_runs_is_refused(run_dir: Path, tmp_path: Path) -> None:
    none = edgetl("baseline", run_dir / "tiny.edgetl", "--runs", "0", "-o", tmp_path / "none.json")
    assert none.returncode == 2
    assert "greater than or equal to 1" in none.stderr
    assert not (tmp_path / "none.json").exists()


def test_run_fails_the_gate_where_the_floor_is_not_met(
    recipe: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = "no variant keeps top1 99.0% on the validation split; fp32 comes nearest with 75.0%"
    monkeypatch.setattr("edgetl.measure.stage.choose", lambda variants, *_: (variants[0].name, False, reason))
    # another bundle setting, so that measuring is done again
    failed = edgetl("run", recipe, "--out", run_dir, "--set", "bundle.golden_images=1")
    assert failed.returncode == 1
    assert f"Gate failed: {reason}." in failed.stderr
    assert (run_dir / "tiny.edgetl").exists()


def test_a_stage_alone(recipe: Path, run_dir: Path) -> None:
    done = edgetl("finetune", recipe, "--out", run_dir, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["backbone"] == "test_efficientnet"
    assert "train: up to date" in done.stderr


def test_ctrl_c_keeps_the_last_epoch_and_says_how_to_go_on(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "edgetl", "finetune", str(recipe), "--out", str(folder)]
    command += ["--set", "train.epochs=500", "--set", "train.augment = 'basic'"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=hears_ctrl_c)
    deadline = time.monotonic() + 600
    while not (folder / "train" / "full.state").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stated = process.communicate(timeout=300)
    assert process.returncode == 130, stated
    assert stated.splitlines()[-1].endswith(f"; go on with: {shlex.join(command)}")
    assert (folder / "train" / "full.state").exists()
    assert "Traceback" not in stated


def test_parity_climbs_from_the_run_s_checkpoint_and_fails_where_a_rung_breaks(
    run_dir: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = run_dir / "tiny.edgetl"
    # How well 8 bits suit a network that hardly learned anything is chance; float32 keeps its bound.
    wide = replace(parity.BOUNDS[Precision.INT8], maximum=9.0, mean=9.0, agreement=0.01)
    monkeypatch.setitem(parity.BOUNDS, Precision.INT8, wide)
    done = edgetl("parity", bundle, images, "--limit", "6", "--json")
    record = json.loads(done.stdout)
    assert (done.returncode, record["images"]) == (0, 6), record["sentence"]
    assert record["checkpoint"] == str(run_dir / "distill" / "student.safetensors")
    assert [checked["name"] for checked in record["steps"][:3]] == ["torch", "onnx", "fp32"]
    monkeypatch.setitem(parity.BOUNDS, Precision.INT8, replace(wide, maximum=0.0))
    failed = edgetl("parity", bundle, images, "--limit", "6")
    assert failed.returncode == 1
    assert "The first step outside its bound is int8-cpu-x86 (int8, cpu-x86): its largest" in failed.stdout


@pytest.mark.trt
def test_build_compiles_the_bundle_s_onnx_with_the_real_builder(run_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install tensorrt-rtx")
    engine = tmp_path / "tiny.engine"
    built = edgetl(
        "build", run_dir / "tiny.edgetl", "--target", "tensorrt-rtx", "--sm", "89", "-o", engine, "--json"
    )
    assert built.returncode == 0, built.stderr
    record = json.loads(built.stdout)
    assert (record["target"], record["compute_capabilities"]) == ("tensorrt-rtx", ["89"])
    assert engine.stat().st_size == record["size_bytes"] > 10_000
    half = edgetl(
        "build",
        run_dir / "tiny.edgetl",
        "--target",
        "tensorrt-rtx",
        "--sm",
        "86,89",
        "--precision",
        "fp16",
        "-o",
        engine,
    )
    assert half.returncode == 0, half.stderr
    assert "in fp16 (convolutions and matrix products)" in half.stdout
    odd = edgetl("build", run_dir / "tiny.edgetl", "--target", "tensorrt-rtx", "--sm", "89", "--batch", "1,2")
    assert odd.returncode == 2
    assert "expected one number, or LEAST,TUNED,LARGEST" in odd.stderr
    unknown = edgetl("build", run_dir / "tiny.edgetl", "--target", "tensorrt-rtx", "--sm", "12", "-o", engine)
    assert unknown.returncode == 2
    assert "89" in unknown.stderr


def test_cross_validation_tells_mean_and_deviation_and_goes_on(recipe: Path, tmp_path: Path) -> None:
    command = ("finetune", recipe, "--folds", "2", "--out", tmp_path / "run", "--set", "train.epochs=1")
    shown = edgetl(*command)
    assert shown.returncode == 0, shown.stderr
    assert "deviation" in shown.stdout
    again = edgetl(*command, "--json")
    record = json.loads(again.stdout)
    assert len(record["folds"]) == 2
    assert "mean" in record["spreads"]["macro_f1"]
    assert "loss" not in again.stderr


def test_cross_validation_refuses_several_processes(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = edgetl("finetune", recipe, "--folds", "2")
    assert done.returncode == 2
    assert "start it without torchrun" in " ".join(done.stderr.split())
