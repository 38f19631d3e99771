from __future__ import annotations

import numpy as np
import pytest
import torch

from edgetl.config import Mix
from edgetl.train.seeds import numpy_generator
from edgetl.train.tasks.mixing import Mixing, mix

LABELS = torch.tensor([0, 1, 2, 1, 0, 2])
SHARES = torch.nn.functional.one_hot(LABELS, 3).float()
IMAGES = LABELS.float().view(-1, 1, 1, 1).expand(-1, 3, 8, 8).contiguous()


@pytest.mark.parametrize("kind", [Mix.MIXUP, Mix.CUTMIX, Mix.BOTH])
@pytest.mark.parametrize("seed", range(6))
def test_targets_follow_what_is_seen(kind: Mix, seed: int) -> None:
    images, targets = mix(IMAGES, SHARES, Mixing(kind, 1.0), numpy_generator(seed))
    assert targets.shape == (6, 3)
    torch.testing.assert_close(targets.sum(1), torch.ones(6))
    # an image of class c is filled with c: its mean is the expected class
    torch.testing.assert_close(images.mean(dim=(1, 2, 3)), targets @ torch.arange(3.0))
    assert torch.equal(IMAGES, LABELS.float().view(-1, 1, 1, 1).expand(-1, 3, 8, 8))


def test_mixup_blends_and_cutmix_pastes() -> None:
    blended, _ = mix(IMAGES, SHARES, Mixing(Mix.MIXUP, 1.0), numpy_generator(0))
    pasted, _ = mix(IMAGES, SHARES, Mixing(Mix.CUTMIX, 1.0), numpy_generator(0))
    assert any(v not in (0, 1, 2) for v in blended.unique())
    assert set(pasted.unique().tolist()) <= {0.0, 1.0, 2.0}
    assert not torch.equal(pasted, IMAGES)


def test_both_takes_turns_and_none_changes_nothing() -> None:
    fractional = []
    for seed in range(20):
        images, _ = mix(IMAGES, SHARES, Mixing(Mix.BOTH, 1.0), numpy_generator(seed))
        fractional.append(bool((images != images.round()).any()))
    assert {True, False} == set(fractional)
    images, targets = mix(IMAGES, SHARES, Mixing(Mix.NONE, 1.0), numpy_generator(0))
    assert torch.equal(images, IMAGES)
    assert np.array_equal(targets.argmax(1), LABELS)


def test_a_small_alpha_leaves_most_of_an_image() -> None:
    shares = [
        mix(IMAGES, SHARES, Mixing(Mix.MIXUP, 0.1), numpy_generator(s))[1].max(1).values.mean()
        for s in range(40)
    ]
    assert np.mean(shares) > 0.85
