"""Margins and scales of added classes, on figures whose distribution is known."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

from edgetl.bundle.reference import Reference
from edgetl.errors import BundleError
from edgetl.runtime import calibrating

GENERATOR = np.random.default_rng(3)
CENTRES = 4 * np.eye(4, 12)


def reference(images: int = 60, means: bool = True) -> Reference:
    """Four classes around the corners of a simplex, the first axis of which varies much within each class."""
    classes = np.arange(images, dtype=np.int32) % 4

    def draw() -> np.ndarray:
        noise = GENERATOR.normal(0, 0.5, (images, 12))
        noise[:, 11] *= 8
        return (CENTRES[classes] + noise).astype(np.float32)

    return Reference(
        embeddings=draw(),
        classes=classes,
        means=CENTRES.astype(np.float32) if means else np.zeros((0, 12), np.float32),
        counts=np.full(4, images // 4, dtype=np.int32),
        validation=draw(),
        validation_classes=classes,
        logits={"logits": np.zeros((images, 4), np.float32)},
    )


def test_a_margin_is_exceeded_as_often_as_stated() -> None:
    classes = (np.arange(4000) % 2).astype(np.int32)
    gaps = GENERATOR.normal(np.where(classes, -0.2, -1.0), 0.1)
    assert calibrating.margin(gaps, classes, 0.02) == pytest.approx(
        -0.2 + 0.1 * NormalDist().inv_cdf(0.96), abs=0.02
    )
    few = calibrating.margin(gaps[:3], classes[:3], 0.02)  # fewer than two a class: one distribution
    assert few > gaps[:3].max()


def test_a_margin_of_few_images_holds_for_further_ones() -> None:
    """On average over samples; a normal distribution fitted to ten would be exceeded twice as often as stated."""
    generator, classes, beyond = np.random.default_rng(5), np.zeros(10, np.int32), []
    for _ in range(300):
        found = calibrating.margin(generator.normal(0, 0.1, 10), classes, 0.01)
        beyond.append(1 - NormalDist(0, 0.1).cdf(found))
    assert 0.005 < np.mean(beyond) < 0.012


def test_a_margin_is_not_below_what_was_seen() -> None:
    classes = (np.arange(100) % 2).astype(np.int32)
    gaps = np.where(np.arange(100) == 7, 0.9, GENERATOR.normal(-0.5, 0.05, 100))
    assert calibrating.margin(gaps, classes, 0.001) >= 0.9
    assert calibrating.margin(gaps, classes, 0.05) < 0.9


@pytest.mark.parametrize("freedom", [9, 30, 200])
def test_students_distribution(freedom: int) -> None:
    for value in (-2.0, 0.0, 1.0, 3.0, 4.0):
        assert calibrating._student(value, freedom) == pytest.approx(stats.t.sf(value, freedom), rel=0.03)


def test_what_varies_within_a_class_is_damped() -> None:
    known = calibrating.known_classes(reference(), 4, 4, "b")
    space = calibrating.space_of(known)
    assert space.damped.shape == (12, 1)
    assert abs(space.damped[11, 0]) > 0.9
    assert 0.3 < space.damping[0] < 1.0
    assert np.allclose(space.damped.T @ space.damped, np.eye(1), atol=1e-5)


def test_a_class_that_is_far_is_found_and_known_ones_stay() -> None:
    whole = reference()
    far = (4 * np.eye(12)[5] + GENERATOR.normal(0, 0.5, (5, 12))).astype(np.float32)
    known = calibrating.known_classes(
        Reference(
            embeddings=np.concatenate([whole.embeddings, far]),
            classes=np.append(whole.classes, np.full(5, 4, np.int32)),
            means=np.concatenate([whole.means, far.mean(axis=0, keepdims=True)]),
            counts=np.append(whole.counts, np.int32(5)),
            validation=whole.validation,
            validation_classes=whole.validation_classes,
            logits=whole.logits,
        ),
        4,
        5,
        "b",
    )
    added = calibrating.calibrated(known, 2.0, 0.005)
    assert added.margins[0] >= 0.0
    assert added.scale > 2.0
    outputs = calibrating.logits(known, added)
    assert (outputs.argmax(axis=1) == 4).mean() <= 0.05
    assert calibrating.leave_one_out_hits(known, added, 4) == 5
    assert calibrating.like_known(known, added, far) == [None] * 5
    assert calibrating.like_known(known, added, CENTRES.astype(np.float32)) == [0, 1, 2, 3]


def test_means_come_from_the_images_where_they_are_not_kept() -> None:
    whole = reference(means=False)
    known = calibrating.known_classes(whole, 4, 4, "b")
    assert known.means[2] == pytest.approx(whole.embeddings[whole.classes == 2].mean(axis=0), abs=1e-6)
    with pytest.raises(BundleError, match="b keeps training images of 4 of its 5 classes"):
        calibrating.known_classes(whole, 5, 5, "b")


def test_too_few_validation_images_calibrate_nothing() -> None:
    with pytest.raises(BundleError, match="b keeps 8 validation images, and 10 are needed"):
        calibrating.known_classes(reference(images=8), 4, 4, "b")
