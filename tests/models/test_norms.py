from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from edgetl.models.norms import batch_norms, rebase, recalibrate


def _network() -> nn.Module:
    """Of statistics that another set of images left."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3),
            nn.BatchNorm2d(8),
            nn.Flatten(),
            nn.LazyLinear(16),
            nn.BatchNorm1d(16),
            nn.BatchNorm1d(16, affine=False),
            nn.Linear(16, 4),
        )
        model.eval()(torch.zeros(1, 3, 8, 8))
        for norm in batch_norms(model).values():
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.normal_(0.5, 1.0)
            norm.running_var.uniform_(0.2, 4.0)
            if norm.affine:
                norm.weight.data.normal_()
                norm.bias.data.normal_()
        return model.eval()


@pytest.fixture
def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [3.0 + 2.0 * torch.randn(12, 3, 8, 8, generator=generator) for _ in range(3)]


def test_rebased_norms_compute_what_they_did(batches: list[Tensor]) -> None:
    model = _network()
    twin = copy.deepcopy(model)
    rebase(model, [*batch_norms(model)], batches)
    for images in (*batches, torch.full((2, 3, 8, 8), 50.0)):
        assert torch.allclose(model(images), twin(images), rtol=1e-3, atol=1e-3)
    first = model.get_submodule("1")
    assert isinstance(first, nn.BatchNorm2d)
    assert first.running_var is not None
    inputs = model.get_submodule("0")(torch.cat(batches))
    assert torch.allclose(first.running_var, inputs.var(dim=(0, 2, 3)), rtol=0.05)


def test_measuring_anew_moves_a_rebased_network_by_what_was_cut_alone(batches: list[Tensor]) -> None:
    """Nothing was cut here, so nothing may change; without rebasing other statistics make another network of it."""
    model = _network()
    names = [name for name, norm in batch_norms(model).items() if norm.affine]
    del model[8]  # type: ignore[attr-defined]
    expected = torch.cat([model(images) for images in batches]).argmax(1)
    plain = copy.deepcopy(model)
    recalibrate(plain, batches)
    changed = (torch.cat([plain(images) for images in batches]).argmax(1) != expected).float().mean()
    assert changed > 0.2
    rebase(model, names, batches)
    recalibrate(model, batches)
    assert torch.equal(torch.cat([model(images) for images in batches]).argmax(1), expected)


def test_norms_that_are_not_named_or_see_nothing_stay(batches: list[Tensor]) -> None:
    model = _network()
    before = copy.deepcopy(model.state_dict())
    rebase(model, [], batches)
    rebase(model, [*batch_norms(model)], [])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    rebase(model, ["4"], batches)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"4.{part}" for part in ("weight", "bias", "running_mean", "running_var")}
