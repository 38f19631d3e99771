"""Thirty-six classifiers of torchvision and timm: pruned, trained, rebuilt in a fresh process, pruned again, exported.

`pytest -m slow -s tests/slow/test_prune_coverage.py` prints the table. Weights are random, since none are fetched. A
cut is right where the network gives the logits of the uncut one with the removed channels masked; `cut` itself checks
that, so a row is either right or a refusal with its reason.
"""

from __future__ import annotations

import math
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgetl.errors import ModelError
from edgetl.export.graphs import Probe
from edgetl.export.onnx import to_onnx
from edgetl.inputs.image import PreprocessSpec
from edgetl.models import checkpoint
from edgetl.models.architecture import describe
from edgetl.models.backbones import create
from edgetl.models.size import network_size
from edgetl.prune.apply import Cut, cut
from edgetl.prune.graph import trace
from edgetl.prune.importance import magnitude
from edgetl.prune.plan import Cost, CutLimits, cost_of
from edgetl.tasks.base import Classification

CLASSES = 10
SMALL, FULL = 64, 224
FIRST, SECOND = 0.62, 0.85
"""Shares of the multiply-accumulates that the first cut and, of what is left, the second one keep at most."""
BOUND = 1e-4
"""Largest difference of ONNX Runtime's logits from torch's, relative to the largest logit."""
MODELS: dict[str, int] = {
    "torchvision/resnet18": SMALL,
    "torchvision/densenet121": SMALL,
    "torchvision/mobilenet_v2": SMALL,
    "torchvision/mobilenet_v3_small": SMALL,
    "torchvision/shufflenet_v2_x1_0": SMALL,
    "torchvision/squeezenet1_1": SMALL,
    "torchvision/mnasnet0_5": SMALL,
    "torchvision/regnet_y_400mf": SMALL,
    "torchvision/efficientnet_b0": SMALL,
    "torchvision/googlenet": SMALL,
    "efficientnet_lite0": SMALL,
    "tf_efficientnetv2_b0": SMALL,
    "convnext_atto": SMALL,
    "convnextv2_atto": SMALL,
    "mobilenetv3_small_050": SMALL,
    "mobilenetv4_conv_small": SMALL,
    "ghostnet_050": SMALL,
    "repghostnet_050": SMALL,
    "lcnet_050": SMALL,
    "mixnet_s": SMALL,
    "rexnet_100": SMALL,
    "regnetx_002": SMALL,
    "repvgg_a0": SMALL,
    "mobileone_s0": SMALL,
    "fbnetc_100": SMALL,
    "semnasnet_075": SMALL,
    "tinynet_e": SMALL,
    "resnetv2_18": SMALL,
    "dla34": SMALL,
    "edgenext_xx_small": SMALL,
    "mobilevit_xxs": SMALL,
    "fastvit_t8": SMALL,
    "levit_128s": FULL,
    "vit_tiny_patch16_224": FULL,
    "deit_tiny_patch16_224": FULL,
    "swin_tiny_patch4_window7_224": FULL,
}

AGAIN = """
import sys
from pathlib import Path
from tests.slow.test_prune_coverage import again
for number in sys.argv[2:]:
    again(Path(sys.argv[1]), int(number))
"""


@dataclass(frozen=True)
class Row:
    """One classifier: its groups, those that were refused, what two cuts left of it, and ONNX Runtime's difference."""

    name: str
    groups: int = 0
    refused: tuple[str, ...] = ()
    macs: float = 0.0
    parameters: float = 0.0
    again: float = 0.0
    difference: float = math.inf
    failure: str = ""

    def line(self) -> str:
        if self.failure:
            return f"{self.name:30} | refused: {self.failure}"
        around = f" | around {', '.join(self.refused[:3])}{', ...' if len(self.refused) > 3 else ''}"
        return (
            f"{self.name:30} | {self.groups:6} | {self.macs:6.1%} | {self.parameters:6.1%} | {self.again:6.1%} |"
            f" {self.difference:.0e}{around if self.refused else ''}"
        )


HEAD = f"{'classifier':30} | groups |   MACs | params |  again | ONNX Runtime"


def prune(model: nn.Module, size: int, share: float) -> Cut:
    """Cut to so much of its multiply-accumulates, by magnitude."""
    whole = network_size(model, size)
    fixed = whole.macs - cost_of(trace(model, size)).macs
    budget = Cost(macs=share * whole.macs - fixed, parameters=math.inf)
    return cut(model, size, magnitude, budget, CutLimits(round_to=8, max_cut=0.9, widths={}))


def images(size: int, count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def train_a_step(model: nn.Module, size: int) -> None:
    """One step of AdamW; the gradient reaches every weight."""
    model.train().requires_grad_(True)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    loss = F.cross_entropy(model(images(size)), torch.arange(4))
    loss.backward()  # type: ignore[no-untyped-call]
    assert math.isfinite(loss.item())
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []
    optimiser.step()
    model.eval()


def logits(model: nn.Module, size: int) -> np.ndarray:
    with torch.no_grad():
        return model.eval()(images(size, 2)).numpy()  # type: ignore[no-any-return]


def first(folder: Path, number: int) -> Row:
    """Prune, train, and keep the network with its logits."""
    name, size = list(MODELS.items())[number]
    model = create(name, CLASSES, "none")
    whole = network_size(model, size)
    try:
        graph = trace(model, size)
        small = prune(model, size, FIRST).model
    except ModelError as error:
        return Row(name, failure=str(error))
    train_a_step(small, size)
    checkpoint.save(small, describe(small, name, CLASSES), folder / f"{number}.safetensors")
    np.save(folder / f"{number}.npy", logits(small, size))
    left = network_size(small, size)
    return Row(
        name,
        len(graph.groups),
        tuple(graph.refused),
        left.macs / whole.macs,
        left.parameters / whole.parameters,
    )


def again(folder: Path, number: int) -> None:
    """In a fresh process: the same logits from the file, a second cut, and its logits."""
    torch.set_num_threads(1)
    size = list(MODELS.values())[number]
    model, architecture = checkpoint.load(folder / f"{number}.safetensors")
    assert np.array_equal(logits(model, size), np.load(folder / f"{number}.npy")), architecture.backbone
    small = prune(model, size, SECOND).model
    path = folder / f"{number}-again.safetensors"
    checkpoint.save(small, describe(small, architecture.backbone, CLASSES), path)
    np.save(folder / f"{number}-again.npy", logits(small, size))


def last(folder: Path, number: int, row: Row) -> Row:
    """Export what was cut twice, and run it."""
    name, size = list(MODELS.items())[number]
    model, _ = checkpoint.load(folder / f"{number}-again.safetensors")
    expected = np.load(folder / f"{number}-again.npy")
    assert np.array_equal(logits(model, size), expected), name
    labels = tuple(str(i) for i in range(CLASSES))
    exported = to_onnx(model, task=Classification(labels=labels), spec=PreprocessSpec(size=size), opset=18)
    (got,) = Probe(exported, [exported.graph.output[0].name]).run(images(size, 2).numpy())
    share = network_size(model, size).macs / network_size(create(name, CLASSES, "none"), size).macs
    return Row(
        name,
        row.groups,
        row.refused,
        row.macs,
        row.parameters,
        share,
        float(np.abs(got - expected).max() / np.abs(expected).max()),
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_coverage_table(tmp_path: Path) -> None:
    threads, start = torch.get_num_threads(), time.monotonic()
    torch.set_num_threads(1)
    rows = [first(tmp_path, number) for number in range(len(MODELS))]
    through = [str(number) for number, row in enumerate(rows) if not row.failure]
    subprocess.run([sys.executable, "-c", AGAIN, str(tmp_path), *through], check=True)
    print(f"\n{HEAD}")
    for number, row in enumerate(rows):
        rows[number] = row if row.failure else last(tmp_path, number, row)
        print(rows[number].line(), flush=True)
    torch.set_num_threads(threads)
    right = [row for row in rows if row.difference <= BOUND]
    print(
        f"{len(right)} of {len(rows)} classifiers went the whole way,"
        f" {sum(bool(r.failure) for r in rows)} were refused; {time.monotonic() - start:.0f} s"
    )
    assert [row.name for row in rows if not row.failure and row.difference > BOUND] == []
    assert len(right) >= 25
