"""Tiny pictures of coloured shapes, with their boxes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

SHAPES = ("square", "bar")
_COLOURS = {"square": (220, 40, 40), "bar": (40, 60, 220)}


def draw(seed: int, side: int = 96) -> tuple[Image.Image, list[tuple[str, list[int]]]]:
    """A picture of `side` pixels on grey noise, and its objects as (class, [x, y, width, height]); none for some."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(90, 140, (side, side, 3)).astype(np.uint8)
    objects = []
    for corner in rng.permutation(4)[: int(rng.integers(0, 4))]:
        label = SHAPES[int(rng.integers(2))]
        long = int(rng.integers(side // 4, side // 2 - 4))
        width, height = (long, long) if label == "square" else (long, max(6, long // 3))
        x = int(corner % 2) * side // 2 + int(rng.integers(1, side // 2 - width))
        y = int(corner // 2) * side // 2 + int(rng.integers(1, side // 2 - height))
        pixels[y : y + height, x : x + width] = _COLOURS[label]
        objects.append((label, [x, y, width, height]))
    return Image.fromarray(pixels), objects


def write_boxes(root: Path, sizes: Mapping[str, int], side: int = 96) -> Path:
    """A COCO set: per split a folder of PNGs with `annotations.json` beside it."""
    seed = 0
    for split, count in sizes.items():
        (root / split / "images").mkdir(parents=True)
        images: list[dict[str, object]] = []
        annotations: list[dict[str, object]] = []
        for at in range(count):
            seed += 1
            picture, objects = draw(seed, side)
            picture.save(root / split / "images" / f"{at}.png")
            images.append({"id": at, "file_name": f"{at}.png", "width": side, "height": side})
            annotations += [
                {"id": len(annotations) + k, "image_id": at, "category_id": SHAPES.index(label), "bbox": box}
                for k, (label, box) in enumerate(objects)
            ]
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": at, "name": name} for at, name in enumerate(SHAPES)],
        }
        (root / split / "annotations.json").write_text(json.dumps(content))
    return root
