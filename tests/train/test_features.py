from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgetl.config import Augment
from edgetl.errors import Interrupted, ModelError
from edgetl.inputs.image import PreprocessSpec
from edgetl.models import backbones
from edgetl.models.backbones import classifier_names
from edgetl.train.evaluate import predict_outputs
from edgetl.train.features import compute, head_of
from edgetl.train.loop import fit
from edgetl.train.sets import PixelSet

from .test_loop import failing_at
from .tiny import TASK, entropy, fitting

NAMES = (
    "test_efficientnet",
    "test_resnet",
    "test_vit",
    "torchvision/mobilenet_v2",
)


def images(n: int, side: int = 32, seed: int = 0) -> PixelSet:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (n, side, side, 3)).astype(np.uint8)
    return PixelSet(pixels, (np.arange(n) % 3).astype(np.int64), PreprocessSpec(size=32))


@pytest.mark.parametrize("name", NAMES)
def test_the_head_on_features_gives_the_networks_own_logits(name: str, tmp_path: Path) -> None:
    model = backbones.create(name, 3, "none", seed=1).eval()
    data = images(5)
    head = head_of(model, classifier_names(model), 32)
    features = compute(model, classifier_names(model), data, tmp_path)
    assert features.features.shape[:2] == (1, 5)
    np.testing.assert_allclose(predict_outputs(head, features), predict_outputs(model, data), atol=1e-5)
    assert {id(p) for p in head.parameters()} == {id(p) for p in backbones.head_parameters(model)}


@pytest.mark.parametrize("name", ["torchvision/squeezenet1_1", "levit_128s"])
def test_logits_of_more_than_one_last_layer_are_refused(name: str) -> None:
    model = backbones.create(name, 3, "none")
    with pytest.raises(ModelError, match="do not come from one last layer"):
        head_of(model, classifier_names(model), 224)


def test_features_are_computed_once_for_the_same_weights_and_images(tmp_path: Path) -> None:
    model = backbones.create("test_resnet", 3, "none")
    first = compute(model, classifier_names(model), images(4), tmp_path)
    (path,) = tmp_path.glob("features-*.npy")
    made = path.stat().st_mtime_ns
    second = compute(model, classifier_names(model), images(4), tmp_path)
    assert path.stat().st_mtime_ns == made
    assert first.identity == second.identity
    with torch.no_grad():
        next(model.parameters()).add_(0.1)
    assert compute(model, classifier_names(model), images(4), tmp_path).identity != first.identity


def test_other_images_with_the_same_targets_have_features_of_their_own(tmp_path: Path) -> None:
    """Images without labels all have the same targets."""
    model, first = backbones.create("test_resnet", 3, "none"), images(4)
    second = replace(first, pixels=255 - first.pixels)
    found = [compute(model, classifier_names(model), own, tmp_path) for own in (first, second)]
    assert found[0].identity != found[1].identity
    assert (np.asarray(found[0].features) != np.asarray(found[1].features)).any()


def test_networks_that_differ_in_their_heads_alone_share_features(tmp_path: Path) -> None:
    model = backbones.create("test_resnet", 3, "none")
    layers = classifier_names(model)
    first = compute(model, layers, images(4), tmp_path)
    with torch.no_grad():
        model.get_submodule(layers[0]).weight.add_(0.1)
    again = compute(model, layers, images(4), tmp_path)
    assert len(list(tmp_path.glob("features-*.npy"))) == 1
    assert again.identity == first.identity
    np.testing.assert_allclose(
        predict_outputs(head_of(model, layers, 32), again), predict_outputs(model, images(4)), atol=1e-5
    )


def test_each_epoch_takes_the_next_augmented_view(tmp_path: Path) -> None:
    model = backbones.create("test_resnet", 3, "none")
    found = compute(
        model, classifier_names(model), images(4, 36), tmp_path, views=3, augment=Augment.BASIC, seed=2
    )
    assert found.features.shape[:2] == (3, 4)
    assert not np.array_equal(found.features[0], found.features[1])
    again = compute(
        model, classifier_names(model), images(4, 36), tmp_path / "b", views=3, augment=Augment.BASIC, seed=2
    )
    assert np.array_equal(found.features, again.features)


def test_a_resumed_head_on_features_ends_bit_identical(tmp_path: Path) -> None:
    results = []
    for stop in (None, 7):
        model = backbones.create("test_resnet", 3, "none", seed=1)
        train, val = (
            compute(model, classifier_names(model), images(20), tmp_path),
            compute(model, classifier_names(model), images(6, seed=1), tmp_path),
        )
        how, state = fitting(phase="head", trainable=None), tmp_path / "s"
        if stop:
            broken = backbones.create("test_resnet", 3, "none", seed=1)
            halting = failing_at(stop, KeyboardInterrupt())
            with pytest.raises(Interrupted):
                fit(
                    head_of(broken, classifier_names(broken), 32),
                    how,
                    train=train,
                    val=val,
                    task=TASK,
                    objective=halting,
                    state=state,
                )
        fit(
            head_of(model, classifier_names(model), 32),
            how,
            train=train,
            val=val,
            task=TASK,
            objective=entropy(0.1),
            state=state if stop else None,
        )
        results.append(model.state_dict())
    assert all(torch.equal(v, results[1][k]) for k, v in results[0].items())


@pytest.mark.serial
def test_epochs_on_features_are_far_faster(tmp_path: Path) -> None:
    model = backbones.create("test_vit", 3, "none")
    data = images(64)
    started = time.perf_counter()
    plain = fitting(phase="head", trainable=backbones.head_parameters, ema=0.0, epochs=1)
    fit(model, plain, train=data, val=data, task=TASK, objective=entropy(), state=None)
    uncached = time.perf_counter() - started
    features = compute(model, classifier_names(model), data, tmp_path)
    how = fitting(phase="head", ema=0.0, epochs=4)
    history = fit(
        head_of(model, classifier_names(model), 32),
        how,
        train=features,
        val=features,
        task=TASK,
        objective=entropy(),
        state=None,
    )
    assert min(e.seconds for e in history) < uncached / 2
