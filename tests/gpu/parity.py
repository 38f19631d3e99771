"""The same training and the same network, on the GPU and on the CPU: weights and outputs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.bench.claims import Claim, at_least, at_most
from tests.gpu.parts import Place

SCRIPT = """
import sys, numpy as np, torch
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
from edgetl.config import Augment, Optimizer
from edgetl.train.loop import fit
from tests.train.tiny import TASK, entropy, fitting, network, pixel_set
model = network()
model[8].p = 0.0  # The two draw other dropped values.
# Adam would make steps of the noise where a gradient is zero, as a bias before a batch norm has it.
how = fitting(epochs=int(sys.argv[2]), batch_size=32, augment=Augment.NONE, optimizer=Optimizer.SGD, lr=0.05)
fit(model, how, train=pixel_set(240), val=pixel_set(60, seed=1), task=TASK, objective=entropy(), state=None)
np.savez(sys.argv[1], **{name: value.float().numpy() for name, value in model.state_dict().items()})
"""
EPOCHS = 4


def run(place: Place) -> Iterator[Claim]:
    """Yield the claims."""
    weights = {}
    for device in ("cpu", place.device):
        path = place.folder / f"weights-{device}.npz"
        _fit(path, device)
        weights[device] = dict(np.load(path))
    far = max(_relative(weights["cpu"][name], weights[place.device][name]) for name in weights["cpu"])
    steps = EPOCHS * 240 // 32
    yield at_most(
        f"weights after {steps} steps of the same training in float32, largest relative error", far, 1e-3, ""
    )
    yield from _outputs(place)


def _fit(path: Path, device: str) -> None:
    hidden = {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"} if device == "cpu" else {}
    subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path), str(EPOCHS)], check=True, env=os.environ | hidden
    )


def _relative(right: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(other - right) / max(np.linalg.norm(right), 1e-12))


def _outputs(place: Place) -> Iterator[Claim]:
    """Logits of whole networks, float32 without TF32, and in half precision."""
    import copy

    import torch

    from edgetl.models.backbones import create

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    names = (
        ("test_efficientnet",)
        if place.rehearses
        else ("efficientnet_lite0", "resnet18", "mobilenetv3_small_100")
    )
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8, 3, 160, 160, generator=generator)
    for name in names:
        torch.manual_seed(0)
        model = create(name, 10, "none").eval()
        there = copy.deepcopy(model).to(place.device)
        with torch.inference_mode():
            right = model(images)
            other = there(images.to(place.device)).cpu()
            yield at_most(f"{name}: logits in float32, largest relative error", _far(right, other), 1e-4, "")
            for kind in (torch.bfloat16, torch.float16):
                with torch.autocast(place.device, kind):
                    half = there(images.to(place.device)).float().cpu()
                title = f"{name}: the same in {str(kind).removeprefix('torch.')}"
                yield at_most(title, _far(right, half), 0.1, "")
        same = float((right.argmax(1) == other.argmax(1)).float().mean())
        yield at_least(f"{name}: same answers in float32", 100 * same, 100, "%")


def _far(right: object, other: object) -> float:
    import torch

    assert isinstance(right, torch.Tensor)
    assert isinstance(other, torch.Tensor)
    return float((other - right).norm() / right.norm())
