"""Arithmetic of training: which one `auto` is, and which convolutions are left out of bf16 on a CPU."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from edgetl.config import TrainPrecision
from edgetl.train.devices import accelerator, fast_on_cpu


def network() -> nn.Sequential:
    """A plain convolution, and grouped ones: 3 x 3, with a stride, of 5 x 5."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Conv2d(8, 8, 3, stride=2, groups=8),
        nn.Conv2d(8, 8, 5, groups=8),
    )


def computed_in(model: nn.Module) -> list[torch.dtype]:
    """What each layer's input is when the convolution itself runs under autocast, float32 where it is switched off."""
    found = []
    original = torch.conv2d

    def seen(images: Tensor, *rest: object) -> Tensor:
        found.append(torch.bfloat16 if torch.is_autocast_enabled("cpu") else images.dtype)
        return original(images, *rest)  # type: ignore[call-overload, no-any-return]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.functional, "conv2d", seen)
        model(torch.ones(1, 3, 20, 20))
    return found


def test_convolutions_that_are_slow_in_bf16_run_in_float32() -> None:
    torch.manual_seed(0)
    model, plain = network(), [torch.bfloat16, torch.bfloat16]
    with torch.autocast("cpu", torch.bfloat16):
        assert computed_in(model) == [*plain, *plain]
        with fast_on_cpu(model):
            assert computed_in(model) == [*plain, torch.float32, torch.float32]
            assert model(torch.ones(1, 3, 20, 20)).dtype == torch.bfloat16
        assert computed_in(model) == [*plain, *plain]
    assert not any("forward" in vars(module) for module in model)


def test_nothing_changes_in_float32() -> None:
    torch.manual_seed(0)
    model, images = network(), torch.rand(2, 3, 20, 20)
    expected = model(images)
    with fast_on_cpu(model):
        assert torch.equal(model(images), expected)


def test_gradients_are_those_of_float32_but_for_rounding() -> None:
    torch.manual_seed(0)
    model, images = network(), torch.rand(4, 3, 20, 20)
    other = deepcopy(model)
    model(images).square().mean().backward()
    with fast_on_cpu(other), torch.autocast("cpu", torch.bfloat16):
        loss = other(images).float().square().mean()
        loss.backward()
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert one.grad is not None
        assert two.grad is not None
        assert two.grad.dtype == torch.float32
        # bf16 keeps 8 bits
        assert (one.grad - two.grad).norm() < 0.02 * one.grad.norm()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU decides instead of the CPU")
@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({}, "no"),
        ({"avx512_bf16": False}, "no"),
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True}, "bf16"),
    ],
)
def test_auto_is_bf16_where_the_cpu_has_it(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, bool], expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    assert accelerator(TrainPrecision.AUTO).mixed_precision == expected
    assert accelerator(TrainPrecision.FP32).mixed_precision == "no"
