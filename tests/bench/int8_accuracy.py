"""INT8 against FP32 on real images: ours by default and `auto`, beside ONNX Runtime's and NNCF's with the same images.

The networks are trained once and kept under `.cache/quantize/`: EfficientNet-Lite0 from its pretrained weights on
flowers12, the others from scratch on a part of CIFAR-10 at a small size. The sets are looked for in `EDGETL_DATA`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from edgetl.config import Augment, DataConfig, DistillLoss, Metric, QuantizeConfig, Recovery
from edgetl.data import calibration
from edgetl.data.index import DataIndex, build_index
from edgetl.export.onnx import to_bytes, to_onnx
from edgetl.metrics import evaluate
from edgetl.models import backbones, checkpoint
from edgetl.models.architecture import describe
from edgetl.preprocess import PreprocessSpec, normalise
from edgetl.quantize.score import logits
from edgetl.quantize.stage import Guide, QuantizeInputs
from edgetl.quantize.stage import run as quantize
from edgetl.train.loop import Fitting, fit
from edgetl.train.losses import cross_entropy
from edgetl.train.sets import PixelSet, Sets, open_sets
from tests.bench.claims import Claim
from tests.quantize import peers

HOME = Path(".cache/quantize")
DEFAULT_POINTS, AUTO_POINTS = 0.5, 0.2


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network, its set, and how it is trained."""

    network: str
    data: str
    size: int
    weights: str
    images: int | None
    epochs: int
    lr: float


def cases() -> tuple[Case, ...]:
    """All of them, or those that `EDGETL_BENCH_NETWORKS` names."""
    images = int(os.environ.get("EDGETL_BENCH_IMAGES", "3000"))
    epochs = int(os.environ.get("EDGETL_BENCH_EPOCHS", "3"))
    only = os.environ.get("EDGETL_BENCH_NETWORKS", ",".join(peers.NETWORKS)).split(",")
    found = []
    for network in peers.NETWORKS:
        if network == "efficientnet_lite0":
            case = Case(
                network=network,
                data="flowers12",
                size=96,
                weights="pretrained",
                images=None,
                epochs=epochs,
                lr=1e-3,
            )
        else:
            case = Case(
                network=network,
                data="cifar10",
                size=32,
                weights="none",
                images=images,
                epochs=epochs,
                lr=3e-3,
            )
        found.append(case)
    return tuple(case for case in found if case.network in only)


def run() -> Iterator[Claim]:
    """Yield the claims."""
    for case in cases():
        source = Path(os.environ.get("EDGETL_DATA", ".cache/data")) / case.data
        if not source.is_dir():
            yield Claim(name=f"{case.network} on {case.data}", measured=f"not measured: there is no {source}")
            continue
        yield from _case(case, source)


def _case(case: Case, source: Path) -> Iterator[Claim]:
    home = HOME / f"{case.network}-{case.data}-{case.size}-{case.images}-{case.epochs}"
    home.mkdir(parents=True, exist_ok=True)
    settings = DataConfig(source=str(source), max_train_images=case.images)
    index = build_index(settings, seed=0)
    mean, std, _ = backbones.default_preprocess(case.network)
    spec = PreprocessSpec(size=case.size, mean=mean, std=std)
    sets = open_sets(index, spec, home / "pixels")
    assert sets.test is not None
    test = PixelSet(
        sets.test.pixels[:: max(1, len(sets.test) // 1000)],
        sets.test.labels[:: max(1, len(sets.test) // 1000)],
        spec,
    )
    teacher = _trained(case, index, sets, home)
    path = home / "float.onnx"
    path.write_bytes(to_bytes(to_onnx(checkpoint.load(teacher)[0], labels=index.labels, spec=spec, opset=18)))
    inputs = QuantizeInputs(
        onnx=path,
        index=index,
        spec=spec,
        seed=0,
        pixels_dir=home / "pixels",
        cache_dir=home / "calibration",
        guide=Guide(
            teacher=teacher,
            batch_size=32,
            temperature=2.0,
            soft_weight=0.9,
            loss=DistillLoss.HINTON,
            augment=Augment.BASIC,
        ),
    )
    reference = _top1(path, test, "any", index)
    told = f"{case.network}, {case.data}, {case.size} px"
    yield Claim(name=f"FP32 ({told})", measured=f"{reference:.2%} of {len(test)} test images")
    for name, recovery, drop, aim in (
        ("default PTQ", Recovery.NONE, 0.5, DEFAULT_POINTS),
        ("auto", Recovery.AUTO, 0.0, AUTO_POINTS),
    ):
        with tempfile.TemporaryDirectory() as folder:
            config = QuantizeConfig(recovery=recovery, max_drop=drop)
            record = quantize(config, inputs, out=Path(folder))
            variant = record.variants[0]
            points = 100 * (
                reference - _top1(Path(folder) / Path(variant.onnx).name, test, variant.target, index)
            )
        yield Claim(
            name=f"points lost, {name} ({told})",
            measured=f"{points:.2f} ({variant.recovery})",
            aim=f"<= {aim:g}",
            holds=points <= aim,
        )
    yield from _peers(told, path, inputs, test, reference)


def _peers(
    told: str, path: Path, inputs: QuantizeInputs, test: PixelSet, reference: float
) -> Iterator[Claim]:
    chosen = calibration.draw(inputs.index, QuantizeConfig().images, inputs.seed)
    batches = list(calibration.batches(chosen, inputs.spec, peers.BATCH))
    with tempfile.TemporaryDirectory() as folder:
        for method in ("MinMax", "Entropy"):
            out = Path(folder) / f"{method}.onnx"
            peers.quantize_static(path, out, iter(batches), method)
            points = 100 * (reference - _top1(out, test, "cpu-x86", inputs.index))
            yield Claim(name=f"points lost, onnxruntime {method} ({told})", measured=f"{points:.2f}")
    made = peers.nncf_quantize(onnx.load(path), batches)
    if made is None:
        yield Claim(name=f"points lost, NNCF ({told})", measured="not measured: NNCF is not installed")
        return
    points = 100 * (reference - _top1(made.SerializeToString(), test, "openvino", inputs.index))
    yield Claim(name=f"points lost, NNCF, simulated in float32 ({told})", measured=f"{points:.2f}")


def _trained(case: Case, index: DataIndex, sets: Sets, home: Path) -> Path:
    path = home / "teacher.safetensors"
    if path.exists():
        return path
    model = backbones.create(case.network, len(index.labels), case.weights)
    fitting = Fitting(
        phase="bench",
        epochs=case.epochs,
        batch_size=32,
        lr=case.lr,
        weight_decay=0.02,
        augment=Augment.BASIC,
        seed=0,
        select=Metric.TOP1,
    )
    fit(model, fitting, train=sets.train, val=sets.val, loss=cross_entropy(0.1), state=None)
    checkpoint.save(model, describe(model, case.network, len(index.labels)), path)
    return path


def _top1(model: Path | bytes, test: PixelSet, target: str, index: DataIndex) -> float:
    batches = (normalise(test.pixels[i : i + 32], test.spec) for i in range(0, len(test), 32))
    scores = logits(model, batches, target=target)
    return evaluate(np.asarray(test.labels), scores, index.labels, resamples=0).top1
