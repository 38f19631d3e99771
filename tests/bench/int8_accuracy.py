"""INT8 against FP32 on real images: ours by default and `auto`, beside ONNX Runtime's and NNCF's with the same images.

EfficientNet-Lite0 is trained from its pretrained weights on flowers12 and on a part of CIFAR-10, the others from
scratch on that part at a small size. All are calibrated on the same images of the training split and scored on the test
split through the same ONNX Runtime session; intervals (95%) are over the images that only one of the two models gets
right.

Trained networks, decoded images and finished scores are kept (`EDGETL_BENCH_CACHE`), so that a run that was stopped
goes on where it was; scores of other code, another engine or another machine are made anew. The sets are looked for in
`EDGETL_DATA`. To try it: `EDGETL_BENCH_NETWORKS=resnet18 EDGETL_BENCH_IMAGES=300 EDGETL_BENCH_EPOCHS=1
EDGETL_BENCH_TEST=300`.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgetl.bench.machine import describe
from edgetl.config import Augment, DataConfig, DistillLoss, QuantizeConfig, Recovery, TrainPrecision
from edgetl.data import calibration
from edgetl.data import index as indices
from edgetl.data.index import DataIndex, build_index
from edgetl.distill.objective import Guide
from edgetl.export.onnx import to_bytes, to_onnx
from edgetl.files import StageCache, sha256_bytes, sha256_file, write_bytes
from edgetl.inputs.image import PreprocessSpec, normalise
from edgetl.models import backbones, checkpoint
from edgetl.models.architecture import describe as architecture
from edgetl.processor import has_vnni
from edgetl.quantize.score import outputs
from edgetl.quantize.stage import WEIGHT_ONLY, QuantizeInputs
from edgetl.quantize.stage import run as quantize
from edgetl.statistics import compare_paired
from edgetl.tasks.base import Classification
from edgetl.train.loop import Fitting, fit
from edgetl.train.objective import Hard
from edgetl.train.sets import PixelSet, Sets, open_sets
from edgetl.train.tasks.all import training_task
from edgetl.train.tasks.classification import cross_entropy
from tests.bench.claims import Claim
from tests.bench.steps import Spoken, code_sha256, kept, say
from tests.quantize import peers
from tests.real_sets import unpacked

DEFAULT_POINTS, AUTO_POINTS = 0.5, 0.2
AUTO_DROP = 0.001
"""What `auto` climbs to on the validation split: half of what it may lose on the test split."""
SIZES = {"mobilenetv2_100": 64, "mobilenetv3_small_100": 64, "resnet18": 32, "regnety_004": 32}
"""Sides in pixels of what is trained from scratch; the MobileNets learn little from 32."""
HERE, SIMULATED = "cpu-x86", "openvino"
"""Scored with this machine's integer kernels, and with the Q/DQ pairs carried out in float32."""

Right = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network, its set, how it is trained, and minutes for training and for the rest on two quiet cores."""

    network: str
    data: str
    size: int
    weights: str
    images: int | None
    epochs: int
    lr: float
    training_minutes: float
    other_minutes: float

    @property
    def home(self) -> Path:
        """Where all that belongs to it is kept."""
        return kept("int8", f"{self.network}-{self.data}-{self.size}-{self.images or 'all'}-{self.epochs}")

    @property
    def teacher(self) -> Path:
        """The trained network."""
        return self.home / "teacher.safetensors"


@dataclass(frozen=True, kw_only=True)
class Score:
    """Points of top-1 lost against float32, with their interval, and how the model came about."""

    points: float
    low: float
    high: float
    how: str

    def stated(self) -> str:
        """`0.20 (-0.11 to 0.52; bias)`."""
        how = f"; {self.how}" if self.how else ""
        return f"{self.points:.2f} ({self.low:.2f} to {self.high:.2f}{how})"


@dataclass(frozen=True, kw_only=True)
class Scores:
    """By name: `Recovery` values, the weight-only variant, and the peers; a peer that is not installed is not here."""

    found: dict[str, Score]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What a case's models are made from and scored on."""

    inputs: QuantizeInputs
    test: PixelSet
    right: Right

    def score(self, model: Path | bytes, target: str, how: str = "") -> Score:
        """Score a model as `target` computes it."""
        found = compare_paired(self.right, rights(model, self.test, target))
        low, high = (-100 * found.interval[1], -100 * found.interval[0])
        return Score(points=0.0 - 100 * found.difference, low=low, high=high, how=how)


def cases() -> tuple[Case, ...]:
    """All of them, or those that `EDGETL_BENCH_NETWORKS` names."""
    images = int(os.environ.get("EDGETL_BENCH_IMAGES", "6000"))
    epochs = int(os.environ.get("EDGETL_BENCH_EPOCHS", "10"))
    only = os.environ.get("EDGETL_BENCH_NETWORKS", ",".join(peers.NETWORKS)).split(",")
    pretrained: dict[str, Any] = {
        "network": "efficientnet_lite0",
        "weights": "pretrained",
        "epochs": min(epochs, 4),
        "lr": 1e-3,
    }
    found = [
        Case(**pretrained, data="flowers12", size=160, images=None, training_minutes=2.0, other_minutes=5.0),
        Case(**pretrained, data="cifar10", size=64, images=images, training_minutes=4.0, other_minutes=5.0),
    ]
    found += [
        Case(
            network=network,
            data="cifar10",
            size=SIZES[network],
            weights="none",
            images=images,
            epochs=epochs,
            lr=3e-3,
            training_minutes=4.0,
            other_minutes=4.0,
        )
        for network in SIZES
    ]
    return tuple(case for case in found if case.network in only)


def run() -> Iterator[Claim]:
    """Yield the claims."""
    chosen = cases()
    training = sum(case.training_minutes for case in chosen if not case.teacher.exists())
    minutes = training + sum(case.other_minutes for case in chosen)
    say(
        f"about {minutes:.0f} minutes on two quiet cores where no score is kept, {training:.0f} of them for training;"
        f" what is done is kept in {kept('int8')}"
    )
    for case in chosen:
        source = unpacked(case.data)
        if source is None:
            yield Claim(
                name=f"{case.network} on {case.data}",
                measured=f"not measured: EDGETL_DATA names no folder with {case.data}",
            )
            continue
        yield from _case(case, source)


def _case(case: Case, source: Path) -> Iterator[Claim]:
    say(f"{case.network} on {case.data}")
    index = _index(source, case.data, case.images)
    mean, std, _ = backbones.default_preprocess(case.network)
    spec = PreprocessSpec(size=case.size, mean=mean, std=std)
    pixels = kept("int8", "pixels")
    sets = open_sets(index, spec, pixels)
    assert sets.test is not None
    test = _some(sets.test, int(os.environ.get("EDGETL_BENCH_TEST", "10000")))
    _train(case, index, sets)
    path = case.home / "float.onnx"
    if not path.exists():
        network = checkpoint.load(case.teacher)[0]
        write_bytes(
            path, to_bytes(to_onnx(network, task=Classification(labels=index.labels), spec=spec, opset=18))
        )
    inputs = QuantizeInputs(
        onnx=path,
        index=index,
        spec=spec,
        seed=0,
        pixels_dir=pixels,
        cache_dir=case.home / "calibration",
        guide=Guide(
            teacher=case.teacher,
            teacher_size=case.size,
            batch_size=32,
            weight_decay=0.02,
            precision=TrainPrecision.FP32,
            temperature=2.0,
            soft_weight=0.9,
            loss=DistillLoss.HINTON,
            augment=Augment.BASIC,
        ),
    )
    right = rights(path, test, "any")
    stated = f"{case.network}, {case.data}, {case.size} px"
    yield Claim(name=f"FP32 ({stated})", measured=f"{right.mean():.2%} of {len(test)} test images")
    yield from _claims(stated, case.home, Bench(inputs=inputs, test=test, right=right))


def _claims(stated: str, home: Path, bench: Bench) -> Iterator[Claim]:
    ours = {
        **_kept(home, "default", bench, functools.partial(_ours, bench, Recovery.NONE, 0.5)),
        **_kept(home, "auto", bench, functools.partial(_ours, bench, Recovery.AUTO, AUTO_DROP)),
    }
    for name, aim in (("default", DEFAULT_POINTS), ("auto", AUTO_POINTS)):
        yield Claim(
            name=f"points lost, {name} ({stated})",
            measured=ours[name].stated(),
            aim=f"<= {aim:g}",
            holds=ours[name].points <= aim,
        )
    if WEIGHT_ONLY in ours:
        yield Claim(
            name=f"points lost, weights alone in INT8 ({stated})", measured=ours[WEIGHT_ONLY].stated()
        )
    for method in ("MinMax", "Entropy"):
        name = f"onnxruntime {method}"
        found = _kept(home, name, bench, functools.partial(_onnxruntime, bench, method))
        yield Claim(name=f"points lost, {name} ({stated})", measured=found[name].stated())
    found = _kept(home, "NNCF", bench, functools.partial(_nncf, bench))
    for name in ("NNCF", "NNCF, simulated in float32"):
        measured = found[name].stated() if found else "not measured: NNCF is not installed (the extra bench)"
        yield Claim(name=f"points lost, {name} ({stated})", measured=measured)


def _kept(home: Path, name: str, bench: Bench, work: Callable[[], dict[str, Score]]) -> dict[str, Score]:
    """What `work` finds, or found before with the same code, engine, model and images on a machine like this one."""
    versions = [_version(package) for package in ("onnxruntime", "nncf", "torch")]
    inputs = [code_sha256(), sha256_file(bench.inputs.onnx), versions, describe().cpu, has_vnni()]

    def measured(folder: Path) -> Scores:
        say(f"  {name}")
        return Scores(found=work())

    record, _ = StageCache(home).run(
        name.replace(" ", "-").lower(),
        config=[bench.inputs.index.sha256, sha256_bytes(bench.right.tobytes())],
        inputs=inputs,
        kind=Scores,
        outputs=lambda _: [],
        work=measured,
    )
    return record.found


def _ours(bench: Bench, recovery: Recovery, drop: float) -> dict[str, Score]:
    with tempfile.TemporaryDirectory() as folder:
        config = QuantizeConfig(recovery=recovery, max_drop=drop)
        record = quantize(config, bench.inputs, out=Path(folder), progress=Spoken())
        # Where INT8 alone falls below the floor, what keeps it is the mixed model.
        first = [v for v in record.variants if v.target == HERE]
        best = next((v for v in first if v.score >= record.floor), first[0])
        weights = [v for v in record.variants if v.name == WEIGHT_ONLY]
        name = "default" if recovery is Recovery.NONE else "auto"
        how = best.recovery if best.precision == "int8" else f"{best.recovery}, {best.name}"
        files = {name: (best, how)} | {v.name: (v, "") for v in weights}
        return {
            key: bench.score(Path(folder) / Path(v.onnx).name, v.target, stated)
            for key, (v, stated) in files.items()
        }


def _batches(bench: Bench) -> list[NDArray[np.float32]]:
    chosen = calibration.draw(bench.inputs.index, QuantizeConfig().images, bench.inputs.seed)
    return list(calibration.batches(chosen, bench.inputs.spec, peers.BATCH))


def _onnxruntime(bench: Bench, method: str) -> dict[str, Score]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / f"{method}.onnx"
        peers.quantize_static(bench.inputs.onnx, out, iter(_batches(bench)), method)
        return {f"onnxruntime {method}": bench.score(out, HERE)}


def _nncf(bench: Bench) -> dict[str, Score]:
    made = peers.nncf_quantize(onnx.load(bench.inputs.onnx), _batches(bench))
    if made is None:
        return {}
    content = made.SerializeToString()
    return {
        "NNCF": bench.score(content, HERE),
        "NNCF, simulated in float32": bench.score(content, SIMULATED),
    }


def _train(case: Case, index: DataIndex, sets: Sets) -> None:
    if case.teacher.exists():
        return
    say(f"  trains for {case.epochs} epochs on {len(sets.train)} images")
    model = backbones.create(case.network, len(index.labels), case.weights)
    fitting = Fitting(
        phase="bench",
        epochs=case.epochs,
        batch_size=64 if case.weights == "none" else 32,
        lr=case.lr,
        weight_decay=0.02,
        augment=Augment.BASIC,
        seed=0,
        select="top1",
    )
    state = case.home / "train.state"
    fit(
        model,
        fitting,
        train=sets.train,
        val=sets.val,
        task=training_task(index.task),
        objective=Hard(hard_loss=cross_entropy(0.1)),
        state=state,
        progress=Spoken(),
    )
    checkpoint.save(model, architecture(model, case.network, len(index.labels)), case.teacher)
    state.unlink(missing_ok=True)


@functools.cache
def _index(source: Path, data: str, images: int | None) -> DataIndex:
    path = kept("int8", "indices") / f"{data}-{images or 'all'}.json"
    if not path.exists():
        say(f"  reads {data}")
        build_index(DataConfig(source=str(source), max_train_images=images), seed=0).save(path)
    return indices.load(path)


def _some(test: PixelSet, count: int) -> PixelSet:
    """At most so many images, spread over the classes."""
    count = min(count, len(test))
    rows = np.arange(count) * len(test) // count
    return PixelSet(test.pixels[rows], test.targets[rows], test.spec)


def rights(model: Path | bytes, test: PixelSet, target: str) -> Right:
    """Which test images a model gets right."""
    batches = (normalise(test.pixels[i : i + 32], test.spec) for i in range(0, len(test), 32))
    return np.asarray(outputs(model, batches, target=target)["logits"].argmax(1) == np.asarray(test.targets))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
