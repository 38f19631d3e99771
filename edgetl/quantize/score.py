"""Run a quantized model in ONNX Runtime, as this machine does it or as its target would.

Integer kernels differ: on x86 without VNNI sums of products can saturate in 16 bits, which a model made for another
CPU does not allow for. So a model that is not made for this machine is run with its Q/DQ pairs carried out in
float32, which is what the pairs mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, assert_never

import numpy as np
import onnx
from numpy.typing import NDArray

from edgetl.errors import DataError, ModelError
from edgetl.export.graphs import import_onnxruntime
from edgetl.processor import computes
from edgetl.tasks.base import (
    LOGITS,
    Classification,
    Detection,
    MultiHead,
    MultiLabel,
    Outputs,
    TaskSpec,
    joined,
)

Array = NDArray[np.float32]


def open_session(
    model: onnx.ModelProto | bytes | Path, *, integers: bool = True, threads: int | None = None
) -> Any:
    """An ONNX Runtime session on the CPU.

    Args:
        model: the model, its bytes or its file.
        integers: fuse Q/DQ pairs into integer kernels; else carry them out in float32.
        threads: of the engine; all cores where None.

    Raises:
        ModelError: the model does not load.
        MissingDependencyError: onnxruntime is absent.
    """
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    # Between batches the cores belong to the histograms, not to waiting engine threads.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not integers:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    content = model.SerializeToString() if isinstance(model, onnx.ModelProto) else model
    try:
        return ort.InferenceSession(
            str(content) if isinstance(content, Path) else content,
            options,
            providers=["CPUExecutionProvider"],
        )
    except Exception as error:
        raise ModelError(f"ONNX Runtime cannot load the model: {error}") from error


def simulated(model: Path | bytes) -> Callable[[Array], Outputs]:
    """A model as a function from a batch to its outputs by name, its quantization carried out in float32."""
    session = open_session(model, integers=False)
    source, names = session.get_inputs()[0].name, [tensor.name for tensor in session.get_outputs()]
    return lambda batch: dict(zip(names, session.run(names, {source: batch}), strict=True))


def outputs(
    model: onnx.ModelProto | bytes | Path,
    batches: Iterable[Array],
    *,
    target: str = "any",
    threads: int | None = None,
) -> dict[str, Array]:
    """A model's outputs for batches (n, 3, S, S) float32, as the target would give them.

    Raises:
        DataError: the images do not fit the model.
        ModelError: the model does not load.
    """
    session = open_session(model, integers=computes(target), threads=threads)
    source, names = session.get_inputs()[0].name, [tensor.name for tensor in session.get_outputs()]
    shape, parts = tuple(session.get_inputs()[0].shape), list[dict[str, Array]]()
    for batch in batches:
        check_shape(batch, shape)
        parts.append(dict(zip(names, session.run(names, {source: batch}), strict=True)))
    return joined(parts)


def divergence(spec: TaskSpec, expected: Outputs, found: Outputs) -> float:
    """Mean KL divergence, in nats, of the answers' probabilities by `expected` from those by `found`.

    Of several classes per image it is the sum over the classes, of several heads the sum over the heads. Of a
    detector it is the power of the outputs' differences over that of the expected ones.

    Args:
        spec: the task.
        expected, found: its outputs by name; where `found` is not finite, it is infinitely far.
    """
    match spec:
        case Classification():
            return _divergence(expected[LOGITS], found[LOGITS], _log_softmax)
        case MultiLabel():
            return _divergence(expected[LOGITS], found[LOGITS], _log_sigmoids)
        case MultiHead():
            return sum(
                divergence(head, {LOGITS: expected[name]}, {LOGITS: found[name]})
                for name, head in spec.heads.items()
            )
        case Detection():
            return sum(_relative_power(expected[name], found[name]) for name in expected)
        case _:
            assert_never(spec)


def _relative_power(expected: NDArray[Any], found: NDArray[Any]) -> float:
    """The power of the difference over that of `expected`."""
    if not np.isfinite(found).all():
        return float("inf")
    want, have = expected.astype(np.float64), found.astype(np.float64)
    return float(np.square(want - have).sum() / max(float(np.square(want).sum()), np.finfo(np.float64).tiny))


def _divergence(
    expected: NDArray[Any], found: NDArray[Any], log_probabilities: Callable[[NDArray[Any]], NDArray[Any]]
) -> float:
    if not np.isfinite(found).all():
        return float("inf")
    p, q = (log_probabilities(values.astype(np.float64)) for values in (expected, found))
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())


def _log_sigmoids(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 2 C): of every class, that it is there and that it is not."""
    return -np.concatenate([np.logaddexp(0.0, -values), np.logaddexp(0.0, values)], axis=1)


def _log_softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = values - values.max(axis=1, keepdims=True)
    found: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found


def check_shape(batch: Array, shape: tuple[object, ...]) -> None:
    """Raise DataError where a batch does not fit the model's input."""
    fits = batch.ndim == len(shape) and all(
        not isinstance(wanted, int) or wanted == came
        for wanted, came in zip(shape[1:], batch.shape[1:], strict=True)
    )
    if not fits or batch.dtype != np.float32:
        raise DataError(
            f"Images have the shape {batch.shape} and type {batch.dtype}; the model's input is"
            f" {shape} float32. Use the preprocessing that the model was exported with."
        )
