"""Images a second of the loader, and milliseconds of a training step, in each arithmetic."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.bench.claims import Claim
from tests.gpu.parts import Place


def run(place: Place) -> Iterator[Claim]:
    """Yield the claims."""
    yield from _loader(place)
    yield from _steps(place)


def _loader(place: Place) -> Iterator[Claim]:
    """The loader as training uses it: augmented on the CPU, moved to the device."""
    import torch

    from edgetl.config import Augment
    from edgetl.inputs.image import PreprocessSpec
    from edgetl.tasks.base import Classification
    from edgetl.train.loader import Loader
    from edgetl.train.sets import PixelSet
    from edgetl.train.tasks.classification import ClassificationTraining

    size, count = (32, 64) if place.rehearses else (224, 1024)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, size + 16, size + 16, 3), dtype=np.uint8)
    data = PixelSet(pixels, (np.arange(count) % 10).astype(np.int64), PreprocessSpec(size=size))
    task = ClassificationTraining(spec=Classification(labels=tuple("0123456789")))
    device = torch.device(place.device)
    for augment in (Augment.BASIC,):
        loader = Loader(
            task,
            data,
            batch_size=64,
            augment=augment,
            class_balance=False,
            seed=0,
            phase="full",
            device=device,
        )
        list(loader.epoch(0))
        started = time.perf_counter()
        images = sum(len(batch.images) for batch in loader.epoch(1))
        _wait(place)
        rate = images / (time.perf_counter() - started)
        yield Claim(name=f"loader, {size} px, augmented ({augment.value})", measured=f"{rate:,.0f} images/s")


def _steps(place: Place) -> Iterator[Claim]:
    import torch

    from edgetl.models.backbones import create

    size, batch, turns = (32, 4, 2) if place.rehearses else (224, 128, 12)
    names = ("test_efficientnet",) if place.rehearses else ("efficientnet_lite0", "resnet50")
    for name in names:
        plain: dict[str, float] = {}
        for kind, dtype in (("fp32", None), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
            if place.rehearses and kind == "fp16":
                continue
            torch.manual_seed(0)
            model = create(name, 10, "none").to(place.device, memory_format=torch.channels_last).train()
            plain[kind] = _step_ms(place, model, size, batch, turns, dtype)
            del model
        parts = ", ".join(
            f"{kind} {ms:.3g} ms ({1000 * batch / ms:,.0f} images/s)" for kind, ms in plain.items()
        )
        yield Claim(name=f"{name}, {size} px, a step of {batch}", measured=parts)
        if "bf16" in plain:
            yield Claim(
                name=f"{name}: bf16 over fp32", measured=f"{plain['fp32'] / plain['bf16']:.2f}x as fast"
            )


def _step_ms(place: Place, model: Any, size: int, batch: int, turns: int, dtype: Any) -> float:
    import torch
    from torch.nn import functional

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    scaler = torch.amp.GradScaler(place.device, enabled=dtype is torch.float16)
    images = torch.randn(batch, 3, size, size, device=place.device).contiguous(
        memory_format=torch.channels_last
    )
    labels = torch.arange(batch, device=place.device) % 10
    times = []
    for turn in range(turns + 5):
        started = time.perf_counter()
        with torch.autocast(place.device, dtype or torch.bfloat16, enabled=dtype is not None):
            loss = functional.cross_entropy(model(images), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        _wait(place)
        if turn >= 5:
            times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times)


def _wait(place: Place) -> None:
    import torch

    if not place.rehearses:
        torch.cuda.synchronize()
