"""A graph that takes samples draws the picture that numpy draws, and answers as the network does."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest

from edgetl.errors import ModelError
from edgetl.export.bake import PICTURE, SAMPLES, bake_preprocess, bake_spectrogram
from edgetl.export.graphs import Probe
from edgetl.export.spectrogram import most_steps
from edgetl.inputs.image import Interpolation, normalise, to_pixels
from edgetl.inputs.spec import Level, PreprocessSpec, Resize
from tests.onnx_models import SIZE, classifier
from tests.sounds import RATE, SPEC, tone

PREPROCESS = PreprocessSpec(
    size=SIZE, resize=Resize.SQUASH, sound=SPEC, mean=(0.1, 0.5, 0.9), std=(0.2, 0.25, 0.3)
)
CASES = {
    "as it is": ({}, {}, 1),
    "spectra of an odd number of samples": ({"window_ms": 31.9}, {}, 1),
    "loudness counts": ({"level": Level.FULL_SCALE}, {}, 1),
    "some bands, a short range": ({"low_hz": 300.0, "high_hz": 3000.0, "mels": 32, "range_db": 40.0}, {}, 1),
    "taller": ({"mels": 20}, {}, 2),
    "taller and narrower": ({"mels": 20, "frames": 50}, {}, 3),
    "by the nearest": ({"mels": 20, "frames": 50}, {"interpolation": Interpolation.NEAREST}, 3),
}


def _windows() -> np.ndarray:
    rng = np.random.default_rng(0)
    sounds = [tone(hertz, 0.5, seed=at) for at, hertz in enumerate((60.0, 300.0, 1000.0, 2600.0))]
    quiet = np.zeros(SPEC.samples, np.float32)
    click = quiet.copy()
    click[[0, -1]] = 1.0
    loud = rng.normal(0, 0.2, SPEC.samples).astype(np.float32)
    return np.stack([*sounds, loud, 1e-5 * loud, click, quiet])


@pytest.mark.parametrize("case", CASES)
def test_the_picture_is_numpy_s_and_the_answer_the_network_s(case: str) -> None:
    sound, picture, steps = CASES[case]
    spec = dataclasses.replace(PREPROCESS, sound=dataclasses.replace(SPEC, **sound), **picture)
    plain, windows = onnx.load_from_string(classifier()), _windows()
    baked = bake_spectrogram(plain, spec)
    dims = [dim.dim_param or dim.dim_value for dim in baked.graph.input[0].type.tensor_type.shape.dim]
    assert (baked.graph.input[0].name, dims) == (SAMPLES, ["batch", round(RATE * 0.5)])
    read = {name for node in baked.graph.node for name in node.input}
    assert {tensor.name for tensor in baked.graph.initializer} <= read
    drawn, logits = Probe(baked, [PICTURE, "logits"]).run(windows)
    pixels = np.stack([to_pixels(window, spec) for window in windows])
    apart = np.abs(drawn[:, 0] - pixels[..., 0])
    assert most_steps(spec) == steps
    assert apart.max() <= steps
    assert (apart > 0).mean() < 0.01
    (expected,) = Probe(plain, ["logits"]).run(
        normalise(np.repeat(drawn[:, 0, :, :, None], 3, 3).astype(np.uint8), spec)
    )
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_a_sound_s_picture_goes_into_a_model_of_normalised_pictures_of_sounds_alone() -> None:
    plain = onnx.load_from_string(classifier())
    with pytest.raises(ModelError, match=r"images is .*expected \(batch, 3, H, W\) float32 to bake"):
        bake_spectrogram(bake_preprocess(plain, PREPROCESS), PREPROCESS)
    for other in (
        dataclasses.replace(PREPROCESS, sound=None),
        dataclasses.replace(PREPROCESS, resize=Resize.PAD),
    ):
        with pytest.raises(ModelError, match="looks at whole pictures of sounds only"):
            bake_spectrogram(plain, other)
