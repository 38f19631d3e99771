from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from edgetl.errors import DataError, ModelError
from edgetl.quantize.calibrate import observe
from tests.quantize import networks


def _batches(images: np.ndarray, size: int) -> list[np.ndarray]:
    return [images[start : start + size] for start in range(0, len(images), size)]


def test_the_inputs_histogram_holds_every_pixel() -> None:
    images = networks.images(10)
    found = observe(networks.exported(), ["images", "logits"], _batches(images, 4), images=10)
    assert set(found) == {"images", "logits"}
    assert found["images"].total == images.size
    assert (found["images"].low, found["images"].high) == (images.min(), images.max())
    assert found["logits"].total == 10 * 3


def test_the_batch_size_does_not_matter() -> None:
    model = networks.exported()
    inner = model.graph.node[0].output[0]
    one = observe(model, [inner], _batches(networks.images(12), 1), images=12)[inner]
    other = observe(model, [inner], _batches(networks.images(12), 5), images=12)[inner]
    assert one.images == other.images == 12
    assert one.total == other.total
    # The engine's kernels differ by the batch in the last bit, which may move a value over a bin's edge.
    assert np.abs(one.counts - other.counts).sum() <= 1e-3 * one.total


def test_no_images_is_an_error() -> None:
    with pytest.raises(DataError, match="The calibration set is empty"):
        observe(networks.exported(), ["images"], [], images=0)


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(DataError, match=r"shape \(2, 3, 16, 16\) and type float32; the model's input is"):
        observe(networks.exported(), ["images"], [networks.images(2, size=16)], images=2)
    with pytest.raises(DataError, match="type float64"):
        observe(networks.exported(), ["images"], [networks.images(2).astype(np.float64)], images=2)


def test_activations_that_are_not_finite_are_named() -> None:
    model = networks.graph(
        [
            helper.make_node("Conv", ["images", "w"], ["a"], "conv"),
            helper.make_node("Log", ["a"], ["b"], "log"),
            helper.make_node("Conv", ["b", "v"], ["logits"], "last"),
        ],
        {"w": networks.weights(4, 3, 1, 1), "v": networks.weights(4, 4, 1, 1)},
    )
    with pytest.raises(ModelError, match="The activation 'b' holds NaN or infinity on calibration images"):
        observe(model, ["a", "b"], [networks.images(4, size=8)], images=4)
