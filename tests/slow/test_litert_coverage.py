"""The classifiers of the export table as .tflite files: in LiteRT against torch in float64, in INT8 against ONNX
Runtime, and timed.

`pytest -m slow -s tests/slow/test_litert_coverage.py` prints the table. Weights are random, as there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
import torch

from edgetl.config import Calibrator, Target
from edgetl.errors import EdgetlError
from edgetl.export.litert.convert import to_network, to_tflite
from edgetl.export.onnx import to_onnx
from edgetl.inputs.image import PreprocessSpec
from edgetl.models.backbones import create
from edgetl.models.fusing import merged
from edgetl.quantize.affine import from_range
from edgetl.quantize.calibrate import observe
from edgetl.quantize.graph import Graph
from edgetl.quantize.plan import make_plan
from edgetl.quantize.qdq import insert
from edgetl.quantize.ranges import estimate
from edgetl.quantize.score import open_session
from edgetl.quantize.targets import rules_for
from edgetl.tasks.base import Classification
from tests.export.litert.running import in_litert, in_onnxruntime, interpreter, kinds
from tests.slow.test_export_coverage import LABELS, MODELS, images, lively

CLASSES, CALLS = 10, 60
BOUND, INTEGER_BOUND, TIMES = 1e-5, 0.2, 3
"""Of LiteRT's error in float, or else so many times that of ONNX Runtime, which sums in another order; and in INT8."""
CHAINS = (
    "resnet",
    "mobilenet",
    "efficientnet",
    "squeezenet",
    "mnasnet",
    "regnet",
    "repvgg",
    "fbnet",
    "lcnet",
)
"""Networks in whose files nothing is transposed."""
FUSED = {
    "repvgg_a0": 64,
    "mobileone_s0": 64,
    "repghostnet_050": 64,
    "fastvit_t8": 64,
    "repvit_m0_9": 64,
    "efficientvit_b0": 64,
    "efficientvit_m0": 224,
    "levit_128s": 224,
    "tiny_vit_5m_224": 224,
}
"""Networks with branches or batch norms that their authors merge."""


@dataclass(frozen=True)
class Row:
    """One classifier: the largest logit errors relative to the largest logit, and medians of interleaved calls."""

    name: str
    error: float
    onnxruntime_error: float
    integer_error: float
    operators: int
    transpositions: int
    milliseconds: dict[str, float]

    def line(self) -> str:
        times = "  ".join(f"{name} {value:.2f}" for name, value in self.milliseconds.items())
        return (
            f"{self.name:32} {self.error:.0e} ({self.onnxruntime_error:.0e})  INT8 {self.integer_error:.0e}"
            f"  {self.operators:4} operators {self.transpositions:3} transposed | ms: {times}"
        )


def integers(model: onnx.ModelProto, target: Target, pictures: np.ndarray) -> onnx.ModelProto:
    rules, graph = rules_for(target), Graph(model)
    plan = make_plan(graph, rules)
    parts = [pictures[i : i + 4] for i in range(0, len(pictures), 4)]
    histograms = observe(model, plan.observed, parts, images=len(pictures))
    ranges = {
        name: estimate(histogram, Calibrator.MINMAX, rules.activations, percentile=100.0)
        for name, histogram in histograms.items()
    }
    spans = ranges | plan.known
    return insert(graph, plan, rules, {n: from_range(*span, rules.activations) for n, span in spans.items()})


def relative(expected: np.ndarray, found: np.ndarray) -> float:
    return float(np.abs(expected - found).max() / np.abs(expected).max())


def in_turn(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The median of each call in milliseconds, all in turn."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(CALLS):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            samples[name].append((time.perf_counter() - start) * 1e3)
    return {name: float(np.median(values)) for name, values in samples.items()}


def cover(name: str, size: int) -> Row:
    pictures = images(size, 8)
    network = lively(create(name, CLASSES, "none"), pictures)
    model = to_onnx(network, task=Classification(labels=LABELS), spec=PreprocessSpec(size=size), opset=18)
    small = integers(model, Target.LITERT, pictures)
    vnni = integers(model, Target.CPU_X86_VNNI, pictures)
    calls: dict[str, Callable[[], object]] = {}
    for label, form in (("ONNX Runtime", model), ("ONNX Runtime INT8", vnni)):
        session = open_session(form, threads=1)
        calls[label] = lambda session=session: session.run(None, {"images": pictures[:1]})
    for label, form in (("LiteRT", model), ("LiteRT INT8", small)):
        calls[label] = interpreter(to_tflite(form)).invoke
    written = to_network(model)
    with torch.no_grad():
        exact = network.double()(torch.from_numpy(pictures).double()).numpy()
    return Row(
        name=name,
        error=relative(exact, in_litert(to_tflite(model), pictures)),
        onnxruntime_error=relative(exact, in_onnxruntime(model, pictures)),
        integer_error=relative(in_onnxruntime(small, pictures), in_litert(to_tflite(small), pictures)),
        operators=len(written.operators),
        transpositions=kinds(written).count("TRANSPOSE"),
        milliseconds=in_turn(calls),
    )


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), FUSED.items())
def test_networks_that_are_fused_are_written(name: str, size: int) -> None:
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install ai-edge-litert")
    network, pictures = create(name, CLASSES, "none", seed=0).eval(), images(size, 2)
    assert merged(network, size)[1] == ""
    model = to_onnx(network, task=Classification(labels=LABELS), spec=PreprocessSpec(size=size), opset=18)
    with torch.no_grad():
        expected = network(torch.from_numpy(pictures)).numpy()
    assert relative(expected, in_litert(to_tflite(model), pictures)) <= BOUND


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_every_classifier_of_the_table_is_written() -> None:
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install ai-edge-litert")
    failures, rows = [], list[Row]()
    print()
    for name, size in MODELS.items():
        try:
            rows.append(cover(name, size))
            print(rows[-1].line(), flush=True)
        except EdgetlError as error:
            failures.append(f"{name}: {error}")
            print(failures[-1], flush=True)
    assert failures == []
    assert [row.name for row in rows if not row.error <= max(BOUND, TIMES * row.onnxruntime_error)] == []
    assert [row.name for row in rows if not row.integer_error <= INTEGER_BOUND] == []
    plain = [row for row in rows if any(part in row.name for part in CHAINS)]
    assert len(plain) >= 12
    assert [row.name for row in plain if row.transpositions] == []
