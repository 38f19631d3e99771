"""Run the float graph on the calibration images and observe every planned activation, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgetl.errors import DataError, ModelError
from edgetl.progress import SILENT, Progress
from edgetl.quantize.observers import Histogram
from edgetl.quantize.score import check_shape, open_session

Array = NDArray[np.float32]


def observe(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    batches: Iterable[Array],
    *,
    images: int,
    threads: int | None = None,
    progress: Progress = SILENT,
) -> dict[str, Histogram]:
    """Histograms of the named tensors over all images. Memory does not grow with their number.

    Args:
        model: the float model, with one input.
        tensors: float tensors of the graph; its input may be among them.
        batches: each (n, 3, S, S) float32.
        images: how many there will be, for the progress bar.
        threads: of the engine; all cores where None.
        progress: where to report.

    Raises:
        DataError: there were no images, or they are of the wrong shape.
        ModelError: the model does not load, or an activation holds NaN or infinity; the message names it.
        MissingDependencyError: onnxruntime is absent.
    """
    source = model.graph.input[0].name
    inner = [name for name in tensors if name != source]
    session = open_session(_with_outputs(model, inner), threads=threads)
    shape = tuple(session.get_inputs()[0].shape)
    histograms = {name: Histogram() for name in tensors}
    with progress.task("calibrate", images) as task:
        for batch, outputs in _runs(session, inner, source, shape, batches):
            if source in histograms:
                histograms[source].observe(batch)
            for name, values in zip(inner, outputs, strict=True):
                histograms[name].observe(values)
            task.advance(len(batch))
    _check(histograms)
    return histograms


def _runs(
    session: Any, inner: Sequence[str], source: str, shape: tuple[Any, ...], batches: Iterable[Array]
) -> Iterator[tuple[Array, list[Array]]]:
    """Each batch with the tensors asked for; the engine runs the next one while the caller counts."""

    def run(batch: Array) -> tuple[Array, list[Array]]:
        check_shape(batch, shape)
        # Asked for no outputs, the engine would give all.
        return batch, session.run(inner, {source: batch}) if inner else []

    with ThreadPoolExecutor(1) as engine:
        running = None
        for batch in batches:
            following = engine.submit(run, batch)
            if running is not None:
                yield running.result()
            running = following
        if running is not None:
            yield running.result()


def _with_outputs(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    extended = onnx.ModelProto()
    extended.CopyFrom(model)
    present = {value.name for value in extended.graph.output}
    extended.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in tensors
        if name not in present
    )
    return extended


def _check(histograms: dict[str, Histogram]) -> None:
    for name, histogram in histograms.items():
        if not histogram.finite:
            raise ModelError(
                f"The activation {name!r} holds NaN or infinity on calibration images, so it has no range."
                " Look for diverged weights, or for images that are not normalised."
            )
        if histogram.images == 0:
            raise DataError("The calibration set is empty: no image came.")
