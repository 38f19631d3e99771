"""An epoch of the head on kept features against one that runs the frozen backbone, interleaved in one process."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgetl.config import Augment
from edgetl.inputs.image import PreprocessSpec
from edgetl.models import backbones
from edgetl.models.backbones import classifier_names
from edgetl.tasks.base import Classification
from edgetl.train.features import compute, head_of
from edgetl.train.loop import Fitting, fit
from edgetl.train.objective import Hard
from edgetl.train.sets import PixelSet
from edgetl.train.tasks.classification import ClassificationTraining, cross_entropy
from tests.bench.claims import Claim, at_least

BACKBONE = "efficientnet_lite0"
CLASSES, BATCH, SIZE, TURNS = 10, 32, 160, 3
TASK = ClassificationTraining(spec=Classification(labels=tuple(map(str, range(CLASSES)))))


def images(count: int, size: int) -> PixelSet:
    """Noise; what the pixels show does not change the time."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return PixelSet(pixels, (np.arange(count) % CLASSES).astype(np.int64), PreprocessSpec(size=size))


def run() -> Iterator[Claim]:
    """Yield the claims. `EDGETL_BENCH_IMAGES` sets the training images (default 640)."""
    count = int(os.environ.get("EDGETL_BENCH_IMAGES", "640"))
    train, val = images(count, SIZE), images(max(CLASSES, count // 8), SIZE)
    model, settings = backbones.create(BACKBONE, CLASSES), {"batch_size": BATCH, "lr": 3e-3, "seed": 0}
    common = {"phase": "head", "epochs": 1, "weight_decay": 0.02, "augment": Augment.NONE, **settings}
    plain = Fitting(**common, trainable=backbones.head_parameters)
    objective = Hard(hard_loss=cross_entropy(0.1))
    seconds: dict[str, list[float]] = {"uncached": [], "cached": []}
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        kept, kept_val = (
            compute(model, classifier_names(model), train, Path(folder)),
            compute(model, classifier_names(model), val, Path(folder)),
        )
        computing = time.perf_counter() - started
        head = head_of(model, classifier_names(model), SIZE)
        for _ in range(TURNS):
            (epoch,) = fit(
                model,
                plain,
                train=train,
                val=val,
                task=TASK,
                objective=objective,
                state=None,
            )
            seconds["uncached"].append(epoch.seconds)
            (epoch,) = fit(
                head,
                Fitting(**common),
                train=kept,
                val=kept_val,
                task=TASK,
                objective=objective,
                state=None,
            )
            seconds["cached"].append(epoch.seconds)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = median["uncached"] / median["cached"]
    yield at_least(f"uncached over cached epoch of the head ({BACKBONE}, {count} images)", ratio, 30, "x")
    yield Claim(
        name="features, computed once, over an uncached epoch",
        measured=f"{computing / median['uncached']:.2f}x",
    )
    yield Claim(name="a cached epoch", measured=f"{median['cached'] * 1e3:.0f} ms")
