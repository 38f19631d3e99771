"""An adapted epoch against a plain one, in turn in one process; and the closed form on cached features."""

from __future__ import annotations

import copy
import os
import statistics
import time
from collections.abc import Iterator

import numpy as np
import torch

from edgetl.config import Augment
from edgetl.models import backbones
from edgetl.train.adapt import distances
from edgetl.train.adapt.objective import Adversary, Aligned, Distance
from edgetl.train.loop import NO_START, Fitting, fit
from edgetl.train.objective import Hard, Objective
from edgetl.train.sets import Unlabelled
from edgetl.train.tasks.classification import cross_entropy
from tests.bench.claims import Claim, at_most
from tests.bench.head_cache import BACKBONE, CLASSES, SIZE, TASK, images

_FEATURES, _IMAGES, _TURNS = 1280, 2000, 3


def run() -> Iterator[Claim]:
    """Yield the claims. `EDGETL_BENCH_IMAGES` sets the labelled images (default 256); as many are the target's."""
    count = int(os.environ.get("EDGETL_BENCH_IMAGES", "256"))
    train, val = images(count, SIZE), images(max(CLASSES, count // 8), SIZE)
    target = images(count, SIZE)
    further = Unlabelled(pixels=target.pixels, share=0.5, sha256="noise", target_domain=True)
    model = backbones.create(BACKBONE, CLASSES)
    hard = Hard(hard_loss=cross_entropy(0.1))
    layer = backbones.classifier_names(model)[0]
    steps = 2 * count // 32
    methods: dict[str, Distance] = {
        "coral": distances.coral,
        "mmd": distances.mmd,
        "dann": Adversary(_FEATURES, steps=steps, seed=0),
    }
    objectives: dict[str, Objective] = {
        name: Aligned(hard=hard, distance=distance, layer=layer) for name, distance in methods.items()
    }
    fitting = Fitting(
        phase="full", epochs=1, batch_size=32, lr=1e-4, weight_decay=0.02, augment=Augment.BASIC, seed=0
    )
    seconds: dict[str, list[float]] = {name: [] for name in ("plain", *objectives)}
    for _ in range(_TURNS):
        for name, taken in seconds.items():
            (epoch,) = fit(
                copy.deepcopy(model),
                fitting,
                task=TASK,
                train=train,
                val=val,
                objective=objectives.get(name, hard),
                state=None,
                unlabelled=None if name == "plain" else further,
                start=NO_START,
            )
            taken.append(epoch.seconds)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    for name in objectives:
        yield at_most(
            f"an epoch of {name} over a plain one ({BACKBONE}, {SIZE} px, {count} images and as many of the target)",
            median[name] / median["plain"],
            2.2,
            "x",
        )
    rng = np.random.default_rng(0)
    source, other = (
        torch.from_numpy(rng.normal(size=(_IMAGES, _FEATURES)).astype(np.float32)) for _ in range(2)
    )
    started = time.perf_counter()
    distances.recoloured(source, other)
    took = time.perf_counter() - started
    yield at_most(f"coral in closed form on {_IMAGES} x {_FEATURES} cached features", took, 10, " s")
