"""Every engine and precision, with one thread and two, in one process, interleaved: latency, accuracy, start, memory,
and what an engine weighs when it is installed.

Subjects are the students of digits, flowers12 and CIFAR-10 (of the latter two those of `make bench ONLY=headline`), and
three networks as their authors made them.
`EDGETL_BENCH_SUBJECTS` names some of them, `EDGETL_BENCH_RUNS` sets the calls (default 60). The students are made by
their recipes (hours for flowers12 and CIFAR-10) and kept (`EDGETL_BENCH_CACHE`). EfficientNet-Lite0 has its own weights
and a fresh head, the other two have random weights: of these three the share of answers that float32 gives is told.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from edgetl import config, pipeline
from edgetl.bench.statistics import median_ratio
from edgetl.bench.timer import time_interleaved
from edgetl.bundle.archive import open_bundle
from edgetl.bundle.manifest import InputForm
from edgetl.config import Calibrator, Recipe, Target
from edgetl.data.index import build_index
from edgetl.data.pixels import open_pixels
from edgetl.export.half_weights import store_half
from edgetl.export.litert.convert import to_tflite
from edgetl.export.onnx import to_onnx
from edgetl.inputs.image import PreprocessSpec, normalise
from edgetl.models import backbones
from edgetl.quantize.affine import from_range
from edgetl.quantize.calibrate import observe
from edgetl.quantize.graph import Graph
from edgetl.quantize.plan import make_plan
from edgetl.quantize.qdq import insert
from edgetl.quantize.ranges import estimate
from edgetl.quantize.targets import rules_for
from edgetl.runtime.engines.base import Backend
from edgetl.runtime.engines.table import ENGINES
from edgetl.runtime.targets import EngineName
from edgetl.statistics import compare_paired
from edgetl.tasks.base import LOGITS, Classification
from tests.bench import headline
from tests.bench.claims import Claim, at_most
from tests.bench.steps import Spoken, kept, say
from tests.quantize import peers
from tests.real_sets import unpacked

Images = NDArray[np.float32]
CPU_ENGINES = (EngineName.CPU, EngineName.OPENVINO, EngineName.LITERT)
AIM = 0.75
STUDENTS = ("digits", "flowers12", "cifar10")
NETWORKS = {"efficientnet_lite0": 224, "mobilenetv2_100": 224, "resnet18": 224}
STARTS = 5
START = """
import time
started = time.perf_counter()
import numpy as np
from edgetl.runtime.engines.{module} import {backend}
with open({file!r}, "rb") as file:
    model = {backend}(file.read(), threads=1)
model.run(np.zeros((1, {shape}), np.float32))
seconds = time.perf_counter() - started
import edgetl.bench.memory as memory
print(seconds, memory.peak_memory_bytes())
"""
_HOMES = {
    EngineName.CPU: ("onnxruntime", "OnnxBackend"),
    EngineName.OPENVINO: ("openvino", "OpenVinoBackend"),
    EngineName.LITERT: ("litert", "LiteRtBackend"),
}


@dataclass(frozen=True)
class Model:
    """A file for an engine."""

    variant: str
    engine: EngineName
    file: Path

    @property
    def name(self) -> str:
        """`int8-litert in litert`."""
        return f"{self.variant} in {self.engine}"


@dataclass(frozen=True)
class Subject:
    """A network: its models, and images with what is right for them."""

    name: str
    models: tuple[Model, ...]
    images: Images
    truths: NDArray[np.int64]
    trained: bool


def run() -> Iterator[Claim]:
    """Yield the claims."""
    known = (*STUDENTS, *NETWORKS)
    for engine in CPU_ENGINES:
        if size := installed_bytes(engine):
            yield Claim(name=f"{engine}, as it is installed", measured=f"{size / 1e6:.0f} MB")
    for name in os.environ.get("EDGETL_BENCH_SUBJECTS", ",".join(known)).split(","):
        say(f"{name}, of {', '.join(known)}")
        with tempfile.TemporaryDirectory() as folder:
            if name in NETWORKS:
                yield from _claims(network(name, NETWORKS[name], Path(folder)))
            elif name != "digits" and unpacked(name) is None:
                yield Claim(name=name, measured=f"not measured: EDGETL_DATA names no folder with {name}")
            else:
                yield from _claims(student(name, Path(folder)))


# --- subjects -----------------------------------------------------------------------------------------------


def student(name: str, folder: Path) -> Subject:
    """The student of a set, and the test split."""
    recipe, home = _run(name)
    outcome = pipeline.run(recipe, home, progress=Spoken())
    assert outcome.bundle is not None
    bundle = open_bundle(outcome.bundle)
    models = []
    for variant in bundle.manifest.variants:
        if variant.input is InputForm.UINT8:
            continue
        file = folder / f"{variant.name}.{variant.format}"
        file.write_bytes(bundle.read(variant.member))
        models += [
            Model(variant.name, engine, file) for engine in CPU_ENGINES if ENGINES[engine].suits(variant)
        ]
    spec = bundle.manifest.preprocess
    samples = build_index(recipe.data, seed=recipe.seed).split("test")
    pixels = open_pixels(samples, spec, folder / "pixels")
    truths = np.array([sample.label for sample in samples])
    return Subject(f"{name} student", tuple(models), normalise(np.asarray(pixels), spec), truths, True)


def _run(name: str) -> tuple[Recipe, Path]:
    """The recipe of a set and its run's folder; of a real set the first run of `make bench ONLY=headline`."""
    source = None if name == "digits" else unpacked(name)
    if source is None:
        targets = [str(target) for target in headline.TARGETS]
        return config.parse({"name": name, "quantize": {"target": targets}}), kept("engines", name)
    return headline.recipe_for(source, headline.SETS[name], 0), headline.folder_of(name, 0)


def network(name: str, size: int, folder: Path) -> Subject:
    """A network as its authors made it, in all forms, and noise; what float32 answers is right."""
    if name == "efficientnet_lite0":
        made = to_onnx(
            backbones.create(name, 10).eval(),
            task=Classification(labels=tuple("0123456789")),
            spec=PreprocessSpec(size=size),
            opset=18,
        )
    else:
        made = peers.untrained(name, size)
    forms: dict[str, tuple[str, onnx.ModelProto]] = {
        "fp32": ("any", made),
        "fp32-half-weights": ("any", store_half(made)),
    }
    for target in headline.TARGETS:
        forms[f"int8-{target}"] = (str(target), _quantized(made, target, size))
    models = []
    for label, (target, form) in forms.items():
        if target != Target.LITERT:
            file = folder / f"{label}.onnx"
            file.write_bytes(form.SerializeToString())
            takers = (
                (EngineName.OPENVINO,) if target == Target.OPENVINO else (EngineName.CPU, EngineName.OPENVINO)
            )
            models += [Model(label, engine, file) for engine in takers]
        if target in ("any", Target.LITERT):
            file = folder / f"{label}.tflite"
            file.write_bytes(to_tflite(form))
            models.append(Model(label, EngineName.LITERT, file))
    images = np.concatenate(list(peers.noise(32, size)))
    with opened(models[0], 1) as backend:
        truths = backend.run(images)[LOGITS].argmax(axis=1)
    return Subject(f"{name}, {size} px", tuple(models), images, truths, False)


def _quantized(model: onnx.ModelProto, target: Target, size: int) -> onnx.ModelProto:
    graph, rules = Graph(model), rules_for(target)
    plan, grid = make_plan(graph, rules), rules.activations
    found = observe(model, plan.observed, peers.noise(16, size), images=16)
    spans = {n: estimate(h, Calibrator.MINMAX, grid, percentile=99.99) for n, h in found.items()}
    return insert(
        graph, plan, rules, {n: from_range(*span, grid) for n, span in (spans | plan.known).items()}
    )


# --- measuring ----------------------------------------------------------------------------------------------


def opened(model: Model, threads: int) -> Backend:
    """The model in its engine, on so many threads.

    Raises:
        EdgetlError: it cannot be opened.
    """
    module, backend = _HOMES[model.engine]
    kind = getattr(import_module(f"edgetl.runtime.engines.{module}"), backend)
    made: Backend = kind(model.file.read_bytes(), threads=threads)
    return made


def _claims(subject: Subject) -> Iterator[Claim]:
    runs = int(os.environ.get("EDGETL_BENCH_RUNS", "60"))
    right = {model.name: _right(model, subject) for model in subject.models}
    say("starting each engine anew")
    starts = {model.name: _start(model, subject) for model in subject.models}
    say("timing")
    times = _time(subject, runs)
    what = "of the test set right" if subject.trained else "of the answers those of float32"
    for model in subject.models:
        milliseconds = ", ".join(
            f"{np.median(times[model.name, threads]):.3f} ms with {threads}" for threads in (1, 2)
        )
        seconds, memory = starts[model.name]
        yield Claim(
            name=f"{subject.name}: {model.name}",
            measured=f"{milliseconds}; {right[model.name].mean():.2%} {what}; first answer after"
            f" {seconds * 1e3:.0f} ms, {memory / 1e6:.0f} MB at most; file {model.file.stat().st_size / 1e6:.3f} MB",
        )
    yield from _verdicts(subject, right, times)


def _verdicts(
    subject: Subject,
    right: Mapping[str, NDArray[np.bool_]],
    times: Mapping[tuple[str, int], list[float]],
) -> Iterator[Claim]:
    """LiteRT's INT8 against ONNX Runtime's, each with its better number of threads."""

    def fastest(engine: EngineName) -> tuple[str, int] | None:
        names = {m.name for m in subject.models if m.engine is engine and m.variant.startswith("int8")}
        keys = [key for key in times if key[0] in names]
        return min(keys, key=lambda key: float(np.median(times[key])), default=None)

    ours, theirs = fastest(EngineName.LITERT), fastest(EngineName.CPU)
    if ours is None or theirs is None:
        yield Claim(
            name=f"{subject.name}: LiteRT INT8 over ONNX Runtime INT8", measured="not measured: one is absent"
        )
        return
    ratio = median_ratio(times[theirs], times[ours], paired=True)
    name = f"{subject.name}: LiteRT INT8 over ONNX Runtime INT8"
    if subject.trained:
        yield at_most(name, ratio.value, AIM, "x")
    else:
        yield Claim(name=name, measured=f"{ratio.value:.3g}x ({ratio.low:.2f} to {ratio.high:.2f})")
    paired = compare_paired(right[theirs[0]], right[ours[0]])
    low, high = paired.interval
    yield Claim(
        name=f"{subject.name}: right answers, {ours[0]} less {theirs[0]}",
        measured=f"{paired.difference:+.2%} ({low:+.2%} to {high:+.2%})",
        aim="no fewer, by a paired test",
        holds=high >= 0.0,
    )


def _right(model: Model, subject: Subject) -> NDArray[np.bool_]:
    with opened(model, 1) as backend:
        found = [backend.run(subject.images[i : i + 1])[LOGITS].argmax() for i in range(len(subject.images))]
    return np.array(found) == subject.truths


def _time(subject: Subject, runs: int) -> dict[tuple[str, int], list[float]]:
    image = np.ascontiguousarray(subject.images[:1])
    with ExitStack() as stack:
        calls: dict[str, Callable[[], object]] = {}
        keys = {}
        for model in subject.models:
            for threads in (1, 2):
                key = f"{model.name} {threads}"
                calls[key] = stack.enter_context(opened(model, threads)).bind(image)
                keys[key] = (model.name, threads)
        timed = time_interleaved(calls, warmup=6, runs=runs, pause_s=0.05, settle=3, block=3)
    return {keys[key]: samples for key, samples in timed.items()}


def _start(model: Model, subject: Subject) -> tuple[float, int]:
    """Seconds from a new process to the first answer, and the most bytes that it held; the median of a few."""
    module, backend = _HOMES[model.engine]
    shape = ", ".join(map(str, subject.images.shape[1:]))
    script = START.format(module=module, backend=backend, file=str(model.file), shape=shape)
    found = [
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(STARTS)
    ]
    return statistics.median(float(s) for s, _ in found), int(statistics.median(int(b) for _, b in found))


def installed_bytes(engine: EngineName) -> int:
    """The files of an engine's package and of what it brings along, beyond what edgetl needs anyway; 0 if absent."""
    own = set().union(*(_closure(name) for name in ("numpy", "pillow", "typer", "rich")))
    for package in ENGINES[engine].packages:
        if found := _closure(package):
            return sum(_bytes(name) for name in found - own)
    return 0


def _closure(package: str) -> set[str]:
    """The package and all that it requires, without extras; empty where it is absent."""
    try:
        needed = metadata.requires(package) or []
    except metadata.PackageNotFoundError:
        return set()
    found = {package.lower()}
    for line in needed:
        name = re.split(r"[ ;<>=!~\[(]", line, maxsplit=1)[0].lower()
        if "extra ==" not in line and name not in found:
            found |= _closure(name)
    return found


def _bytes(package: str) -> int:
    files = metadata.files(package) or []
    return sum(path.stat().st_size for file in files if (path := Path(str(file.locate()))).is_file())
