"""The choice of what ships."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgetl.measure.choice import choose
from edgetl.records.measured import Latency
from edgetl.records.variants import VariantScore
from edgetl.tasks.classification.scores import evaluate


def _variant(
    name: str, right: int, p50_ms: float, *, of: int = 100, size_bytes: int = 1, noise_ms: float = 0.0
) -> VariantScore:
    labels = np.arange(of) % 2
    scores = np.eye(2)[np.where(np.arange(of) < right, labels, 1 - labels)]
    latency = Latency(
        scenario="single-stream",
        batch=1,
        threads=2,
        warmup=1,
        runs=10,
        mean_ms=p50_ms,
        p50_ms=p50_ms,
        p90_ms=p50_ms,
        p99_ms=p50_ms,
        throughput=1000 / p50_ms,
        samples_ms=tuple(p50_ms + noise_ms * ((7 * i) % 11 - 5) / 5 for i in range(44)),
    )
    return VariantScore(
        name=name,
        precision=name,
        target="any",
        file=f"{name}.onnx",
        sha256="0" * 64,
        size_bytes=size_bytes,
        val=evaluate(labels, scores, ["a", "b"]),
        test=None,
        latency=latency,
    )


def test_the_fastest_variant_that_keeps_the_floor_ships() -> None:
    name, met, reason = choose([_variant("fp32", 97, 2.0), _variant("int8", 96, 1.0)], "top1", 0.95)
    assert (name, met) == ("int8", True)
    assert reason == (
        "int8 is the fastest variant that keeps top1 95.0% on the validation split: 1.00 ms at 96.0%; "
        "fp32 is slower (2.00 ms)"
    )


def test_a_variant_slower_than_float_never_ships() -> None:
    name, met, reason = choose([_variant("fp32", 97, 1.0), _variant("int8", 99, 1.1)], "top1", 0.95)
    assert (name, met) == ("fp32", True)
    assert "int8 is slower (1.10 ms)" in reason


def test_a_variant_a_little_slower_than_float_beyond_doubt_never_ships() -> None:
    """1% slower in every pair of calls: within what counts as equally fast, but not within the uncertainty."""
    fp32 = _variant("fp32", 97, 2.0, size_bytes=400, noise_ms=0.3)
    int8 = _variant("int8", 97, 2.02, size_bytes=100, noise_ms=0.303)
    name, met, reason = choose([fp32, int8], "top1", 0.95)
    assert (name, met) == ("fp32", True)
    assert reason.endswith("int8 is slower (2.02 ms)")


def test_a_variant_for_another_machine_is_not_judged_here() -> None:
    engine = replace(_variant("int8", 97, 0.5), name="int8-tensorrt", target="tensorrt")
    name, met, reason = choose([_variant("fp32", 97, 2.0), engine], "top1", 0.95)
    assert (name, met) == ("fp32", True)
    assert reason.endswith("int8-tensorrt is made for tensorrt, not for this machine")


def test_a_fast_variant_below_the_floor_does_not_ship() -> None:
    name, met, reason = choose([_variant("fp32", 97, 2.0), _variant("int8", 90, 1.0)], "top1", 0.95)
    assert (name, met) == ("fp32", True)
    assert "int8 falls below the floor (90.0%)" in reason


def test_of_equally_fast_variants_the_smallest_ships() -> None:
    fp32 = _variant("fp32", 97, 2.0, size_bytes=400, noise_ms=0.3)
    int8 = _variant("int8", 96, 2.01, size_bytes=100, noise_ms=-0.3)
    name, met, reason = choose([fp32, int8], "top1", 0.95)
    assert (name, met) == ("int8", True)
    assert reason.startswith("int8 is the smallest of the equally fast variants that keeps top1 95.0%")
    assert reason.endswith("fp32 is larger (2.00 ms)")


@pytest.mark.parametrize("metric", ["top1", "macro_f1", "balanced_accuracy"])
def test_where_none_keeps_the_floor_the_best_is_named_and_the_gate_fails(metric: str) -> None:
    name, met, reason = choose([_variant("fp32", 80, 2.0), _variant("int8", 70, 1.0)], metric, 0.95)
    assert (name, met) == ("fp32", False)
    assert reason.startswith(f"no variant keeps {metric} 95.0% on the validation split; fp32 comes nearest")
