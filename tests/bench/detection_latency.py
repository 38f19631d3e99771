"""Our detector at 35% of its multiply-accumulates beside Ultralytics' smallest, network alone, at 320 px, one thread.

All weights are random: they do not change what a call takes. Ours is cut evenly in all layers by the prune stage's own
code, exported with its decode, and quantized for x86 with VNNI. The peer is YOLO26n for as many classes, as Ultralytics
exports it to ONNX, in 8 bits as ONNX Runtime's `quantize_static` and OpenVINO's NNCF make it with their defaults. What
comes after the network is left out on both sides. All is timed in one process, interleaved.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgetl.bench.statistics import median_ratio
from edgetl.bench.timer import time_interleaved
from edgetl.config import Calibrator, PruneScope, Target
from edgetl.export.onnx import to_onnx
from edgetl.inputs.spec import PreprocessSpec, Resize
from edgetl.models.detector import create_detector
from edgetl.models.size import network_size
from edgetl.prune.apply import cut
from edgetl.prune.importance import magnitude
from edgetl.prune.plan import Cost, CutLimits
from edgetl.quantize.affine import from_range
from edgetl.quantize.calibrate import observe
from edgetl.quantize.graph import Graph
from edgetl.quantize.plan import make_plan
from edgetl.quantize.qdq import insert
from edgetl.quantize.ranges import estimate
from edgetl.quantize.targets import rules_for
from edgetl.tasks.base import Detection
from tests.bench.claims import Claim
from tests.bench.peers import onnx_session
from tests.bench.steps import say
from tests.quantize import peers

_SIZE, _SHARE = 320, 0.35
_LABELS = ("a", "b", "c")
Call = Callable[[np.ndarray], object]


def run() -> Iterator[Claim]:
    """Yield the claims. `EDGETL_BENCH_RUNS` sets the rounds (default 60)."""
    runs = int(os.environ.get("EDGETL_BENCH_RUNS", "60"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        say("our detector: cut, exported, quantized")
        ours = _ours(folder)
        say("YOLO26n: exported by Ultralytics, quantized by ONNX Runtime and by NNCF")
        float_file = _yolo(folder)
        integer_file = folder / "yolo-int8.onnx"
        peers.quantize_static(float_file, integer_file, iter(_images()), "MinMax")
        calls = {
            "ours, ONNX Runtime INT8": _runtime(ours),
            "YOLO26n, ONNX Runtime float": _runtime(float_file),
            "YOLO26n, ONNX Runtime INT8": _runtime(integer_file),
            "ours, OpenVINO INT8": _openvino(ours),
            "YOLO26n, OpenVINO float": _openvino(float_file),
            "YOLO26n, OpenVINO INT8": _openvino_int8(float_file),
        }
        image = next(peers.noise(8, _SIZE))[:1]
        say("timing")
        timed = time_interleaved(
            {name: (lambda c=call: c(image)) for name, call in calls.items()},
            warmup=5,
            runs=runs,
            pause_s=0.05,
            settle=2,
            block=3,
        )
        for name, samples in timed.items():
            yield Claim(name=f"{name}, p50", measured=f"{np.median(samples):.2f} ms")
        for engine in ("ONNX Runtime", "OpenVINO"):
            for precision, aim in (("float", 2.5), ("INT8", 1.5)):
                slow, fast = timed[f"YOLO26n, {engine} {precision}"], timed[f"ours, {engine} INT8"]
                ratio = median_ratio(fast, slow, paired=True)
                yield Claim(
                    name=f"YOLO26n {precision} over ours INT8 in {engine}",
                    measured=f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})",
                    aim=f">= {aim}",
                    holds=ratio.value >= aim,
                )


def _ours(folder: Path) -> Path:
    whole = create_detector("efficientnet_lite0", len(_LABELS), "none").eval()
    before = network_size(whole, _SIZE)
    limits = CutLimits(round_to=16, max_cut=0.9, widths={}, scope=PruneScope.LAYER)
    budget = Cost(macs=_SHARE * before.macs, parameters=float("inf"))
    smaller = cut(whole, _SIZE, magnitude, budget, limits).model
    say(
        f"{network_size(smaller, _SIZE).macs / before.macs:.1%} of {before.macs / 1e9:.2f} G multiply-accumulates"
    )
    spec = PreprocessSpec(size=_SIZE, resize=Resize.PAD)
    model = to_onnx(smaller, task=Detection(labels=_LABELS), spec=spec, opset=18)
    graph, rules = Graph(model), rules_for(Target.CPU_X86_VNNI)
    plan, grid = make_plan(graph, rules), rules.activations
    found = observe(model, plan.observed, peers.noise(16, _SIZE), images=16)
    spans = {n: estimate(h, Calibrator.MINMAX, grid, percentile=99.99) for n, h in found.items()}
    activations = {name: from_range(*span, grid) for name, span in (spans | plan.known).items()}
    path = folder / "ours.onnx"
    path.write_bytes(insert(graph, plan, rules, activations).SerializeToString())
    return path


def _yolo(folder: Path) -> Path:
    os.environ.update(
        YOLO_AUTOINSTALL="false", YOLO_OFFLINE="true", YOLO_VERBOSE="false", YOLO_CONFIG_DIR=str(folder)
    )
    from ultralytics import YOLO
    from ultralytics.nn.tasks import DetectionModel

    with contextlib.redirect_stdout(io.StringIO()), contextlib.chdir(folder):
        network = YOLO("yolo26n.yaml")
        model = DetectionModel("yolo26n.yaml", nc=len(_LABELS), verbose=False).eval()
        model.args, model.task = network.model.args, network.task
        network.model = model
        return Path(network.export(format="onnx", imgsz=_SIZE, simplify=False, verbose=False)).absolute()


def _runtime(path: Path) -> Call:
    session = onnx_session(path, 1)
    [name] = [value.name for value in session.get_inputs()]
    return lambda image: session.run(None, {name: image})


def _compiled(model: Any) -> Call:
    import openvino

    options = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.compile_model(model, "CPU", options).create_infer_request()
    return lambda image: request.infer([image])


def _openvino(path: Path) -> Call:
    import openvino

    return _compiled(openvino.Core().read_model(path))


def _openvino_int8(path: Path) -> Call:
    os.environ.setdefault("NNCF_CI", "1")  # sends no telemetry
    import nncf
    import openvino

    images = _images()
    return _compiled(
        nncf.quantize(openvino.Core().read_model(path), nncf.Dataset(images), subset_size=len(images))
    )


def _images() -> list[peers.Array]:
    """For calibration, one per batch: the peer's model takes no more."""
    return [image[None] for batch in peers.noise(32, _SIZE) for image in batch]
