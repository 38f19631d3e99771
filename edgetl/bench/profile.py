"""Time by layer, from the engine's own profiler: in calls of their own, since a profiled call is slower."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import ConfigError, ModelError
from edgetl.records.bench import LayerTime, Profile
from edgetl.runtime.engines.onnxruntime import Device, OnnxBackend
from edgetl.runtime.targets import EngineName

_CALLS, _SETTLE = 30, 5
_SUFFIX = "_kernel_time"
_BLOCKING = "NchwcTransformer"
"""ONNX Runtime's optimiser that lays channels out in blocks."""
_DEVICES = {
    EngineName.AUTO: Device.CPU,
    EngineName.CPU: Device.CPU,
    EngineName.CUDA: Device.CUDA,
    EngineName.ORT_TENSORRT: Device.TENSORRT,
}


Tensors = Sequence[Mapping[str, Sequence[int]]]
"""Types and shapes as ONNX Runtime's profile lists them: `[{"float": [1, 3, 32, 32]}, ...]`."""


@dataclass(frozen=True, kw_only=True)
class NodeShapes:
    """A node of the engine's graph after fusion, with its tensors; weights are among the inputs."""

    name: str
    operator: str
    inputs: Tensors
    outputs: Tensors


def device_of(target: EngineName) -> Device:
    """ONNX Runtime's device for a target.

    Raises:
        ConfigError: another engine runs it, whose profiler is not read here.
    """
    if target is EngineName.LITERT:
        raise ConfigError(
            "--profile: LiteRT's Python package gives no time by operator. Profile a variant of ONNX with --target "
            "cpu, or write the file with edgetl litert and run TensorFlow's benchmark_model on it, "
            "with its profiling of operators on."
        )
    if target not in _DEVICES:
        raise ConfigError(
            f"--profile reads ONNX Runtime's profiler, and {target} is another engine: leave it out, or profile "
            "with --target cpu or cuda."
        )
    return _DEVICES[target]


def profile(
    model: bytes,
    images: NDArray[Any],
    *,
    device: Device,
    threads: int,
    calls: int = _CALLS,
    settle: int = _SETTLE,
) -> Profile:
    """Run a model on `images` under the profiler.

    Args:
        model: the ONNX file.
        images: a batch as the model takes it.
        device: where it runs.
        threads: threads of the engine.
        calls: how often, at least once.
        settle: calls before these, which are not counted.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        OnnxBackend(model, threads=threads, device=device, profile=Path(folder)) as backend,
    ):
        for _ in range(settle + calls):
            backend.run(images)
        events = json.loads(backend.end_profile().read_text(encoding="utf-8"))
    return summarise_events(events, settle=settle)


def shapes_of(model: bytes, images: NDArray[Any], *, blocks: bool = True) -> Iterator[NodeShapes]:
    """The nodes that run on the CPU for `images`, named as `profile` names them.

    Args:
        model: the ONNX file.
        images: a batch as the model takes it.
        blocks: with channels filled up to the blocks that the float kernels take; else as the model has them, where
            nodes may have other names.
    """
    left_out = () if blocks else (_BLOCKING,)
    with (
        tempfile.TemporaryDirectory() as folder,
        OnnxBackend(model, threads=1, profile=Path(folder), pack_weights=False, left_out=left_out) as backend,
    ):
        backend.run(images)
        events = json.loads(backend.end_profile().read_text(encoding="utf-8"))
    for event in _kernels(events):
        of = event["args"]
        yield NodeShapes(
            name=event["name"].removesuffix(_SUFFIX),
            operator=of["op_name"],
            inputs=of["input_type_shape"],
            outputs=of["output_type_shape"],
        )


def summarise_events(events: Sequence[Mapping[str, Any]], *, settle: int = 0) -> Profile:
    """Sum up a trace of ONNX Runtime: a node's events lie within the `model_run` that they belong to.

    Raises:
        ModelError: it holds no calls after the first `settle`.
    """
    calls = sorted((e["ts"], e["ts"] + e["dur"]) for e in events if e["name"] == "model_run")[settle:]
    if not calls:
        raise ModelError("ONNX Runtime's profile holds no calls.")
    starts = [start for start, _ in calls]
    times: dict[tuple[str, str, str], list[float]] = defaultdict(lambda: [0.0] * len(calls))
    for event in _kernels(events):
        place = int(np.searchsorted(starts, event["ts"], side="right")) - 1
        if place >= 0:
            node = event["name"].removesuffix(_SUFFIX), event["args"]["op_name"], event["args"]["provider"]
            times[node][place] += event["dur"] / 1e3
    whole = sum(sum(each) for each in times.values()) or 1.0
    by_operator: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
    for (_, operator, provider), each in times.items():
        by_operator[operator, provider].append(each)
    return Profile(
        engine="ONNX Runtime",
        calls=len(calls),
        call_ms=statistics.median(end - start for start, end in calls) / 1e3,
        operators=_slowest_first(
            _time(operator, operator, provider, nodes, whole)
            for (operator, provider), nodes in by_operator.items()
        ),
        layers=_slowest_first(_time(*node, [each], whole) for node, each in times.items()),
    )


def _kernels(events: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    return (e for e in events if e.get("cat") == "Node" and e["name"].endswith(_SUFFIX))


def _time(name: str, operator: str, provider: str, nodes: list[list[float]], whole: float) -> LayerTime:
    totals = [sum(each) for each in zip(*nodes, strict=True)]
    return LayerTime(
        name=name,
        operator=operator,
        provider=provider.removesuffix("ExecutionProvider"),
        nodes=len(nodes),
        median_ms=statistics.median(totals),
        least_ms=min(totals),
        share=sum(totals) / whole,
    )


def _slowest_first(times: Any) -> tuple[LayerTime, ...]:
    return tuple(sorted(times, key=lambda layer: layer.share, reverse=True))
