from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgetl.train.tasks.classification import class_weights, cross_entropy, log_prior

LABELS = np.array([0, 0, 0, 0, 0, 0, 1, 1, 2])
LOGITS = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))


def test_plain_cross_entropy_is_torchs() -> None:
    labels = torch.from_numpy(LABELS)
    value = cross_entropy(0.1)(LOGITS, labels)
    assert torch.equal(value, F.cross_entropy(LOGITS, labels, label_smoothing=0.1))


def test_class_weights_make_classes_count_alike() -> None:
    weights = class_weights(LABELS, 3)
    counted = np.bincount(LABELS, weights=weights.numpy()[LABELS])
    assert counted == pytest.approx([3, 3, 3])
    assert weights.numpy()[LABELS].mean() == pytest.approx(1)
    value = cross_entropy(weights=weights)(LOGITS, torch.from_numpy(LABELS))
    each = F.cross_entropy(LOGITS, torch.from_numpy(LABELS), reduction="none").numpy()
    by_class = [each[c == LABELS].mean() for c in range(3)]
    assert value.item() == pytest.approx(np.mean(by_class), rel=1e-5)


def test_a_weighted_batch_is_the_mean_of_its_parts() -> None:
    loss, labels = cross_entropy(0.1, weights=class_weights(LABELS, 3)), torch.from_numpy(LABELS)
    parts = [loss(LOGITS[i : i + 3], labels[i : i + 3]) for i in (0, 3, 6)]
    torch.testing.assert_close(loss(LOGITS, labels), torch.stack(parts).mean())


def test_logit_adjustment_is_the_papers_loss() -> None:
    labels = torch.from_numpy(LABELS)
    value = cross_entropy(shift=log_prior(LABELS, 3))(LOGITS, labels)
    prior = np.array([6, 2, 1]) / 9
    shifted = LOGITS.numpy() + np.log(prior)
    expected = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(9), LABELS]
    assert value.item() == pytest.approx(expected.mean(), rel=1e-5)


def test_classes_without_images_break_nothing() -> None:
    assert torch.isfinite(class_weights(LABELS, 4)).all()
    assert torch.isfinite(log_prior(LABELS, 4)).all()


@pytest.mark.parametrize(
    "extra", [{}, {"weights": class_weights(LABELS, 3)}, {"shift": log_prior(LABELS, 3)}]
)
def test_shares_of_one_class_are_its_label(extra: dict[str, torch.Tensor]) -> None:
    labels = torch.from_numpy(LABELS)
    loss = cross_entropy(0.1, **extra)
    torch.testing.assert_close(loss(LOGITS, F.one_hot(labels, 3).float()), loss(LOGITS, labels))
