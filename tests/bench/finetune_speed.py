"""Images a second of the training loop against a plain torch loop of the same arithmetic, interleaved."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

from edgetl.config import Augment, TrainPrecision
from edgetl.models import backbones
from edgetl.train.augment import normalise_, training_view
from edgetl.train.loop import Fitting, fit
from edgetl.train.objective import Hard
from edgetl.train.sets import PixelSet
from edgetl.train.tasks.classification import cross_entropy
from tests.bench.claims import Claim, at_least, at_most
from tests.bench.head_cache import BACKBONE, BATCH, CLASSES, SIZE, TASK, images

TURNS = 3


def plain(model: nn.Module, data: PixelSet, device: torch.device) -> float:
    """Seconds of one epoch as one would write it by hand: the same views, loss, clipping and AdamW, in turn."""
    model.to(device).to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.02, fused=True)
    started = time.perf_counter()
    order = torch.randperm(len(data))
    for rows in order.split(BATCH):
        pixels = torch.from_numpy(data.pixels[rows.numpy()]).to(device)
        labels = torch.from_numpy(data.targets[rows.numpy()]).to(device)
        views = training_view(pixels, Augment.BASIC, SIZE, generator=torch.Generator())
        views = normalise_(views, data.spec.mean, data.spec.std).contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(model(views), labels, label_smoothing=0.1)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        optimiser.zero_grad()
        loss.item()
    return time.perf_counter() - started


STEP = """
import sys
from edgetl.process import tune
if sys.argv[1] == "tuned":
    tune()
import time
import torch
from edgetl.models import backbones
from tests.bench.head_cache import TASK, BACKBONE, BATCH, CLASSES, SIZE
from contextlib import nullcontext
from edgetl.train.cores import own_cores
model = backbones.create(BACKBONE, CLASSES).train().to(memory_format=torch.channels_last)
images = torch.randn(BATCH, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
seconds = []
with own_cores(images.device) if sys.argv[1] == "tuned" else nullcontext():
    for _ in range(8):
        started = time.perf_counter()
        model(images).square().mean().backward()
        seconds.append(time.perf_counter() - started)
print(sorted(seconds[2:])[3])
"""


@contextmanager
def busy_neighbour() -> Iterator[None]:
    """A process that takes one core."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def step_seconds(how: str) -> float:
    """The median seconds of a training step in a process of its own."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("GOMP_", "MALLOC_"))}
    done = subprocess.run(
        [sys.executable, "-c", STEP, how], env=plain, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def one_epoch(phase: str) -> Fitting:
    """An epoch as recipes have it, in float32."""
    return Fitting(
        phase=phase,
        epochs=1,
        batch_size=BATCH,
        lr=1e-3,
        weight_decay=0.02,
        augment=Augment.BASIC,
        seed=0,
        precision=TrainPrecision.FP32,
    )


def run() -> Iterator[Claim]:
    """Yield the claims. `EDGETL_BENCH_IMAGES` sets the training images (default 640)."""
    count = int(os.environ.get("EDGETL_BENCH_IMAGES", "640"))
    train, val = images(count, SIZE), images(CLASSES, SIZE)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    how = one_epoch("full")
    own, other, waits = [], [], []
    for _ in range(1 + TURNS):
        model = backbones.create(BACKBONE, CLASSES)
        (epoch,) = fit(
            model,
            how,
            train=train,
            val=val,
            task=TASK,
            objective=Hard(hard_loss=cross_entropy(0.1)),
            state=None,
        )
        own.append(epoch.images_per_second)
        waits.append(epoch.loader_wait)
        other.append(count / plain(backbones.create(BACKBONE, CLASSES), train, device))
    # the first turn fills caches that the others find filled
    ratio = statistics.median(a / b for a, b in zip(own[1:], other[1:], strict=True))
    yield at_least(f"images per second over a plain loop's ({BACKBONE}, {SIZE} px)", ratio, 1.0, "x")
    yield at_most(
        "share of the time spent waiting for the loader", statistics.median(waits[1:]) * 100, 5, "%"
    )
    yield Claim(name="images per second", measured=f"{statistics.median(own[1:]):.0f}")
    if device.type == "cpu":
        gains = [step_seconds("plain") / step_seconds("tuned") for _ in range(TURNS)]
        name = "a step of an untuned process over one of a tuned process"
        yield at_least(name, statistics.median(gains), 1.2, "x")
        with busy_neighbour():
            gains = [step_seconds("plain") / step_seconds("tuned") for _ in range(TURNS)]
        yield at_least(f"{name}, beside a busy process", statistics.median(gains), 1.2, "x")
