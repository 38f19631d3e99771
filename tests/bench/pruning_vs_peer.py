"""Our pruning beside torch-pruning's own: accuracy at equal measured latency, from the same trained network.

EfficientNet-Lite0 is trained on flowers12 at 128 px. Ours: the prune stage as its defaults have it, then distillation.
The peer: the example in its README (grouped magnitude, L2; one ratio for all layers; multiples of eight; the classifier
left alone; one step), at the ratio at which ONNX Runtime takes as long as with ours, or at most 3% longer, found by
bisection. Its network is then trained for as many epochs as ours had in all, at the same rate: once with the labels, as
its examples do, and once with our distillation, so that the difference is that of the cut. Scores: the test split.

Everything that took minutes is kept (`EDGETL_BENCH_CACHE`), and a run that was stopped goes on where it was. The set is
looked for in `EDGETL_DATA`. To try it: `EDGETL_BENCH_SEEDS=0 EDGETL_BENCH_IMAGES=120 EDGETL_BENCH_EPOCHS=1
EDGETL_BENCH_STEPS=1 EDGETL_BENCH_SIZE=64`.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgetl.bench.timer import PAUSE_S, block_of, time_interleaved
from edgetl.config import (
    Augment,
    DataConfig,
    DistillConfig,
    DistillLoss,
    MacsTarget,
    PruneConfig,
    TrainPrecision,
)
from edgetl.data import index as indices
from edgetl.data.index import DataIndex, build_index
from edgetl.distill import stage as distilling
from edgetl.distill.objective import Distillation, Guide
from edgetl.export.onnx import to_bytes, to_onnx
from edgetl.inputs.image import PreprocessSpec
from edgetl.models import backbones, checkpoint
from edgetl.models.architecture import describe
from edgetl.models.size import network_size
from edgetl.prune import stage as pruning
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from edgetl.statistics import compare_paired
from edgetl.tasks.base import Classification
from edgetl.train.evaluate import predict_outputs
from edgetl.train.loop import Fitting, fit
from edgetl.train.objective import Hard, Objective
from edgetl.train.sets import Sets, open_sets
from edgetl.train.tasks.all import training_task
from edgetl.train.tasks.classification import cross_entropy
from tests.bench.claims import Claim, paired_ratio
from tests.bench.steps import Spoken, code_sha256, kept, named_seeds, say
from tests.real_sets import unpacked

BACKBONE, DATA = "efficientnet_lite0", "flowers12"
SLOWER = 1.03
"""So much longer the peer's network may take."""
TEMPERATURE, SOFT_WEIGHT, LR, BATCH = 2.0, 0.9, 1e-3, 32
_HALVINGS, _ROUNDS = 8, 15


@dataclass(frozen=True, kw_only=True)
class Case:
    """One seed, and all that shapes its run."""

    seed: int
    images: int | None
    size: int
    epochs: int
    steps: int
    macs: float

    @property
    def home(self) -> Path:
        """Where all that belongs to it is kept; results of other code are made anew."""
        name = f"{self.size}-{self.images or 'all'}-{self.epochs}-{self.steps}-{self.macs}-{self.seed}"
        return kept("pruning-vs-peer", f"{name}-{code_sha256()[:12]}")

    @property
    def pruning(self) -> PruneConfig:
        """Our pruning: the defaults, but for the target and the number of cuts."""
        return PruneConfig(target=MacsTarget(share=self.macs), steps=self.steps, max_drop=0.99, lr=LR)

    @property
    def budget(self) -> int:
        """Epochs that ours has after the teacher is trained, and so the peer."""
        return self.steps * self.pruning.recovery_epochs + self.epochs


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What both sides work with."""

    case: Case
    index: DataIndex
    spec: PreprocessSpec
    sets: Sets
    teacher: Path


def cases() -> tuple[Case, ...]:
    """One a seed."""
    images = os.environ.get("EDGETL_BENCH_IMAGES")
    return tuple(
        Case(
            seed=seed,
            images=int(images) if images else None,
            size=int(os.environ.get("EDGETL_BENCH_SIZE", "128")),
            epochs=int(os.environ.get("EDGETL_BENCH_EPOCHS", "12")),
            steps=int(os.environ.get("EDGETL_BENCH_STEPS", "5")),
            macs=float(os.environ.get("EDGETL_BENCH_MACS", "0.3")),
        )
        for seed in named_seeds("0,1")
    )


def run() -> Iterator[Claim]:
    """Yield the claims."""
    source = unpacked(DATA)
    if source is None:
        yield Claim(
            name=f"{BACKBONE} on {DATA}", measured=f"not measured: EDGETL_DATA names no folder with {DATA}"
        )
        return
    for case in cases():
        say(f"seed {case.seed}: {case.budget} epochs for each of three students")
        yield from _case(_bench(case, source))


def _case(bench: Bench) -> Iterator[Claim]:
    ours = _ours(bench)
    ratio, cut = _peer_cut(bench, ours)
    students = {
        "ours": ours,
        "torch-pruning, labels alone": _taught(bench, cut, "labels", Hard(hard_loss=cross_entropy())),
        "torch-pruning, our distillation": _taught(bench, cut, "distilled", _distillation(bench)),
    }
    stated = f"{BACKBONE}, {DATA}, {bench.case.size} px, seed {bench.case.seed}"
    rights = {name: _rights(bench, network) for name, network in students.items()}
    teacher = checkpoint.load(bench.teacher)[0]
    yield Claim(name=f"top-1, teacher ({stated})", measured=f"{_rights(bench, teacher).mean():.1%}")
    for name, network in students.items():
        size, whole = network_size(network, bench.case.size), network_size(teacher, bench.case.size)
        how = f", ratio {ratio:.3f}" if name != "ours" else ""
        yield Claim(
            name=f"top-1, {name} ({stated})",
            measured=f"{rights[name].mean():.1%}; {size.macs / whole.macs:.0%} of the multiply-accumulates,"
            f" {size.parameters / whole.parameters:.0%} of the parameters{how}",
        )
    slower, low, high = _slower(bench, ours, students["torch-pruning, our distillation"], rounds=2 * _ROUNDS)
    yield Claim(
        name=f"latency, torch-pruning over ours ({stated})",
        measured=f"{slower:.3f}x ({low:.3f} to {high:.3f})",
        aim=f"1 to {SLOWER:g}x",
        holds=low <= SLOWER and high >= 1.0,
    )
    for name in list(students)[1:]:
        found = compare_paired(rights[name], rights["ours"])
        low, high = (100 * edge for edge in found.interval)
        yield Claim(
            name=f"points of top-1 above {name} ({stated})",
            measured=f"{100 * found.difference:.1f} ({low:.1f} to {high:.1f})",
            aim=">= 0",
            holds=found.difference >= 0,
        )


def _bench(case: Case, source: Path) -> Bench:
    path = case.home / "index.json"
    if not path.exists():
        build_index(DataConfig(source=str(source), max_train_images=case.images), seed=case.seed).save(path)
    index = indices.load(path)
    mean, std, interpolation = backbones.default_preprocess(BACKBONE)
    spec = PreprocessSpec(size=case.size, mean=mean, std=std, interpolation=interpolation)
    sets = open_sets(index, spec, kept("pruning-vs-peer", "pixels"), Spoken())
    bench = Bench(case=case, index=index, spec=spec, sets=sets, teacher=case.home / "teacher.safetensors")
    if not bench.teacher.exists():
        say("  trains the teacher")
        model = backbones.create(BACKBONE, len(index.labels), seed=case.seed)
        _fit(bench, model, "teacher", case.epochs, Hard(hard_loss=cross_entropy(0.1)), "top1")
        _save(bench, model, bench.teacher)
    return bench


def _ours(bench: Bench) -> nn.Module:
    """The prune stage, and distillation of what it leaves."""
    case, folder = bench.case, bench.case.home / "ours"
    pruned, student = folder / pruning.CHECKPOINT, folder / distilling.CHECKPOINT
    folder.mkdir(exist_ok=True)
    shared = {
        "index": bench.index,
        "spec": bench.spec,
        "pixels_dir": kept("pruning-vs-peer", "pixels"),
        "seed": case.seed,
        "guide": Guide(
            teacher=bench.teacher,
            teacher_size=case.size,
            batch_size=BATCH,
            weight_decay=0.01,
            precision=TrainPrecision.FP32,
            temperature=TEMPERATURE,
            soft_weight=SOFT_WEIGHT,
            loss=DistillLoss.HINTON,
            augment=Augment.BASIC,
        ),
    }
    if not pruned.exists():
        say("  ours: prunes")
        inputs = pruning.PruneInputs(**shared)
        pruning.run(case.pruning, inputs, out=folder, progress=Spoken())
    if not student.exists():
        say("  ours: distils")
        config = DistillConfig(epochs=case.epochs, lr=LR, temperature=TEMPERATURE, soft_weight=SOFT_WEIGHT)
        taught = distilling.DistillInputs(pruned=pruned, select="top1", **shared)
        distilling.run(config, taught, out=folder, progress=Spoken())
    return checkpoint.load(student)[0]


def _peer_cut(bench: Bench, ours: nn.Module) -> tuple[float, nn.Module]:
    """The peer's ratio at which its network is as fast as ours, or up to 3% slower, and that network untaught."""
    path = bench.case.home / "peer-cut.safetensors"
    if path.exists():
        return float(checkpoint.read_metadata(path)["ratio"]), checkpoint.load(path)[0]
    low, high, best = 0.0, 0.95, (np.inf, 0.0)
    for _ in range(_HALVINGS):
        ratio = (low + high) / 2
        slower = _slower(bench, ours, _peer(bench, ratio), rounds=_ROUNDS)[0]
        say(f"  torch-pruning at {ratio:.3f}: {slower:.3f}x our latency")
        if slower >= 1.0:
            low, best = ratio, min(best, (slower, ratio))
            if slower <= SLOWER:
                break
        else:
            high = ratio
    model = _peer(bench, best[1])
    checkpoint.save(model, describe(model, BACKBONE, len(bench.index.labels)), path, {"ratio": str(best[1])})
    return best[1], checkpoint.load(path)[0]


def _peer(bench: Bench, ratio: float) -> nn.Module:
    """What torch-pruning's README does, at so large a ratio."""
    import torch_pruning as tp

    model = checkpoint.load(bench.teacher)[0].requires_grad_(True)
    heads = [model.get_submodule(name) for name in backbones.classifier_names(model)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruner = tp.pruner.BasePruner(
            model,
            torch.randn(1, 3, bench.case.size, bench.case.size),
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=ratio,
            ignored_layers=heads,
            round_to=8,
            # its defaults are dictionaries that all pruners of a process share
            in_channel_groups={},
            out_channel_groups={},
            channel_groups={},
            num_heads={},
        )
        pruner.step()
    return model.eval()


def _taught(bench: Bench, cut: nn.Module, how: str, objective: Objective) -> nn.Module:
    path = bench.case.home / f"peer-{how}.safetensors"
    if not path.exists():
        say(f"  torch-pruning: trains ({how})")
        model = copy.deepcopy(cut).requires_grad_(True)
        _fit(bench, model, f"peer-{how}", bench.case.budget, objective, "top1")
        _save(bench, model, path)
    return checkpoint.load(path)[0]


def _distillation(bench: Bench) -> Objective:
    teacher = checkpoint.load(bench.teacher)[0]
    return Distillation(
        teacher=teacher,
        task=training_task(bench.index.task),
        temperature=TEMPERATURE,
        soft_weight=SOFT_WEIGHT,
        student_size=bench.case.size,
    )


def _fit(bench: Bench, model: nn.Module, phase: str, epochs: int, objective: Objective, select: str) -> None:
    state = bench.case.home / f"{phase}.state"
    fitting = Fitting(
        phase=phase,
        epochs=epochs,
        batch_size=BATCH,
        lr=LR,
        weight_decay=0.01,
        augment=Augment.BASIC,
        seed=bench.case.seed,
        precision=TrainPrecision.FP32,
        select=select,
    )
    fit(
        model,
        fitting,
        task=training_task(bench.index.task),
        train=bench.sets.train,
        val=bench.sets.val,
        objective=objective,
        state=state,
        progress=Spoken(),
    )


def _save(bench: Bench, model: nn.Module, path: Path) -> None:
    checkpoint.save(model, describe(model, BACKBONE, len(bench.index.labels)), path)
    (bench.case.home / f"{path.stem}.state").unlink(missing_ok=True)


def _rights(bench: Bench, model: nn.Module) -> NDArray[np.bool_]:
    """Which test images a network gets right."""
    assert bench.sets.test is not None
    found = predict_outputs(model, bench.sets.test).argmax(1)
    return np.asarray(found == np.asarray(bench.sets.test.targets))


def _slower(bench: Bench, ours: nn.Module, peer: nn.Module, *, rounds: int) -> tuple[float, float, float]:
    """The peer's latency over ours, single images in turn through our runtime on one thread, and its 95% interval."""
    image = np.zeros((1, 3, bench.case.size, bench.case.size), np.float32)
    files = [
        to_bytes(to_onnx(m, task=Classification(labels=bench.index.labels), spec=bench.spec, opset=18))
        for m in (ours, peer)
    ]
    with OnnxBackend(files[0], threads=1) as first, OnnxBackend(files[1], threads=1) as second:
        calls = {"ours": lambda: first.run(image), "peer": lambda: second.run(image)}
        settle, block = block_of(calls)
        timed = time_interleaved(
            calls,
            warmup=2 * block,
            runs=rounds * block,
            pause_s=PAUSE_S,
            settle=settle,
            block=block,
        )
    ratio = paired_ratio(timed["ours"], timed["peer"])
    return ratio.value, ratio.low, ratio.high
