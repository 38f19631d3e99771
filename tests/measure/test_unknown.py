"""The score that is used is the one that was measured to be better, else the one that costs nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgetl.bundle.reference import Reference
from edgetl.inputs.looks import LOOKS, PIXELS
from edgetl.measure.far import KINDS, far
from edgetl.measure.reference import Known
from edgetl.measure.unknown import measure
from edgetl.records.codec import from_json, to_json
from edgetl.records.unknown import ScoreName, UnknownRecord
from edgetl.runtime.features import EMBEDDING
from edgetl.runtime.unknown.scores import Features
from edgetl.tasks.base import LOGITS, Classification, MultiLabel

SPEC = Classification(labels=("a", "b", "c", "d"))
FEATURES = 12


def network(found: np.ndarray, heed: float) -> dict[str, np.ndarray]:
    """Logits by the first four features; with `heed` 0 they say nothing."""
    return {EMBEDDING: found.astype(np.float32), LOGITS: (heed * found[:, :4]).astype(np.float32)}


def known(*, apart: float, heed: float, seed: int = 0) -> Known:
    """Four classes, each along a feature of its own; what is far lies along others, too."""
    generator = np.random.default_rng(seed)

    def images(classes: np.ndarray) -> np.ndarray:
        return np.eye(4, FEATURES)[classes] * 3 + generator.normal(0, 0.5, (len(classes), FEATURES))

    classes = np.arange(80) % 4
    trained, fresh, tested = (images(classes) for _ in range(3))
    strange = fresh[:40].copy()
    strange[:, 4:8] += apart
    outputs = network(fresh, heed)
    weights = np.zeros((4, FEATURES), np.float32)
    weights[:, :4] = heed * np.eye(4)
    return Known(
        features=Features(
            reference=Reference(
                embeddings=trained.astype(np.float32),
                classes=classes.astype(np.int32),
                means=np.zeros((0, FEATURES), np.float32),
                counts=np.full(4, 20, np.int32),
                validation=outputs[EMBEDDING],
                validation_classes=classes.astype(np.int32),
                logits={LOGITS: outputs[LOGITS]},
            ),
            weights={LOGITS: weights},
        ),
        validation=outputs,
        test=network(tested, heed),
        far={"strange": network(strange, heed)},
        far_of=np.arange(40),
    )


CLASSES = (np.arange(80) % 4).astype(np.int32)


def test_features_are_used_where_they_tell_more() -> None:
    found = measure(MultiLabel(labels=SPEC.labels), known(apart=2.9, heed=1.0), CLASSES)
    assert found.score in (ScoreName.NEIGHBOURS, ScoreName.VIM)
    assert found.p_value is not None
    assert found.p_value < 0.05
    assert "does better than softmax: AUROC" in found.note
    by_name = {trial.score: trial for trial in found.trials}
    assert set(by_name) == set(ScoreName) - {ScoreName.LOOKS}
    assert by_name[found.score].mean == max(trial.mean for trial in found.trials)
    for trial in found.trials:
        assert trial.near is None
        assert trial.mean == trial.far
    assert (found.images, found.asked, len(found.ranked)) == (80, 0.05, 80)
    assert found.false_alarms is not None
    assert found.false_alarms.value <= 0.15
    assert from_json(UnknownRecord, to_json(found)) == found


def test_looks_are_used_where_pictures_give_themselves_away() -> None:
    """What is far has quite usual features, and another light."""
    one, generator = known(apart=0.5, heed=1.0), np.random.default_rng(5)
    assert one.features is not None

    def looks(count: int, light: float) -> np.ndarray:
        return generator.normal(100 + light, 5, (count, len(LOOKS))).astype(np.float32)

    kept = replace(one.features.reference, looks=looks(80, 0), validation_looks=looks(80, 0))
    seen = replace(
        one,
        features=replace(one.features, reference=kept),
        validation={**one.validation, PIXELS: kept.validation_looks},
        test=None,
        far={"strange": {**one.far["strange"], PIXELS: looks(40, 40)}},
    )
    found = measure(MultiLabel(labels=SPEC.labels), seen, CLASSES)
    assert {trial.score for trial in found.trials} == set(ScoreName)
    assert found.score is ScoreName.LOOKS
    near = {trial.score: trial for trial in measure(SPEC, seen, CLASSES).trials}
    vim, own = near[ScoreName.VIM].near, near[ScoreName.LOOKS].near
    assert vim is not None
    assert own == pytest.approx(vim, abs=0.03)


def test_what_tells_far_pictures_alone_is_not_used() -> None:
    found = measure(SPEC, known(apart=2.9, heed=3.0), CLASSES)
    trials = {trial.score: trial for trial in found.trials}
    plain, other = trials[ScoreName.SOFTMAX], trials[ScoreName.NEIGHBOURS]
    assert plain.near is not None
    assert other.near is not None
    assert plain.mean == pytest.approx((plain.near + plain.far) / 2)
    assert other.far > plain.far + 0.1
    assert other.near < plain.near + 0.02
    assert found.score is ScoreName.SOFTMAX
    assert "was not shown to do better than softmax: AUROC" in found.note


def test_softmax_stays_where_nothing_is_shown_to_do_better() -> None:
    found = measure(SPEC, known(apart=0.0, heed=3.0), CLASSES)
    assert found.score is ScoreName.SOFTMAX
    assert "softmax" in found.note


def test_by_chance_softmax_is_left_seldom() -> None:
    """Where nothing is far, and no class differs, every score is as good as none."""
    generator, left = np.random.default_rng(3), 0
    for seed in range(40):
        noise = [generator.normal(size=(80, FEATURES)) for _ in range(3)]
        one = known(apart=0.0, heed=1.0, seed=seed)
        assert one.features is not None
        kept = replace(
            one.features.reference,
            embeddings=noise[0].astype(np.float32),
            validation=noise[1].astype(np.float32),
            logits={LOGITS: noise[1][:, :4].astype(np.float32)},
        )
        plain = replace(
            one,
            features=replace(one.features, reference=kept),
            validation=network(noise[1], 1.0),
            far={"none": network(noise[2][:40], 1.0)},
        )
        left += measure(SPEC, plain, CLASSES).score is not ScoreName.SOFTMAX
    assert left <= 5


def test_without_features_or_classes_to_leave_out_far_pictures_decide() -> None:
    bare = replace(known(apart=2.9, heed=1.0), features=None, test=None)
    found = measure(SPEC, bare, CLASSES)
    assert [trial.score for trial in found.trials] == [ScoreName.SOFTMAX, ScoreName.ENERGY]
    assert found.false_alarms is None
    tags = measure(MultiLabel(labels=SPEC.labels), known(apart=2.9, heed=1.0), CLASSES)
    assert all(trial.near is None and trial.mean == trial.far for trial in tags.trials)


def test_few_images_state_no_rate() -> None:
    one = known(apart=2.9, heed=1.0)
    few = replace(
        one,
        validation={name: array[:12] for name, array in one.validation.items()},
        far_of=np.arange(40) % 12,
    )
    found = measure(SPEC, few, CLASSES[:12])
    assert (found.images, found.asked, found.false_alarms) == (12, None, None)


def test_far_pictures_are_made_of_the_images_and_equal_by_seed() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 18, 18, 3), dtype=np.uint8)
    classes = np.array([0, 0, 0, 1, 1, 1], np.int32)
    found, again = far(pixels, classes, 1), far(pixels, classes, 1)
    assert tuple(found) == KINDS
    for kind, made in found.items():
        assert (made.shape, made.dtype) == (pixels.shape, np.uint8)
        assert (made == again[kind]).all()
    assert not (far(pixels, classes, 2)["mosaic"] == found["mosaic"]).all()
    assert (found["inverted"] + pixels == 255).all()
    for row, before in zip(found["mosaic"], pixels, strict=True):
        assert not (row == before).all()
        assert np.sort(row, axis=None).tolist() == np.sort(before, axis=None).tolist()
    halves = [
        [(a.astype(int) + b) // 2 for b in pixels[classes != c]] for a, c in zip(pixels, classes, strict=True)
    ]
    assert all(
        any((row == one).all() for one in own) for row, own in zip(found["blend"], halves, strict=True)
    )
    assert far(pixels[:2], classes[:2], 1)["blend"].shape == (2, 18, 18, 3)
