"""Tiny image sets, every image of another content."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from edgetl.progress import SILENT, ProgressTask


@dataclass(frozen=True)
class Settings:
    """Plays `DataConfig`."""

    source: str
    val_fraction: float = 0.2
    test_fraction: float = 0.2
    bad_images: str = "refuse"
    max_train_images: int | None = None
    group_pattern: str | None = None


@dataclass
class Recorder:
    """Keeps what a stage says."""

    warnings: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    steps: int = 0

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[ProgressTask]:
        with SILENT.task(description, total) as task:
            yield task
        self.steps += total

    def message(self, text: str) -> None:
        self.messages.append(text)

    def warning(self, text: str) -> None:
        self.warnings.append(text)


def write(path: Path, seed: int, side: int = 8) -> Path:
    """Write an image that is decided by `seed`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, compress_level=0)
    return path


def fill(root: Path, folders: dict[str, int], start: int = 0) -> Path:
    """Write the given number of images into each folder."""
    for name, count in folders.items():
        for number in range(count):
            write(root / name / f"{number:03d}.png", start)
            start += 1
    return root
