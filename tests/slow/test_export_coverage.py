"""Twenty-seven classifiers of torchvision and timm: exported, checked, compared, compiled by the real TensorRT-RTX.

`pytest -m slow -s tests/slow/test_export_coverage.py` prints the table. Weights are random, since none are fetched, so
the table is about the way through and not about accuracy. A deep network of random weights enlarges every rounding
beyond what a trained one does; batch norms that keep most values above zero prevent it (see `lively`), so that an error
within its bound means that the graph computes what it should.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgetl.config import Calibrator, QuantizeConfig, Target
from edgetl.errors import EdgetlError
from edgetl.export.graphs import Probe
from edgetl.export.half_precision import as_on_a_gpu, to_half
from edgetl.export.onnx import to_bytes, to_onnx
from edgetl.export.opsets import opset_for
from edgetl.export.tensorrt import (
    BuildOptions,
    EnginePrecision,
    EngineTarget,
    compile_engine,
    load_module,
)
from edgetl.inputs.image import PreprocessSpec, load_batch
from edgetl.models.backbones import create
from edgetl.quantize.affine import from_range
from edgetl.quantize.calibrate import observe
from edgetl.quantize.graph import Graph
from edgetl.quantize.plan import make_plan
from edgetl.quantize.qdq import insert
from edgetl.quantize.ranges import estimate
from edgetl.quantize.targets import rules_for
from edgetl.tasks.base import Classification

CLASSES = 10
LABELS = tuple("0123456789")
IMAGES = Path("calibration/digits")
SMALL, FULL = 64, 224
BOUND = {"fp32": 1e-4, "fp16": 2e-2, "int8": 5e-1}
"""Largest logit error relative to the largest logit: of float32 against torch, of the others against float32."""
_BIAS = 2.0
"""Of batch norms, in standard deviations: so far above zero, few values meet an activation's bend."""
MODELS: dict[str, int] = {
    "torchvision/resnet18": SMALL,
    "torchvision/mobilenet_v2": SMALL,
    "torchvision/mobilenet_v3_small": SMALL,
    "torchvision/shufflenet_v2_x0_5": SMALL,
    "torchvision/squeezenet1_1": SMALL,
    "torchvision/mnasnet0_5": SMALL,
    "torchvision/regnet_y_400mf": SMALL,
    "torchvision/efficientnet_b0": SMALL,
    "convnext_atto": SMALL,
    "efficientnet_lite0": SMALL,
    "mobilenetv3_small_050": SMALL,
    "mobilenetv4_conv_small": SMALL,
    "tf_efficientnetv2_b0": SMALL,
    "ghostnet_050": SMALL,
    "lcnet_050": SMALL,
    "mixnet_s": SMALL,
    "rexnet_100": SMALL,
    "repvgg_a0": SMALL,
    "fbnetc_100": SMALL,
    "dla34": SMALL,
    "semnasnet_075": SMALL,
    "tinynet_e": SMALL,
    "resnetv2_18": SMALL,
    "mobileone_s0": SMALL,
    "convnextv2_atto": SMALL,
    "edgenext_xx_small": SMALL,
    "vit_tiny_patch16_224": FULL,
}


@dataclass(frozen=True)
class Engine:
    """What became of one precision: the largest logit error against float32, seconds and bytes of the engine."""

    error: float
    seconds: float
    size_bytes: int


@dataclass(frozen=True)
class Row:
    """One classifier. `error` is the largest logit error of float32 against torch."""

    name: str
    opset: int
    nodes: int
    seconds: float
    size_bytes: int
    error: float
    engines: dict[str, Engine]
    failure: str = ""

    @property
    def outside(self) -> tuple[str, ...]:
        """Precisions whose error is outside its bound."""
        errors = {"fp32": self.error} | {p: e.error for p, e in self.engines.items() if p != "fp32"}
        return tuple(precision for precision, value in errors.items() if not value <= BOUND[precision])

    def line(self) -> str:
        cells = [f"{self.name:30}"]
        if not self.failure:
            marks = {p: "!" if p in self.outside else " " for p in BOUND}
            cells += [
                f"{self.seconds:5.1f} s {self.size_bytes / 1e6:6.1f} MB {self.nodes:4} "
                f"{self.error:.0e}{marks['fp32']}"
            ]
            cells += [
                f"{e.error:.0e}{marks[p] if p != 'fp32' else ' '} {e.seconds:5.1f} s {e.size_bytes / 1e6:6.1f} MB"
                for p, e in self.engines.items()
            ]
        return " | ".join([*cells, *([self.failure] if self.failure else [])])


HEAD = " | ".join(
    [
        f"{'classifier':30}",
        f"{'export, ONNX, nodes, error':31}",
        *(f"{p}: error, build, engine".ljust(22) for p in ("FP32", "FP16", "INT8")),
    ]
)


def lively(network: nn.Module, pictures: np.ndarray) -> nn.Module:
    """Give batch norms the statistics of real activations, which else fade to nothing, and lift them above zero."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
            nn.init.constant_(module.bias, _BIAS)
    with torch.no_grad():
        network.train()(torch.from_numpy(pictures))
    return network.eval()


def images(size: int, count: int) -> np.ndarray:
    paths = sorted(IMAGES.rglob("*.png"))
    return load_batch([paths[i * len(paths) // count] for i in range(count)], PreprocessSpec(size=size))


def quantized(model: onnx.ModelProto, batches: list[np.ndarray]) -> onnx.ModelProto:
    """INT8 for TensorRT-RTX, calibrated on the batches."""
    config, rules = QuantizeConfig(target=Target.TENSORRT_RTX), rules_for(Target.TENSORRT_RTX)
    graph = Graph(model)
    plan = make_plan(graph, rules)
    histograms = observe(model, plan.observed, batches, images=sum(map(len, batches)))
    ranges = {
        name: estimate(histogram, Calibrator.PERCENTILE, rules.activations, percentile=config.percentile)
        for name, histogram in histograms.items()
    }
    known = {name: from_range(*span, rules.activations) for name, span in (ranges | plan.known).items()}
    return insert(graph, plan, rules, known)


def cover(name: str, size: int, trt: Any) -> Row:
    """Take one classifier the whole way."""
    pictures = images(size, 8)
    network = lively(create(name, CLASSES, "none"), pictures)
    opset = opset_for((Target.TENSORRT_RTX,))
    started = time.monotonic()
    model = to_onnx(network, task=Classification(labels=LABELS), spec=PreprocessSpec(size=size), opset=opset)
    seconds = time.monotonic() - started
    onnx.checker.check_model(model, full_check=True)
    with torch.inference_mode():
        expected = network(torch.from_numpy(pictures)).numpy()
    plain = run(model, pictures)
    half = to_half(model, pictures[:4])
    forms: dict[EnginePrecision, tuple[onnx.ModelProto, tuple[str, ...], Callable[[], np.ndarray]]] = {
        EnginePrecision.FP32: (model, (), lambda: plain),
        EnginePrecision.FP16: (
            half.model,
            half.float32_layers,
            lambda: run(as_on_a_gpu(half.model), pictures, optimised=False),
        ),
    }
    eight = quantized(model, [pictures[i : i + 4] for i in range(0, len(pictures), 4)])
    forms[EnginePrecision.INT8] = (eight, (), lambda: run(eight, pictures))
    engines = {}
    for precision, (form, kept, logits) in forms.items():
        options = BuildOptions(
            target=EngineTarget.TENSORRT_RTX,
            precision=precision,
            float32_layers=kept,
            compute_capabilities=("89",),
        )
        built = compile_engine(trt, to_bytes(form), options).record
        engines[precision.value] = Engine(error(plain, logits()), built.seconds, built.size_bytes)
    return Row(
        name, opset, len(model.graph.node), seconds, len(to_bytes(model)), error(expected, plain), engines
    )


def run(model: onnx.ModelProto, pictures: np.ndarray, *, optimised: bool = True) -> np.ndarray:
    probe = Probe(model, [model.graph.output[0].name], optimised=optimised)
    return np.concatenate([probe.run(pictures[i : i + 4])[0] for i in range(0, len(pictures), 4)])


def error(expected: np.ndarray, got: np.ndarray) -> float:
    """The largest difference relative to the largest logit."""
    return float(np.abs(expected - got).max() / np.abs(expected).max())


def rows(trt: Any) -> Iterator[Row]:
    for name, size in MODELS.items():
        try:
            yield cover(name, size, trt)
        except EdgetlError as failed:
            yield Row(name, 0, 0, 0.0, 0, 0.0, {}, failure=str(failed))


@pytest.mark.slow
@pytest.mark.trt
@pytest.mark.timeout(5400)
@pytest.mark.skipif(
    find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is missing: pip install tensorrt-rtx"
)
def test_the_coverage_table() -> None:
    print(f"\n{HEAD}")
    found = []
    for row in rows(load_module(EngineTarget.TENSORRT_RTX)):
        print(row.line(), flush=True)
        found.append(row)
    through = [r for r in found if not r.failure]
    agreeing = [r for r in through if not r.outside]
    print(
        f"{len(through)} of {len(found)} classifiers went the whole way, {len(agreeing)} of them within all bounds;"
        " ! marks an error outside."
    )
    assert [r.name for r in through if "fp32" in r.outside] == []
    assert len(agreeing) >= 25
