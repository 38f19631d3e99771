"""Every family of torchvision and timm that we name, from scratch and from few images, the whole way with `edgetl run`.

`pytest -m slow -s tests/slow/test_every_backbone.py` prints the table. Each runs in a process of its own, so that a
signal is seen: it ends with a bundle, or with one of our errors in a sentence before anything was trained.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.images import write_set
from tests.slow.test_export_coverage import MODELS as EXPORTED
from tests.slow.test_prune_coverage import MODELS as PRUNED

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SIZE = 96
MODELS = tuple(dict.fromkeys([*EXPORTED, *PRUNED, "efficientformerv2_s0", "starnet_s1", "regnet_x_400mf"]))
RECIPE = """
name = "walk"
[data]
source = "{source}"
[preprocess]
size = {size}
[train]
backbone = "{backbone}"
weights = "none"
head_epochs = 0
epochs = 1
batch_size = 12
[prune]
steps = 1
recovery_epochs = 1
target_macs = 0.7
importance_images = 24
[distill]
epochs = 1
[quantize]
images = 12
qat_epochs = 1
[bench]
threads = 1
warmup = 2
runs = 10
[bundle]
max_drop = 0.9
golden_images = 2
"""


def walk(backbone: str, source: Path, folder: Path, size: int = SIZE) -> tuple[int, str, float]:
    """Run it; returns the exit code (negative: by that signal), what was said last, seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE.format(source=source, size=size, backbone=backbone))
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "edgetl", "run", str(recipe), "--out", str(folder / "run")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "400"},
    )
    (folder / "stdout").write_text(done.stdout)
    (folder / "stderr").write_text(done.stderr)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return done.returncode, lines[-1].strip() if lines else "", time.monotonic() - started


def line(backbone: str, folder: Path, result: tuple[int, str, float]) -> str:
    code, said, seconds = result
    end = "bundle" if (folder / "run" / "walk.edgetl").is_file() else f"exit {code}: {said[:200]}"
    notes = re.findall(r"cannot be pruned[^\n]{0,120}", (folder / "stderr").read_text()) if not code else []
    return f"{backbone:32} | {seconds:5.0f} s | {end}{f' ({notes[0]})' if notes else ''}"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("images"), {"train": 12, "val": 4, "test": 4})


@pytest.mark.parametrize("backbone", MODELS)
def test_it_ends_with_a_bundle_or_one_of_our_errors_before_training(
    images: Path, tmp_path: Path, backbone: str
) -> None:
    result = walk(backbone, images, tmp_path)
    print(f"\n{line(backbone, tmp_path, result)}", flush=True)
    code, said, _ = result
    assert code in (0, 2), said
    assert "Traceback" not in (tmp_path / "stderr").read_text()
    trained = (tmp_path / "run" / "train" / "stage.json").exists()
    if code == 2:
        assert not trained
        assert str(SIZE) in said or "the best reachable is" in said
    else:
        assert (tmp_path / "run" / "walk.edgetl").is_file()


if __name__ == "__main__":
    root = Path(sys.argv[1])
    pictures = root / "images"
    if not pictures.is_dir():
        write_set(pictures, {"train": 12, "val": 4, "test": 4})
    for name in sys.argv[2:] or MODELS:
        print(
            line(name, root / name.replace("/", "-"), walk(name, pictures, root / name.replace("/", "-"))),
            flush=True,
        )
