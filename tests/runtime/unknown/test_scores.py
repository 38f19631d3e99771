"""Each score by its formula, and against pytorch-ood where that is installed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgetl.bundle.reference import Reference
from edgetl.inputs.looks import LOOKS, PIXELS
from edgetl.records.unknown import ScoreName
from edgetl.runtime.features import EMBEDDING
from edgetl.runtime.unknown import energy, softmax
from edgetl.runtime.unknown.looks import Looks
from edgetl.runtime.unknown.neighbours import Neighbours
from edgetl.runtime.unknown.scores import Features, names, scorer
from edgetl.runtime.unknown.vim import Vim
from edgetl.tasks.base import LOGITS, Classification, MultiHead, MultiLabel

ONE, ANY = Classification(labels=("a", "b", "c")), MultiLabel(labels=("x", "y"))
HEADS = MultiHead(heads={"kind": ONE, "marks": ANY})
FEATURES = 10


def layer(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(3, FEATURES)).astype(np.float32), generator.normal(size=3).astype(
        np.float32
    )


def images(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).gamma(1.0, 1.0, (count, FEATURES)).astype(np.float32)


def pictures(count: int, seed: int) -> np.ndarray:
    """Looks whose first and second move together, and whose third is always the same."""
    found = np.random.default_rng(seed).normal(100, 10, (count, len(LOOKS)))
    found[:, 1] = found[:, 0] + np.random.default_rng(seed).normal(0, 1, count)
    found[:, 2] = 50
    return found.astype(np.float32)


def features(training: int = 40, fresh: int = 30) -> Features:
    weights, bias = layer()
    return Features(
        reference=Reference(
            embeddings=images(training, 1),
            classes=np.zeros(training, np.int32),
            means=np.zeros((0, FEATURES), np.float32),
            counts=np.zeros(3, np.int32),
            validation=images(fresh, 2),
            validation_classes=np.zeros(fresh, np.int32),
            logits={LOGITS: images(fresh, 2) @ weights.T + bias},
            looks=pictures(training, 4),
            validation_looks=pictures(fresh, 5),
        ),
        weights={LOGITS: weights},
    )


def outputs(count: int = 6, seed: int = 3) -> dict[str, np.ndarray]:
    weights, bias = layer()
    found = images(count, seed)
    return {EMBEDDING: found, LOGITS: found @ weights.T + bias, PIXELS: pictures(count, seed)}


def test_softmax_and_energy_by_hand() -> None:
    logits = np.log(np.array([[1.0, 2.0, 1.0], [1.0, 1.0, 1.0]]))
    np.testing.assert_allclose(softmax.score(ONE, {LOGITS: logits}), [0.5, 2 / 3], rtol=1e-6)
    np.testing.assert_allclose(energy.score(ONE, {LOGITS: logits}), -np.log([4.0, 3.0]))
    tags = np.array([[0.0, np.log(3.0)]])
    np.testing.assert_allclose(softmax.score(ANY, {LOGITS: tags}), [0.25])
    np.testing.assert_allclose(energy.score(ANY, {LOGITS: tags}), -np.log([2 * 4.0]))
    heads = {"kind": logits[:1], "marks": tags}
    np.testing.assert_allclose(softmax.score(HEADS, heads), [(0.5 + 0.25) / 2], rtol=1e-6)
    np.testing.assert_allclose(energy.score(HEADS, heads), -np.log([4.0 * 8.0]))
    assert np.isfinite(energy.score(ONE, {LOGITS: np.full((1, 3), 1e4)})).all()


def test_the_neighbour_is_one_in_a_thousand() -> None:
    known = np.eye(3, dtype=np.float32)
    found = Neighbours(known).score(np.array([[5.0, 0.0, 0.0], [1.0, 1.0, 0.0]]))
    np.testing.assert_allclose(found, [0.0, np.sqrt(2 - np.sqrt(2))], atol=1e-3)
    np.testing.assert_allclose(Neighbours(known, k=3).score(known[:1]), [np.sqrt(2.0)], rtol=1e-6)
    many = np.random.default_rng(0).random((2500, 4))
    exact = np.sort(np.linalg.norm(unit(many[:5])[:, None] - unit(many)[None], axis=2), axis=1)[:, 1]
    np.testing.assert_allclose(Neighbours(many).score(many[:5]), exact, atol=1e-3)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_vim_is_the_energy_inside_the_space_and_more_outside() -> None:
    """Training embeddings in a plane: what lies in it has no virtual logit."""
    weights = np.array([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    plane = np.pad(images(20, 0)[:, :2], ((0, 0), (0, 2)))
    fresh = plane + np.array([0.0, 0.0, 0.5, 0.0])
    vim = Vim(plane, weights=weights, bias=np.zeros(2), fresh=fresh, logits=fresh @ weights.T)
    inside, outside = np.array([[3.0, 4.0, 0.0, 0.0]]), np.array([[3.0, 4.0, 0.0, 2.0]])
    energies = np.array([-1.0])
    np.testing.assert_allclose(vim.score(inside, energies), energies, atol=1e-6)
    alpha = (fresh @ weights.T).max(axis=1).sum() / (20 * 0.5)
    np.testing.assert_allclose(vim.score(outside, energies), energies + 2.0 * alpha, rtol=1e-6)


@pytest.mark.parametrize("name", ScoreName)
def test_a_score_is_a_number_for_each_image(name: ScoreName) -> None:
    found = scorer(name, ONE, features())(outputs())
    assert (found.shape, found.dtype) == ((6,), np.float64)
    assert np.isfinite(found).all()
    far = {
        EMBEDDING: outputs()[EMBEDDING][:, ::-1] * 0 - 3.0,
        LOGITS: np.zeros((6, 3)),
        PIXELS: pictures(6, 3),
    }
    if name is not ScoreName.ENERGY:
        assert (scorer(name, ONE, features())(far) > np.median(found)).all()


def test_without_features_two_scores_are_left() -> None:
    assert names(None) == (ScoreName.SOFTMAX, ScoreName.ENERGY)
    assert names(features()) == tuple(ScoreName)


def test_an_older_reference_has_no_looks() -> None:
    known = features()
    older = replace(known.reference, looks=known.reference.looks[:0])
    assert names(replace(known, reference=older)) == tuple(ScoreName)[:-1]


def test_looks_count_where_they_are_stranger_than_known_ones() -> None:
    known, seen, fresh = pictures(200, 0), pictures(100, 1), np.arange(100.0)
    looks = Looks(known, seen, fresh)
    usual = known.mean(axis=0, keepdims=True)
    middle, high = np.quantile(fresh, (0.5, 0.95))
    np.testing.assert_allclose(looks.score(usual, np.array([middle])), [0.0])
    np.testing.assert_allclose(looks.score(usual, np.array([high])), [1.0])
    # Ten brighter with ten fewer highlights: usual each by itself, never together.
    apart, third = usual + np.eye(7)[:1] * 10 - np.eye(7)[1:2] * 10, usual + np.eye(7)[2:3] * 2
    together = usual + (np.eye(7)[:1] + np.eye(7)[1:2]) * 10
    strange = np.array([middle])
    assert looks.score(together, strange)[0] == 0.0
    assert looks.score(apart, strange)[0] > 1.0
    assert looks.score(third, strange)[0] == 0.0
    assert looks.score(usual + np.eye(7)[2:3] * 20, strange)[0] > 1.0
    share = (looks.score(pictures(1000, 9), np.full(1000, middle)) > 0).mean()
    assert 0.01 < share < 0.12
    one = Looks(known[:1], seen[:1], fresh[:1])
    assert np.isfinite(one.score(seen, fresh)).all()


def test_vim_finds_the_bias_that_a_bundle_does_not_hold() -> None:
    weights, bias = layer()
    own, known = scorer(ScoreName.VIM, ONE, features()), features().reference
    told = Vim(
        known.embeddings, weights=weights, bias=bias, fresh=known.validation, logits=known.logits[LOGITS]
    )
    shown = outputs()
    np.testing.assert_allclose(own(shown), told.score(shown[EMBEDDING], energy.score(ONE, shown)), rtol=1e-4)


def test_scores_are_those_of_pytorch_ood() -> None:
    torch = pytest.importorskip("torch")
    detector: Any = pytest.importorskip(
        "pytorch_ood.detector", reason="pytorch-ood, of the bench extra, is not installed"
    )
    shown, known = outputs(50), features(40).reference
    logits, found = torch.from_numpy(shown[LOGITS]), torch.from_numpy(shown[EMBEDDING])
    for name, wanted in (
        (ScoreName.SOFTMAX, 1 + detector.MaxSoftmax.score(logits)),
        (ScoreName.ENERGY, detector.EnergyBased.score(logits)),
    ):
        np.testing.assert_allclose(scorer(name, ONE)(shown), wanted.numpy(), rtol=1e-5, atol=1e-6)
    trained, labels = torch.from_numpy(known.embeddings), torch.zeros(40, dtype=torch.long)
    for k in (1, 7):
        peer = detector.KNN(None, k=k).fit_features(trained, labels)
        np.testing.assert_allclose(
            Neighbours(known.embeddings, k=k).score(shown[EMBEDDING]),
            peer.predict_features(found).numpy(),
            atol=1e-3,
        )
    weights, bias = layer()
    peer = detector.ViM(None, d=4, w=torch.from_numpy(weights), b=torch.from_numpy(bias))
    peer.fit_features(trained, labels)
    own = Vim(
        known.embeddings,
        weights=weights,
        bias=bias,
        fresh=known.embeddings,
        logits=known.embeddings @ weights.T + bias,
        dimension=4,
    )
    np.testing.assert_allclose(
        own.score(shown[EMBEDDING], energy.score(ONE, shown)),
        peer.predict_features(found).numpy(),
        rtol=1e-4,
        atol=1e-4,
    )
