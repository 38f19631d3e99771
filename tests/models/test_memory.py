from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from edgetl.models.memory import channels_last, kept_contiguous, needs_contiguous


@pytest.mark.parametrize(
    ("inputs", "kernel", "stride", "needed"),
    [
        (3, (1, 1), (2, 2), True),
        (1, (1, 1), (1, 2), True),
        (15, (1, 1), (2, 1), True),
        (16, (1, 1), (2, 2), False),
        (3, (1, 1), (1, 1), False),
        (3, (3, 3), (2, 2), False),
        (3, (2, 2), (2, 2), False),
    ],
)
def test_small_strided_pointwise_convolutions_need_contiguous_tensors(
    inputs: int, kernel: tuple[int, int], stride: tuple[int, int], needed: bool
) -> None:
    assert needs_contiguous(inputs, kernel, stride) is needed


def test_they_alone_keep_contiguous_weights_and_see_contiguous_images() -> None:
    stem = nn.Conv2d(3, 8, 1, stride=2)
    rest = nn.Conv2d(8, 8, 3)
    seen: list[tuple[int, ...]] = []
    model = copy.deepcopy(channels_last(channels_last(nn.Sequential(stem, rest))))
    handle = model[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].stride()))  # type: ignore[index]
    images = torch.rand(2, 3, 9, 9).to(memory_format=torch.channels_last)
    found = model(images)
    handle.remove()
    assert seen == [(243, 81, 9, 1)]
    assert len(model[0]._forward_pre_hooks) == 1  # type: ignore[index]
    assert model[0].weight.stride() == (3, 1, 1, 1)  # type: ignore[index]
    assert model[1].weight.stride() == (72, 1, 24, 8)  # type: ignore[index]
    plain = nn.Sequential(stem, rest)
    assert torch.allclose(found, plain(images), atol=1e-6)


def test_other_networks_are_laid_out_as_ever() -> None:
    def layout(model: nn.Module) -> list[tuple[int, ...]]:
        return [p.stride() for p in model.parameters()]

    def network() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(8, 8, 1), nn.Conv2d(16, 8, 1, stride=2))

    expected: nn.Module = network().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert layout(channels_last(network())) == layout(expected)
    assert layout(kept_contiguous(network())) == layout(network())
    assert not any(m._forward_pre_hooks for m in channels_last(network()).modules())


TRAINED = """
import torch
from torch import nn
from edgetl.models.memory import channels_last

torch.manual_seed(0)
model = channels_last(nn.Conv2d(3, 48, 1, stride=2))
images = torch.randn(8, 3, 96, 96).to(memory_format=torch.channels_last).requires_grad_()
for _ in range(10):
    model(images).relu().square().mean().backward()
    kept = [torch.randn(1000) for _ in range(50)]
assert torch.isfinite(model.weight.grad).all()
"""


def test_a_stem_of_repvgg_trains_without_corrupting_memory() -> None:
    """In a process of its own: without the mend it dies by a signal."""
    assert subprocess.run([sys.executable, "-c", TRAINED], check=False).returncode == 0


def test_gradients_are_those_of_contiguous_tensors() -> None:
    def gradient(model: nn.Conv2d, images: Tensor) -> Tensor:
        model(images).square().sum().backward()
        assert model.weight.grad is not None
        return model.weight.grad

    stem = nn.Conv2d(3, 8, 1, stride=2)
    twin = copy.deepcopy(stem)
    channels_last(twin)
    images = torch.rand(4, 3, 10, 10)
    assert torch.equal(gradient(stem, images), gradient(twin, images.to(memory_format=torch.channels_last)))
