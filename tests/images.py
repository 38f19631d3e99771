"""Small image sets made on the fly: coloured shapes that a tiny network can tell apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"red": (200, 40, 40), "green": (40, 190, 60), "blue": (40, 60, 210)}


def write_set(root: Path, counts: dict[str, int], *, side: int = 40, seed: int = 0) -> Path:
    """Write SPLIT/CLASS/*.png with `counts[split]` images per class and return `root`."""
    rng = np.random.default_rng(seed)
    for split, count in counts.items():
        for name, colour in COLOURS.items():
            folder = root / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                pixels = rng.normal(np.array(colour), 25, (side, side, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i:03}.png")
    return root
