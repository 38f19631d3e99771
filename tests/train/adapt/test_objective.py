from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetl.train.adapt.objective import Adversary, Aligned
from edgetl.train.objective import Batch, Hard

IMAGES = torch.linspace(-1, 1, 6 * 3).reshape(6, 3, 1, 1)


class _Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.classifier = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.body(images.flatten(1)))
        return logits


def batch(domain: list[int] | None) -> Batch:
    return Batch(
        images=IMAGES,
        targets=torch.tensor([0, 1, 0, 0, 0, 0]),
        labelled=torch.tensor([True, True, True, False, False, False]),
        domain=None if domain is None else torch.tensor(domain),
    )


def aligned(weight: float = 2.0) -> Aligned:
    return Aligned(
        hard=Hard(hard_loss=F.cross_entropy),
        distance=lambda a, b: (a.mean(0) - b.mean(0)).square().sum(),
        layer="classifier",
        weight=weight,
    )


def test_the_loss_adds_the_weighted_distance_of_the_last_layer_s_inputs() -> None:
    network = _Network()
    features = network.body(IMAGES.flatten(1))
    apart = (features[:3].mean(0) - features[3:].mean(0)).square().sum()
    plain = F.cross_entropy(network(IMAGES)[:3], torch.tensor([0, 1, 0]))
    assert aligned().loss(network, batch([0, 0, 0, 1, 1, 1])).item() == pytest.approx(
        (plain + 2 * apart).item()
    )


@pytest.mark.parametrize("domain", [None, [0] * 6, [0, 0, 0, 0, 0, 1]])
def test_one_domain_or_a_single_image_of_the_other_has_no_distance(domain: list[int] | None) -> None:
    network = _Network()
    plain = F.cross_entropy(network(IMAGES)[:3], torch.tensor([0, 1, 0]))
    assert aligned().loss(network, batch(domain)).item() == pytest.approx(plain.item())


def test_the_adversary_learns_to_tell_domains_and_the_features_to_deceive_it() -> None:
    adversary = Adversary(2, steps=10, seed=0).train()
    source = torch.randn(8, 2, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
    adversary(source, source.detach() + 1).backward()
    assert source.grad is not None
    assert not source.grad.any()  # at the first step the gradient is turned off
    assert int(adversary.done) == 1
    adversary.done.fill_(10)
    source.grad = None
    adversary.zero_grad()
    loss = adversary(source, source.detach() + 1)
    loss.backward()
    plain = source.detach().clone().requires_grad_(True)
    verdict = adversary.judge(plain)[:, 0]
    (F.binary_cross_entropy_with_logits(verdict, torch.zeros(8)) / 2).backward()
    assert plain.grad is not None
    assert torch.allclose(source.grad, -0.9999 * plain.grad, atol=1e-6)


def test_the_adversary_s_count_travels_with_its_state_and_its_weights_follow_the_seed() -> None:
    adversary = Adversary(2, steps=10, seed=3).train()
    adversary(torch.zeros(2, 2), torch.ones(2, 2))
    again = Adversary(2, steps=10, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(adversary.parameters(), again.parameters(), strict=True))
    again.load_state_dict(adversary.state_dict())
    assert int(again.done) == 1
    again.eval()(torch.zeros(2, 2), torch.ones(2, 2))
    assert int(again.done) == 1
