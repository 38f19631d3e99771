"""`edgetl suggest` as a user types it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import save_file

from edgetl.models import backbones
from tests.cli.typed import edgetl
from tests.data.boxes.sets import write_boxes
from tests.images import write_set


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suggest")
    save_file(
        dict(backbones.create("test_efficientnet", 10, "none").state_dict()), folder / "tiny.safetensors"
    )
    images = write_set(folder / "images", {"train": 10, "val": 5})
    (images / "train" / "red" / "broken.png").write_bytes(b"not a picture")
    return images


def test_it_prints_json_alone_and_writes_a_page(images: Path, tmp_path: Path) -> None:
    named = f"test_efficientnet={images.parent / 'tiny.safetensors'}"
    done = edgetl(
        *("suggest", images, "--backbones", named, "--sizes", "32,32", "--threads", 1, "--images", 24),
        *("--latency-ms", 1e4, "--json", "--page", tmp_path / "suggest.html"),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {*found} >= {
        "source",
        "metric",
        "candidates",
        "skipped",
        "proposed",
        "reason",
        "settings",
        "choice",
    }
    [candidate] = found["candidates"]
    assert found["choice"] == candidate
    assert (candidate["backbone"], candidate["size"], candidate["within_budget"]) == (
        "test_efficientnet",
        32,
        True,
    )
    assert candidate["score"]["low"] <= candidate["score"]["value"] <= candidate["score"]["high"]
    assert len(candidate["latency"]["samples_ms"]) == candidate["latency"]["runs"]
    assert {*candidate["network"]} == {"macs", "parameters", "size_bytes"}
    assert found["settings"][-1] == "preprocess.size = 32"
    assert "<svg" in (tmp_path / "suggest.html").read_text()
    assert "1 image cannot be read, see: edgetl data check" in done.stderr
    assert "Wrote" in done.stderr


@pytest.mark.parametrize(
    ("words", "stated"),
    [
        (
            ("--backbones", "resnet81"),
            "No backbone is called 'resnet81' in torchvision or timm. Nearest: resnet",
        ),
        (("--backbones", "resnet18,"), "--backbones: got 'resnet18,', expected names parted by commas"),
        (("--backbones", "resnet18="), "--backbones: got 'resnet18=', expected names parted by commas"),
        (
            ("--sizes", "128,large"),
            "--sizes: got '128,large', expected whole numbers of pixels from 16 to 1024",
        ),
        (("--sizes", "8"), "--sizes: got '8', expected whole numbers of pixels from 16 to 1024"),
        (("--latency-ms", "-1"), "--latency-ms: got -1, expected milliseconds above 0."),
        (("--backbones", "test_resnet=no.pth"), "No weights file at no.pth."),
    ],
)
def test_refusals(words: tuple[str, ...], stated: str, images: Path) -> None:
    done = edgetl("suggest", images, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert stated in done.stderr
    assert "Traceback" not in done.stderr


def test_boxes_and_one_class_are_refused(tmp_path: Path, images: Path) -> None:
    boxed = edgetl("suggest", write_boxes(tmp_path / "boxes", {"train": 4, "val": 2}))
    assert boxed.returncode == 2
    assert "this set marks boxes: take the backbone and size that `edgetl init` proposes" in boxed.stderr
    for split in ("train", "val"):
        shutil.copytree(images / split / "red", tmp_path / "alone" / split / "red")
    one = edgetl("suggest", tmp_path / "alone")
    assert one.returncode == 2
    assert "holds one class only (red); a classifier needs at least two." in one.stderr
