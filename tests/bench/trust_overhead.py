"""What trust costs: the engine's call with the feature map as a further output, `predict` with `explain`, `predict`
with `unknown` by each score that compares features, and `predict` in a session that watches for drift and keeps images.

Small networks, since a fixed cost weighs most on them; float and INT8, in ONNX Runtime and OpenVINO, on one thread,
interleaved in one process. In processor time of all threads, which is steady on shared machines, too.
`EDGETL_BENCH_RUNS` sets the calls (default 300).
"""

from __future__ import annotations

import io
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import edgetl
from edgetl.bench.timer import time_interleaved
from edgetl.bundle.drift import DriftAnswers, DriftSource
from edgetl.bundle.golden import GoldenSet
from edgetl.bundle.manifest import Provenance
from edgetl.bundle.pack import Contents, VariantSource, pack
from edgetl.bundle.reference import MOST_BYTES, Reference, decode, encode, room
from edgetl.bundle.unknown import UnknownSource
from edgetl.config import Calibrator, Target
from edgetl.export.onnx import to_bytes
from edgetl.inputs.image import PreprocessSpec, load_pixels, normalise
from edgetl.inputs.looks import PIXELS, looks
from edgetl.measure.drift import answers_of, looks_of
from edgetl.quantize.affine import from_range
from edgetl.quantize.calibrate import observe
from edgetl.quantize.compact import compact
from edgetl.quantize.graph import Graph
from edgetl.quantize.plan import make_plan
from edgetl.quantize.qdq import insert
from edgetl.quantize.ranges import estimate
from edgetl.quantize.targets import rules_for
from edgetl.records.unknown import ScoreName
from edgetl.runtime.capture import Capture
from edgetl.runtime.engines.base import Backend, run_pixels
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from edgetl.runtime.features import EMBEDDING, pooled, pooled_head
from edgetl.runtime.unknown.judge import normal
from edgetl.runtime.unknown.scores import Features, scorer
from edgetl.runtime.wire import with_outputs
from edgetl.tasks.all import task_of
from edgetl.tasks.base import LOGITS, Classification, Outputs, joined
from tests.bench.claims import Claim, paired_ratio
from tests.bench.steps import say
from tests.quantize import peers

CLASSES = 10
LABELS = tuple(f"class {at}" for at in range(CLASSES))
REPEATED = 50
"""So often the pictures stand in the reference for drift."""
NETWORKS = (("tinynet_e", 64), ("efficientnet_lite0", 96))
PHOTOGRAPH = (640, 480)
_RUN_MOST, _PREDICT_MOST = 1.03, 1.05
_RATE = 0.05


def run() -> Iterator[Claim]:
    """Yield the claims."""
    runs = int(os.environ.get("EDGETL_BENCH_RUNS", "300"))
    with tempfile.TemporaryDirectory() as folder:
        for network, size in NETWORKS:
            say(f"{network} at {size} px: half a minute")
            models = _models(network, size)
            for form, content in models.items():
                shown = with_outputs(content, pooled_head(content, [LOGITS]).shown)
                for engine, open_model in _engines().items():
                    yield _calls(
                        f"{network}, {size} px, {form}, {engine}", content, shown, size, open_model, runs
                    )
            yield from _predictions(network, size, models, Path(folder), runs)


def _models(network: str, size: int) -> dict[str, bytes]:
    model = peers.untrained(network, size, CLASSES)
    graph, rules = Graph(model), rules_for(Target.CPU_X86)
    plan, grid = make_plan(graph, rules), rules.activations
    found = observe(model, plan.observed, peers.noise(16, size), images=16)
    spans = {n: estimate(h, Calibrator.MINMAX, grid, percentile=99.99) for n, h in found.items()}
    activations = {name: from_range(*span, grid) for name, span in (spans | plan.known).items()}
    return {"fp32": to_bytes(model), "int8": to_bytes(compact(insert(graph, plan, rules, activations)))}


def _engines() -> dict[str, Callable[[bytes], Backend]]:
    found: dict[str, Callable[[bytes], Backend]] = {
        "ONNX Runtime": lambda content: OnnxBackend(content, threads=1)
    }
    if find_spec("openvino") is not None:
        from edgetl.runtime.engines.openvino import OpenVinoBackend

        found["OpenVINO"] = lambda content: OpenVinoBackend(content, threads=1)
    return found


def _calls(
    name: str, plain: bytes, shown: bytes, size: int, open_model: Callable[[bytes], Backend], runs: int
) -> Claim:
    """The engine's own call, as sessions make it, without and with the map."""
    image = next(peers.noise(8, size))[:1].copy()
    with open_model(plain) as without, open_model(shown) as with_map:
        calls = {"without": without.bind(image), "with": with_map.bind(image)}
        timed = time_interleaved(calls, warmup=20, runs=runs, settle=1, block=5, clock=time.process_time_ns)
    ratio = paired_ratio(timed["without"], timed["with"])
    return Claim(
        name=f"{name}: a call with the feature map over one without, median of pairs",
        measured=f"{ratio.value:.3f}x ({ratio.low:.3f} to {ratio.high:.3f}) of"
        f" {statistics.median(timed['without']):.3f} ms",
        aim=f"<= {_RUN_MOST:g}x",
        holds=ratio.value <= _RUN_MOST,
    )


def _predictions(
    network: str, size: int, models: dict[str, bytes], folder: Path, runs: int
) -> Iterator[Claim]:
    """JPEG bytes to label: in a session that never explains, in one that could, and explained."""
    spec = PreprocessSpec(size=size)
    photographs = [_photograph(seed) for seed in range(4)]
    path = folder / f"{network}.edgetl"
    before = _write_bundle(path, models, spec, photographs)
    for score in (name for name in ScoreName if name.by_features):
        telling = folder / f"{network}-{score}.edgetl"
        whole = _write_bundle(telling, models, spec, photographs, score)
        yield from _told(f"{network}, {size} px", telling, models, photographs, score, max(40, runs // 2))
        if score is ScoreName.VIM:
            most = len(models) * 3 * MOST_BYTES
            yield Claim(
                name=f"{network}: bytes that a bundle of {len(models)} variants carries to tell unknown images",
                measured=f"{whole - before} beside {before}",
                aim=f"<= {most}",
                holds=whole - before <= most,
            )
    for variant in models:
        with (
            edgetl.load(path, variant=variant, threads=1) as never,
            edgetl.load(path, variant=variant, threads=1) as could,
            edgetl.load(path, variant=variant, threads=1, drift=True) as watching,
            edgetl.load(
                path, variant=variant, threads=1, drift=True, capture=Capture(folder / f"{network}-{variant}")
            ) as keeping,
        ):
            timed = _timed(never, could, watching, keeping, photographs, max(40, runs // 2))
        for name, what in (
            ("could", "not asked, in a session that has explained"),
            ("explained", "explained"),
            ("watching", "watched for drift"),
            ("keeping", "watched for drift, and each image compared with those kept"),
        ):
            ratio = paired_ratio(timed["never"], timed[name])
            yield Claim(
                name=f"{network}, {size} px, {variant}: predict, {what}, over a session that never explains",
                measured=f"{ratio.value:.3f}x ({ratio.low:.3f} to {ratio.high:.3f}) of"
                f" {_beside(timed['never'], timed[name])}",
                aim=f"<= {_PREDICT_MOST:g}x",
                holds=ratio.value <= _PREDICT_MOST,
            )
    yield Claim(
        name=f"{network}: bytes that a bundle carries so that it can be explained",
        measured=f"{path.stat().st_size - before} of {before}",
        aim="0",
        holds=path.stat().st_size == before,
    )


def _told(
    what: str, path: Path, models: dict[str, bytes], photographs: list[bytes], score: ScoreName, runs: int
) -> Iterator[Claim]:
    """JPEG bytes to label, and whether the image is unknown."""
    for variant in models:
        with (
            edgetl.load(path, variant=variant, threads=1) as never,
            edgetl.load(path, variant=variant, threads=1) as told,
        ):
            started = time.process_time_ns()
            told.predict(photographs[0], unknown=_RATE)
            first_ms = (time.process_time_ns() - started) / 1e6
            one, other = itertools.cycle(photographs), itertools.cycle(photographs)
            calls: dict[str, Callable[[], object]] = {
                "never": lambda never=never, one=one: never.predict(next(one)),  # type: ignore[misc]
                "told": lambda told=told, other=other: told.predict(next(other), unknown=_RATE),  # type: ignore[misc]
            }
            timed = time_interleaved(calls, warmup=10, runs=runs, clock=time.process_time_ns)
        ratio = paired_ratio(timed["never"], timed["told"])
        yield Claim(
            name=f"{what}, {variant}: predict with unknown by {score}, over predict without",
            measured=f"{ratio.value:.3f}x ({ratio.low:.3f} to {ratio.high:.3f}) of"
            f" {_beside(timed['never'], timed['told'])}; {first_ms:.0f} ms once",
            aim=f"<= {_PREDICT_MOST:g}x",
            holds=ratio.value <= _PREDICT_MOST,
        )


def _beside(before: list[float], after: list[float]) -> str:
    """The time of a call in words, and how much more one takes, the median of pairs."""
    more = statistics.median(now - was for was, now in zip(before, after, strict=True))
    return f"{statistics.median(before):.2f} ms, {1000 * more:+.0f} microseconds"


def _known(model: bytes, spec: PreprocessSpec, score: ScoreName) -> tuple[bytes, UnknownSource]:
    """As many known images as a bundle has room for, of noise, and how unknown ones are told by them."""
    head = pooled_head(model, [LOGITS])
    generator = np.random.default_rng(0)
    with OnnxBackend(with_outputs(model, head.shown), threads=1) as backend:

        def seen(count: int) -> Outputs:
            pixels = generator.integers(0, 256, (count, spec.size, spec.size, 3), dtype=np.uint8)
            return joined(
                [{**pooled(run_pixels(backend, row[None], spec)), PIXELS: looks(row)[None]} for row in pixels]
            )

        features = seen(1)[EMBEDDING].shape[1]
        trained, fresh = (seen(room(features, others)) for others in (0, 4 * CLASSES))
    classes = (np.arange(len(trained[LOGITS])) % CLASSES).astype(np.int32)
    content = encode(
        Reference(
            embeddings=trained[EMBEDDING],
            classes=classes,
            means=np.stack([trained[EMBEDDING][classes == at].mean(axis=0) for at in range(CLASSES)]),
            counts=np.bincount(classes, minlength=CLASSES).astype(np.int32),
            validation=fresh[EMBEDDING],
            validation_classes=fresh[LOGITS].argmax(axis=1).astype(np.int32),
            logits={LOGITS: fresh[LOGITS]},
            looks=trained[PIXELS],
            validation_looks=fresh[PIXELS],
        )
    )
    task = Classification(labels=LABELS)
    told = scorer(score, task, Features(reference=decode(content, task, "bench"), weights=head.weights))
    return content, UnknownSource(score=score, normal=normal(told(fresh)))


def _timed(
    never: edgetl.Session,
    could: edgetl.Session,
    watching: edgetl.Session,
    keeping: edgetl.Session,
    photographs: list[bytes],
    runs: int,
) -> dict[str, list[float]]:
    could.explaining()
    first, second, third, fourth, fifth = (itertools.cycle(photographs) for _ in range(5))
    calls = {
        "never": lambda: never.predict(next(first)),
        "could": lambda: could.predict(next(second)),
        "explained": lambda: could.predict(next(third), explain=True),
        "watching": lambda: watching.predict(next(fourth)),
        "keeping": lambda: keeping.predict(next(fifth)),
    }
    return time_interleaved(calls, warmup=10, runs=runs, clock=time.process_time_ns)


def _write_bundle(
    path: Path,
    models: dict[str, bytes],
    spec: PreprocessSpec,
    images: list[bytes],
    score: ScoreName | None = None,
) -> int:
    """A bundle of the models, which tells unknown images where a score is given; returns its size."""
    pixels = np.stack([load_pixels(image, spec) for image in images])
    outputs = {}
    for name, content in models.items():
        with OnnxBackend(content, threads=1) as backend:
            outputs[name] = joined([backend.run(normalise(row[None], spec)) for row in pixels])
    variants = []
    for name, content in models.items():
        reference, unknown = (None, None) if score is None else _known(content, spec, score)
        variants.append(
            VariantSource(
                name=name,
                precision=name,
                target="any" if name == "fp32" else "cpu-x86",
                model=content,
                reference=reference,
                unknown=unknown,
            )
        )
    contents = Contents(
        name="bench",
        task=Classification(labels=LABELS),
        preprocess=spec,
        variants=variants,
        default="fp32",
        golden=GoldenSet(images=tuple(images), pixels=pixels, outputs=outputs),
        provenance=Provenance(),
        drift=_like(pixels, outputs),
    )
    pack(contents, path)
    return path.stat().st_size


def _like(pixels: NDArray[np.uint8], outputs: dict[str, Outputs]) -> DriftSource:
    """A reference that is nothing but these pictures, so that there is never an alarm."""
    task = task_of(Classification(labels=LABELS))
    answers = {}
    for name, found in outputs.items():
        sure, named = answers_of(task, found)
        answers[name] = DriftAnswers(
            sureness=np.tile(np.array(sure, np.float32), REPEATED), named=REPEATED * np.array(named)
        )
    return DriftSource(looks=np.tile(np.array(looks_of(pixels), np.float32), (REPEATED, 1)), answers=answers)


def _photograph(seed: int) -> bytes:
    """A JPEG of smooth random colours with a sensor's noise."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    noise = generator.normal(0, 3, (PHOTOGRAPH[1], PHOTOGRAPH[0], 1))
    pixels = np.asarray(coarse.resize(PHOTOGRAPH, Image.Resampling.BICUBIC), dtype=np.float32) + noise
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()
