"""A large teacher in eager torch against the student that ships, on real sets: mean of three seeds.

EfficientNet-Lite2 at 224 px on flowers12, at 96 px on 5,000 labelled images of CIFAR-10. The student is
EfficientNet-Lite0 at a smaller size, taught by it and then cut: what is left of a small network is closer to its
pretrained features than what is left of a large one that is cut as far. On CIFAR-10 the teacher also names the other
training images, whose labels nobody sees.
Hours on two cores. Runs are kept (`EDGETL_BENCH_CACHE`), so that what was stopped goes on. `EDGETL_BENCH_SEEDS`
names the seeds (default `0,1,2`), `EDGETL_BENCH_SETS` the sets.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator
from pathlib import Path

from edgetl import config, pipeline
from edgetl.config import Recipe, Target
from edgetl.processor import computes
from edgetl.records.scores import value
from edgetl.report.run import headline
from tests.bench.claims import Claim, at_least, at_most
from tests.bench.steps import Spoken, kept, named_seeds
from tests.real_sets import unpacked

TIMES, POINTS = 30, 1.0
Settings = dict[str, dict[str, object]]

SETS: dict[str, Settings] = {
    "flowers12": {
        "preprocess": {"size": 224, "crop_fraction": 1.0},
        "train": {"backbone": "efficientnet_lite2", "epochs": 6},
        "prune": {
            "network": "efficientnet_lite0",
            "start_epochs": 10,
            "target_macs": 0.33,
            "target_parameters": 0.16,
            "steps": 5,
            "recovery_epochs": 2,
            "max_drop": 0.08,
            "importance_images": 128,
        },
        "distill": {"size": 144, "epochs": 40},
    },
    "cifar10": {
        "data": {"max_train_images": 5000},
        "preprocess": {"size": 96, "crop_fraction": 1.0},
        "train": {"backbone": "efficientnet_lite2", "epochs": 4},
        "prune": {
            "network": "efficientnet_lite0",
            "start_epochs": 6,
            "target_macs": 0.4,
            "target_parameters": 0.16,
            "steps": 5,
            "recovery_epochs": 1,
            "max_drop": 0.1,
        },
        "distill": {"size": 64, "epochs": 6, "unlabelled": "train", "unlabelled_share": 0.75},
    },
}
TARGETS = tuple(
    target
    for target in (Target.CPU_X86, Target.CPU_X86_VNNI, Target.CPU_ARM, Target.OPENVINO, Target.LITERT)
    if target in (Target.OPENVINO, Target.LITERT) or computes(target)
)
"""Those that this machine's processor computes: what ships is the fastest that keeps the accuracy."""


def run() -> Iterator[Claim]:
    """Yield the claims."""
    for name in os.environ.get("EDGETL_BENCH_SETS", ",".join(SETS)).split(","):
        source = unpacked(name)
        if source is None:
            yield Claim(name=name, measured=f"not measured: EDGETL_DATA names no folder with {name}")
        else:
            yield from _set(source, SETS[name])


def recipe_for(source: Path, settings: Settings, seed: int) -> Recipe:
    """The recipe with this seed; `unlabelled` names a folder of the set."""
    data = {"source": str(source), **settings.get("data", {})}
    distill = dict(settings["distill"])
    if "unlabelled" in distill:
        distill["unlabelled"] = str(source / str(distill["unlabelled"]))
    quantize = {"target": [str(target) for target in TARGETS]}
    own = {"name": source.name, "seed": seed, "data": data, "distill": distill, "quantize": quantize}
    return config.parse({**settings, **own})


def folder_of(name: str, seed: int) -> Path:
    """Where the run of a set is kept."""
    return kept("headline", f"{name}-{seed}")


def _set(source: Path, settings: Settings) -> Iterator[Claim]:
    points, times, sizes = list[float](), list[float](), list[float]()
    for seed in named_seeds("0,1,2"):
        folder = folder_of(source.name, seed)
        report = pipeline.run(recipe_for(source, settings, seed), folder, progress=Spoken()).report
        assert report is not None
        head, teacher, student = headline(report), report.teacher.size, report.student.size
        points.append(-head.points)
        times.append(head.latency_ratio)
        sizes.append(head.size_ratio)
        yield Claim(
            name=f"{source.name}, seed {seed}: teacher and {head.shipped.name} on {head.split}",
            measured=f"{value(head.teacher, 'top1'):.2%} and {value(head.student, 'top1'):.2%};"
            f" {report.measure.teacher_latency.p50_ms:.2f} and {head.shipped.latency.p50_ms:.3f} ms,"
            f" {head.latency_ratio:.1f}x; {report.measure.teacher_size_bytes / 1e6:.2f} and"
            f" {head.shipped.size_bytes / 1e6:.3f} MB, {head.size_ratio:.1f}x;"
            f" {student.macs / teacher.macs:.1%} of the multiply-accumulates,"
            f" {student.parameters / teacher.parameters:.1%} of the parameters;"
            f" {sum(report.stage_seconds.values()) / 60:.0f} minutes",
        )
    yield at_most(f"{source.name}: points of top-1 lost, mean", statistics.mean(points), POINTS, " points")
    yield at_least(f"{source.name}: median latency, mean of ratios", statistics.mean(times), TIMES, "x")
    yield at_least(f"{source.name}: size on disk, mean of ratios", statistics.mean(sizes), TIMES, "x")
