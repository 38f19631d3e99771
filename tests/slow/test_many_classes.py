"""A thousand classes, twenty pictures each, the whole way: what is written grows with the images, not their square."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgetl import config, pipeline

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]
CLASSES, IMAGES, SIDE = 1000, 20, 32
MOST = 10_000_000
"""Bytes of report.json."""


def write_noise(root: Path, classes: int = CLASSES, images: int = IMAGES) -> Path:
    """Coloured noise, every class of another colour."""
    generator = np.random.default_rng(0)
    for number in range(classes):
        colour = 25 + 20 * np.array([number % 10, number // 10 % 10, number // 100])
        folder = root / f"{number:04}"
        folder.mkdir(parents=True)
        pixels = generator.normal(colour, 12, (images, SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)
        for at, picture in enumerate(pixels):
            Image.fromarray(picture).save(folder / f"{at}.png")
    return root


def test_a_report_of_a_thousand_classes_stays_small_and_readable(tmp_path: Path) -> None:
    recipe = config.parse(
        {
            "name": "many",
            "data": {"source": str(write_noise(tmp_path / "images"))},
            "preprocess": {"size": SIDE, "crop_fraction": 1.0},
            "train": {"backbone": "test_efficientnet", "weights": "none", "head_epochs": 0, "epochs": 1},
            "prune": {"steps": 1, "recovery_epochs": 1, "target_macs": 0.8, "max_drop": 0.9},
            "distill": {"epochs": 1},
            "quantize": {"images": 64, "max_drop": 0.9},
            "bench": {"threads": 1, "warmup": 2, "runs": 10},
            "bundle": {"max_drop": 0.9, "golden_images": 2},
        }
    )
    outcome = pipeline.run(recipe, tmp_path / "run")
    assert outcome.report is not None
    sizes = {p.name: p.stat().st_size for p in (tmp_path / "run").glob("report.*")}
    sizes |= {f"{p.parent.name}/": p.stat().st_size for p in (tmp_path / "run").glob("*/stage.json")}
    print("\n" + ", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in sorted(sizes.items())))
    assert sizes["report.json"] < MOST
    assert sizes["measure/"] < MOST
    json.loads((tmp_path / "run" / "report.json").read_text())
