"""The built wheel and one engine, in a bare environment without torch: from bundle to prediction."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from edgetl import pipeline
from edgetl.packages import HOST, PIP_NAMES, pip_install
from tests.images import write_set
from tests.test_pipeline import tiny_recipe

ROOT = Path(__file__).parent.parent
WHEELS = ROOT / ".cache" / "wheels"


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a bare environment's programs, with the wheel installed from local wheels alone."""
    if not (WHEELS / ".ready").exists():
        pytest.skip("the device's wheels are not here: make test fetches them into .cache/wheels")
    home = tmp_path_factory.mktemp("device")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--isolated"]
    subprocess.run(
        [*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(home), str(ROOT)],
        check=True,
    )
    wheel = next(home.glob("edgetl-*.whl"))
    venv.create(home / "env", with_pip=False, symlinks=True)
    bin_dir = home / "env" / "bin"
    install = ["install", "--quiet", "--no-index", "--find-links", str(WHEELS), str(wheel), "onnxruntime"]
    subprocess.run([*pip, "--python", str(bin_dir / "python"), *install], check=True)
    return bin_dir


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = write_set(tmp_path_factory.mktemp("images"), {"train": 12, "val": 4, "test": 4})
    made = pipeline.run(tiny_recipe(images), tmp_path_factory.mktemp("runs") / "tiny").bundle
    assert made is not None
    write_set(made.parent / "photos", {"test": 3}, seed=7)
    return made


def _edgetl(device: Path, *arguments: str, code: int = 0) -> str:
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [device / "edgetl", *arguments], capture_output=True, text=True, env=clean, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_the_wheel_is_typed_and_holds_no_tests(device: Path) -> None:
    package = next(device.parent.glob("lib/python*/site-packages/edgetl"))
    assert (package / "py.typed").exists()
    assert not (package.parent / "tests").exists()
    assert not any((package.parent / name).exists() for name in ("torch", "torchvision", "timm", "onnx"))


def test_the_wheel_brings_the_licence_and_the_manual(device: Path) -> None:
    package = next(device.parent.glob("lib/python*/site-packages/edgetl"))
    text = (ROOT / "edgetl" / "LICENSE").read_bytes()
    assert (package / "LICENSE").read_bytes() == text
    (kept,) = package.parent.glob("edgetl-*.dist-info/licenses/edgetl/LICENSE")
    assert kept.read_bytes() == text
    assert _edgetl(device, "guide", "cookbook").startswith("# Cookbook\n")


def test_the_wheel_is_small(device: Path) -> None:
    wheel = next(device.parent.parent.glob("edgetl-*.whl"))
    assert wheel.stat().st_size < 1_500_000


def test_from_bundle_to_prediction_without_torch(device: Path, bundle: Path) -> None:
    photos = bundle.parent / "photos" / "test"
    assert json.loads(_edgetl(device, "info", str(bundle), "--json"))["task"]["labels"] == [
        "blue",
        "green",
        "red",
    ]
    assert json.loads(_edgetl(device, "verify", str(bundle), "--json"))["passed"] is True
    predictions = json.loads(_edgetl(device, "predict", str(bundle), str(photos / "red"), "--json"))
    assert len(predictions) == 3
    assert json.loads(_edgetl(device, "eval", str(bundle), str(photos), "--json"))["images"] == 9
    timed = json.loads(_edgetl(device, "bench", str(bundle), "--runs", "10", "--json"))
    assert timed["latency"]["p50_ms"] > 0
    baseline = bundle.parent / "baseline.json"
    _edgetl(device, "baseline", str(bundle), "-o", str(baseline))
    limits = ["--max-latency-increase", "99"]
    assert json.loads(_edgetl(device, "gate", str(bundle), "--baseline", str(baseline), *limits, "--json"))[
        "passed"
    ]


def test_the_host_side_names_its_remedy(device: Path, bundle: Path) -> None:
    stated = _edgetl(device, "run", "recipe.toml", code=2)
    # Newer releases of typer bring pydantic along.
    names = [PIP_NAMES[module] for module in HOST if module != "pydantic" or "pydantic" in stated]
    assert stated == (
        f"Error: {', '.join(names)} is not available. Install the host side with: pip install {' '.join(names)}\n"
    )


def test_doctor_in_the_wheel_says_that_the_versions_are_those_tried(device: Path, bundle: Path) -> None:
    checkup = json.loads(_edgetl(device, "doctor", "--json"))
    assert checkup["differences"] == []
    training = next(part for part in checkup["parts"] if part["name"] == "training (torch)")
    assert training["remedy"] == pip_install(*HOST)
