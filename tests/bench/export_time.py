"""Seconds from a network to a checked ONNX file, and what preprocessing inside the graph costs or saves end to end."""

from __future__ import annotations

import io
import os
import statistics
import time
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout

import numpy as np
import onnx
import torch
from torch import nn

from edgetl.bench.statistics import median_ratio
from edgetl.bench.timer import time_interleaved
from edgetl.export.bake import bake_preprocess
from edgetl.export.onnx import to_bytes, to_onnx
from edgetl.inputs.image import PreprocessSpec
from edgetl.models import backbones
from edgetl.runtime.engines.base import run_pixels
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from edgetl.tasks.base import Classification
from tests.bench.claims import Claim, at_most

LABELS = tuple("0123456789")
MODELS = ("efficientnet_lite0", "torchvision/mobilenet_v2", "torchvision/resnet18", "mobilenetv3_small_050")
TURNS = 3
THREADS = 2


def by_torch(model: nn.Module, size: int) -> float:
    """Seconds of torch's own current exporter with a dynamic batch, as one would call it by hand."""
    started = time.perf_counter()
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.zeros(2, 3, size, size),),
            None,
            dynamo=True,
            opset_version=18,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    return time.perf_counter() - started


def own(model: nn.Module, spec: PreprocessSpec) -> tuple[float, onnx.ModelProto]:
    """Seconds of ours: traced, cleaned, folded, checked."""
    started = time.perf_counter()
    exported = to_onnx(model, task=Classification(labels=LABELS), spec=spec, opset=18)
    to_bytes(exported)
    return time.perf_counter() - started, exported


def run() -> Iterator[Claim]:
    """Yield the claims. `EDGETL_BENCH_SIZE` sets the side of the images (default 160)."""
    spec = PreprocessSpec(size=int(os.environ.get("EDGETL_BENCH_SIZE", "160")))
    pixels = np.random.default_rng(0).integers(0, 256, (1, spec.size, spec.size, 3), dtype=np.uint8)
    for name in MODELS:
        model = backbones.create(name, len(LABELS), "none").eval()
        ours, theirs = [], []
        for _ in range(TURNS):
            seconds, exported = own(model, spec)
            ours.append(seconds)
            theirs.append(by_torch(model, spec.size))
        yield Claim(name=f"export of {name}, checked", measured=f"{statistics.median(ours):.2f} s")
        ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        yield at_most(f"export of {name} over torch's own exporter, unchecked", ratio, 1.0, "x")
        yield from baked_over_unbaked(name, exported, pixels, spec)


def baked_over_unbaked(
    name: str, exported: onnx.ModelProto, pixels: np.ndarray, spec: PreprocessSpec
) -> Iterator[Claim]:
    """From uint8 pixels to logits, batch 1: normalised in numpy before, or inside the graph."""
    with (
        OnnxBackend(to_bytes(exported), threads=THREADS) as plain,
        OnnxBackend(to_bytes(bake_preprocess(exported, spec)), threads=THREADS) as baked,
    ):
        calls = {
            "unbaked": lambda: run_pixels(plain, pixels, spec),
            "baked": lambda: run_pixels(baked, pixels, spec),
        }
        timed = time_interleaved(calls, warmup=20, runs=200, pause_s=0.05, settle=3, block=5)
    ratio = median_ratio(timed["unbaked"], timed["baked"], paired=True)
    unbaked = statistics.median(timed["unbaked"])
    yield Claim(
        name=f"baked over unbaked preprocessing, pixels to logits ({name}, {spec.size} px)",
        measured=f"{ratio.value:.3f}x (95% interval {ratio.low:.3f} to {ratio.high:.3f}); unbaked {unbaked:.2f} ms",
    )
