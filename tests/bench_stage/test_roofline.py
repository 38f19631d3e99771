from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgetl.bench.profile import NodeShapes
from edgetl.bench.roofline import FLOAT, INT8, Work, check, measure, product, set_against, work_of
from edgetl.errors import ConfigError
from edgetl.records.bench import LayerTime, Peaks
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from edgetl.runtime.targets import EngineName
from edgetl.runtime.wire import read_graph
from tests.bench_stage.bundles import SIZE, write_model
from tests.onnx_models import classifier

PEAKS = Peaks(float_macs=50e9, int8_macs=200e9, copy_bytes=20e9)


def _node(operator: str, inputs: list, outputs: list) -> NodeShapes:
    return NodeShapes(name="node", operator=operator, inputs=inputs, outputs=outputs)


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (
            _node("Conv", [{"float": [2, 8, 6, 6]}, {"float": [16, 4, 3, 3]}], [{"float": [2, 16, 6, 6]}]),
            Work(macs=2 * 16 * 36 * 4 * 9, bytes=4 * (2 * 8 * 36 + 16 * 36 + 2 * 16 * 36), precision=FLOAT),
        ),
        (  # With channels last the kernel's shape stays; scales and zero points are single numbers.
            _node(
                "QLinearConv",
                [{"uint8": [1, 6, 6, 8]}, {"float": []}, {"uint8": []}, {"int8": [16, 8, 1, 1]}],
                [{"uint8": [1, 6, 6, 16]}],
            ),
            Work(macs=16 * 36 * 8, bytes=8 * 36 + 4 + 1 + 16 * 8 + 16 * 36, precision=INT8),
        ),
        (
            _node(
                "ConvTranspose", [{"float": [1, 8, 4, 4]}, {"float": [8, 5, 2, 2]}], [{"float": [1, 5, 8, 8]}]
            ),
            Work(macs=8 * 16 * 5 * 4, bytes=4 * (128 + 160 + 320), precision=FLOAT),
        ),
        (
            _node("MatMul", [{"float": [2, 3, 5]}, {"float": [2, 5, 7]}], [{"float": [2, 3, 7]}]),
            Work(macs=2 * 3 * 7 * 5, bytes=4 * (30 + 70 + 42), precision=FLOAT),
        ),
        (
            _node("FusedMatMul", [{"float": [2, 5, 3]}, {"float": [2, 5, 7]}], [{"float": [2, 3, 7]}]),
            Work(macs=2 * 3 * 7 * 5, bytes=4 * (30 + 70 + 42), precision=FLOAT),
        ),
        (
            _node("DynamicQuantizeMatMul", [{"float": [1, 5]}, {"int8": [5, 7]}], [{"float": [1, 7]}]),
            Work(macs=35, bytes=20 + 35 + 28, precision=INT8),
        ),
        (
            _node("Relu", [{"float16": [1, 8]}], [{"float16": [1, 8]}]),
            Work(macs=0, bytes=32, precision=""),
        ),
    ],
)
def test_work_is_counted_from_shapes(node: NodeShapes, expected: Work) -> None:
    assert work_of(node) == expected


def test_shares_of_the_peaks() -> None:
    def layer(name: str, milliseconds: float) -> LayerTime:
        return LayerTime(
            name=name, operator="Conv", provider="CPU", nodes=1, median_ms=milliseconds, share=0.1
        )

    work = {
        "a": Work(macs=10_000_000, bytes=4_000_000, precision=FLOAT),
        "b": Work(macs=20_000_000, bytes=1_000_000, precision=INT8),
        "c": Work(macs=0, bytes=100, precision=""),
    }
    found = set_against(
        PEAKS,
        [layer("a", 0.4), layer("b", 0.2), layer("c", 0.0)],
        work,
        list(work.values()),
        latency_ms=0.75,
        threads=1,
    )
    assert [each.of_peak for each in found.layers] == [pytest.approx(0.5), pytest.approx(0.5), None]
    assert [each.of_copy for each in found.layers] == [pytest.approx(0.5), pytest.approx(0.25), None]
    assert (found.float_macs, found.int8_macs, found.bytes) == (10_000_000, 20_000_000, 5_000_100)
    assert found.least_ms == pytest.approx(0.3)
    assert found.of_peak == pytest.approx(0.4)
    assert found.of_copy == pytest.approx(0.2500 / 0.75, rel=1e-3)


def test_a_product_is_right_in_float_and_in_int8() -> None:
    for precision in (FLOAT, INT8):
        model, images = product(64, precision)
        with OnnxBackend(model, threads=1) as backend:
            found = backend.run(images)["product"]
        weights = read_graph(model).constant("right")
        assert weights is not None
        expected = images[0, 0].astype(np.float64) @ weights.astype(np.float64)
        assert np.allclose(found[0, 0], expected, rtol=1e-3, atol=1e-3)


def test_a_model_is_set_against_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgetl.bench.roofline._SIDES", (64,))
    monkeypatch.setattr("edgetl.bench.roofline._COPY_BYTES", 1 << 20)
    write_model(tmp_path / "model.onnx", layers=2)
    images = np.zeros((1, 3, SIZE, SIZE), np.float32)
    found, times = measure((tmp_path / "model.onnx").read_bytes(), images, threads=1)
    assert min(found.peaks.float_macs, found.peaks.int8_macs, found.peaks.copy_bytes) > 0
    assert len(found.layers) == len(times.layers)
    convolutions = [each for each in found.layers if "Conv" in each.operator]
    # The layers' channels may be filled up to a block; the model's own are not.
    assert min(each.macs for each in convolutions) >= 3 * SIZE**2 * 3 * 49
    assert found.float_macs == 2 * 3 * SIZE**2 * 3 * 49 + 3 * 3
    assert (found.int8_macs, found.threads) == (0, 1)
    assert found.of_peak == pytest.approx(found.least_ms / found.latency_ms)


def test_weights_that_were_packed_for_int8_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgetl.bench.roofline._SIDES", (64,))
    monkeypatch.setattr("edgetl.bench.roofline._COPY_BYTES", 1 << 20)
    found, _ = measure(classifier(zero_point=0), np.zeros((1, 3, 32, 32), np.float32), threads=1)
    assert found.float_macs + found.int8_macs == 8 * 15 * 15 * 27 + 8 * 3


def test_another_engine_is_refused() -> None:
    check(EngineName.CPU)
    message = r"--roofline measures the peaks of ONNX Runtime on the CPU, and openvino is another engine: leave it out"
    with pytest.raises(ConfigError, match=message):
        check(EngineName.OPENVINO)
