"""The runtime on a bundle gives the predictions that training's evaluation gives with the network in torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import edgetl
from edgetl import config
from edgetl.bundle.golden import GoldenSet, encode_image
from edgetl.bundle.manifest import Provenance
from edgetl.bundle.pack import Contents, VariantSource, pack
from edgetl.data.index import DataIndex, build_index
from edgetl.export import onnx
from edgetl.inputs.image import PreprocessSpec, load_pixels, normalise
from edgetl.models import backbones
from edgetl.records.scores import value
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from edgetl.runtime.evaluate import evaluate_folder, find_samples, predict_outputs
from edgetl.tasks.base import Classification, joined
from edgetl.tasks.classification import scores
from edgetl.train import evaluate as training
from edgetl.train.sets import open_sets

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]

BACKBONE = "efficientnet_lite0"
PER_CLASS = 24
SPEC = PreprocessSpec(size=128, crop_fraction=0.875)


def fitted(index: DataIndex, folder: Path) -> torch.nn.Module:
    """The pretrained backbone with a head from class means of its features: a real classifier in seconds."""
    model = backbones.create(BACKBONE, len(index.labels)).eval()
    (head,) = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    seen: list[torch.Tensor] = []
    handle = head.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].detach()))
    labels: list[int] = []
    for label in range(len(index.labels)):
        samples = [s for s in index.split("train") if s.label == label][:PER_CLASS]
        pixels = np.stack([load_pixels(s.path, SPEC) for s in samples])
        with torch.inference_mode():
            model(torch.from_numpy(normalise(pixels, SPEC)))
        labels += [label] * len(samples)
    handle.remove()
    features, classes = torch.cat(seen), torch.tensor(labels)
    centre, spread = features.mean(0), features.std(0) + 1e-3
    means = torch.stack([features[classes == c].mean(0) for c in range(len(index.labels))])
    weight = (means - centre) / spread**2 / 100
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(-(weight * (means + centre)).sum(1) / 2)
    return model


@pytest.mark.parametrize("name", ["flowers12", "magnetic_tile"])
def test_predictions_are_those_of_training_s_evaluation(
    real_set: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    source = real_set(name)
    index = build_index(config.DataConfig(source=str(source)))
    model = fitted(index, tmp_path)
    test = open_sets(index, SPEC, tmp_path / "pixels").test
    assert test is not None
    in_torch = training.predict_outputs(model, test)
    bundle = packed(model, index, tmp_path)
    with edgetl.load(bundle) as session:
        _, samples, _ = find_samples(source, session.task.spec)
        own = predict_outputs(session, samples)["logits"]
        order = {str(s.path): i for i, s in enumerate(index.split("test"))}
        rows = [order[str(s.path)] for s in samples]
        assert len(rows) == len(test)
        different = own.argmax(1) != in_torch[rows].argmax(1)
        largest = float(np.abs(own - in_torch[rows]).max())
        scored = evaluate_folder(session, source)
        pixels = [
            np.array_equal(session.pixels(s.path), test.pixels[r]) for s, r in zip(samples, rows, strict=True)
        ]
        # As the user calls it, one by one: the same to the last bit.
        alone = np.array([session.predict(s.path).index for s in samples])
    expected = scores.evaluate(test.targets, in_torch, index.labels)
    print(
        f"\n{name}: {len(rows)} test images, top-1 {value(scored, 'top1'):.1%} and {value(expected, 'top1'):.1%}, "
        f"{different.sum()} other predictions, largest logit difference {largest:.2g}"
    )
    assert all(pixels)
    assert different.sum() == 0
    assert np.array_equal(alone, own.argmax(1))
    assert scored.detail == expected.detail
    assert value(scored, "top1") == value(expected, "top1")
    assert len(set(alone)) >= 3, "a network that always says the same proves nothing"


def packed(model: torch.nn.Module, index: DataIndex, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(
        onnx.to_bytes(onnx.to_onnx(model, task=Classification(labels=index.labels), spec=SPEC, opset=17))
    )
    images = tuple(encode_image(s.path, SPEC) for s in index.split("test")[:2])
    pixels = np.stack([load_pixels(image, SPEC) for image in images])
    with OnnxBackend(path, threads=1) as backend:
        outputs = joined([backend.run(normalise(row[None], SPEC)) for row in pixels])
    out = folder / "parity.edgetl"
    pack(
        Contents(
            name="parity",
            task=Classification(labels=index.labels),
            preprocess=SPEC,
            variants=[VariantSource(name="fp32", precision="fp32", target="any", model=path)],
            default="fp32",
            golden=GoldenSet(images=images, pixels=pixels, outputs={"fp32": outputs}),
            provenance=Provenance(),
        ),
        out,
    )
    return out
