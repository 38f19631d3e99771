"""Pictures of one kind, and a bundle that was made with such: what drift is seen against."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgetl.bundle.drift import DriftAnswers, DriftSource
from edgetl.measure.drift import answers_of, looks_of
from edgetl.runtime.session import load
from edgetl.tasks.base import TaskSpec
from tests.runtime.test_tasks import COLOURS, linear_bundle


def scene(seed: int, *, light: float = 1.0, size: int = 40) -> NDArray[np.uint8]:
    """Smooth random colours of some brightness, with noise."""
    generator = np.random.default_rng(seed)
    coarse = generator.uniform(0, 160, (5, 5, 3)) + generator.uniform(0, 60)
    smooth = Image.fromarray(coarse.clip(0, 255).astype(np.uint8)).resize(
        (size, size), Image.Resampling.BICUBIC
    )
    pixels = np.asarray(smooth, dtype=np.float32) + generator.normal(0, 5, (size, size, 1))
    return (light * pixels).clip(0, 255).astype(np.uint8)


def encoded(pixels: NDArray[np.uint8], kind: str = "PNG") -> bytes:
    """It as a file's content."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def watched_bundle(folder: Path, task: TaskSpec = COLOURS, *, images: int = 200) -> Path:
    """A bundle whose reference is of so many scenes, as a run would make it."""
    with load(linear_bundle(folder, task), threads=1) as session:
        pixels = np.stack([session.pixels(scene(10_000 + at)) for at in range(images)])
        outputs = session.run(pixels)
        sure, named = answers_of(session.task, outputs)
    drift = DriftSource(
        looks=np.array(looks_of(pixels), dtype=np.float32),
        answers={
            "fp32": DriftAnswers(
                sureness=np.array(sure, dtype=np.float32), named=np.array(named, dtype=np.int64)
            )
        },
    )
    return linear_bundle(folder, task, drift=drift)


def write_scenes(folder: Path, count: int, *, light: float = 1.0, first: int = 0) -> Path:
    """Files of scenes."""
    folder.mkdir(parents=True, exist_ok=True)
    for at in range(first, first + count):
        (folder / f"{at:04d}.png").write_bytes(encoded(scene(at, light=light)))
    return folder
