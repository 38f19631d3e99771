from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgetl.bench.profile import device_of, profile, summarise_events
from edgetl.errors import ConfigError, ModelError
from edgetl.runtime.engines.onnxruntime import Device
from edgetl.runtime.targets import EngineName
from tests.bench_stage.bundles import SIZE, write_model


def _run(start: int, length: int) -> dict:
    return {"cat": "Session", "name": "model_run", "ts": start, "dur": length, "args": {}}


def _node(name: str, operator: str, start: int, length: int) -> dict:
    args = {"op_name": operator, "provider": "CPUExecutionProvider"}
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": start, "dur": length, "args": args}


def test_times_are_medians_a_call_and_shares_of_the_whole() -> None:
    events = [{"cat": "Session", "name": "session_initialization", "ts": 0, "dur": 900, "args": {}}]
    for call, slow in enumerate((9000, 300, 310, 350)):
        at = 1000 + 10_000 * call
        events += [
            _node("first", "Conv", at + 1, slow),
            _node("second", "Conv", at + slow + 2, 100),
            _node("third", "Relu", at + slow + 110, 50),
            _run(at, slow + 200),
        ]
    found = summarise_events(events, settle=1)
    assert (found.calls, found.call_ms) == (3, 0.51)
    assert [(o.name, o.nodes, o.median_ms) for o in found.operators] == [
        ("Conv", 2, pytest.approx(0.41)),
        ("Relu", 1, 0.05),
    ]
    assert [(n.name, n.operator, n.provider, n.median_ms) for n in found.layers] == [
        ("first", "Conv", "CPU", 0.31),
        ("second", "Conv", "CPU", 0.1),
        ("third", "Relu", "CPU", 0.05),
    ]
    assert found.layers[0].share == pytest.approx(960 / 1410)
    assert sum(layer.share for layer in found.layers) == pytest.approx(1)


def test_an_empty_profile_is_said() -> None:
    with pytest.raises(ModelError, match="ONNX Runtime's profile holds no calls"):
        summarise_events([_run(0, 5)], settle=1)


def test_the_engine_s_own_profile_names_every_layer(tmp_path: Path) -> None:
    write_model(tmp_path / "model.onnx", layers=3)
    images = np.zeros((1, 3, SIZE, SIZE), np.float32)
    found = profile((tmp_path / "model.onnx").read_bytes(), images, device=Device.CPU, threads=1)
    assert (found.engine, found.calls) == ("ONNX Runtime", 30)
    by_operator = {each.name: each for each in found.operators}
    assert {"GlobalAveragePool", "MatMul"} <= set(by_operator)
    assert sum(each.nodes for name, each in by_operator.items() if "Conv" in name) == 3
    assert all(each.median_ms >= 0 for each in found.layers)
    assert sum(each.share for each in found.layers) == pytest.approx(1)


def test_an_engine_whose_profiler_is_not_read_is_refused() -> None:
    assert device_of(EngineName.CUDA) is Device.CUDA
    with pytest.raises(
        ConfigError, match=r"LiteRT's Python package gives no time by operator\. Profile a variant of"
    ):
        device_of(EngineName.LITERT)
    message = "--profile reads ONNX Runtime's profiler, and tensorrt is another engine: leave it out"
    with pytest.raises(ConfigError, match=message):
        device_of(EngineName.TENSORRT)
