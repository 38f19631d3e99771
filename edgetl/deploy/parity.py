"""The parity report: from torch to the last engine, step by step, on real images; the first that breaks is named.

Each step changes one thing against the step that it stands on, and is held to a bound against that one only:

    torch -> ONNX as exported -> the same through the bundle's own preprocessing -> each variant -> each engine

Where no checkpoint is given, the report starts at the ONNX as exported.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgetl.bundle.archive import Bundle, open_bundle
from edgetl.bundle.manifest import InputForm, ModelFormat, Precision, Variant
from edgetl.data.splits import spread
from edgetl.deploy.bounds import BOUNDS, Bound, hold
from edgetl.errors import (
    BundleError,
    BundleIntegrityError,
    EdgetlError,
    ImageError,
    MissingDependencyError,
    WeightsError,
)
from edgetl.files import sha256_bytes
from edgetl.inputs.image import PreprocessSpec, load_pixels, normalise
from edgetl.packages import pip_install
from edgetl.process import usable_cores
from edgetl.progress import SILENT, Progress
from edgetl.records.codec import from_json, to_json
from edgetl.records.lineage import ENROLLED
from edgetl.records.parity import Divergence, ParityRecord, ParityStep
from edgetl.records.scores import BadImages, score
from edgetl.runtime.engines.base import run_pixels
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from edgetl.runtime.evaluate import LabelledImage, choose_images, refuse_or_skip
from edgetl.statistics import compare_paired
from edgetl.tasks.all import framed, task_of
from edgetl.tasks.base import Outputs, Truths, joined
from edgetl.tasks.metrics import TOP1

if TYPE_CHECKING:
    import onnx
    from torch import nn

BATCH = 16
BISECTED = 4
"""Images, those with the largest errors, on which the layers are compared."""


@dataclass(frozen=True)
class _Stage:
    """A step that was run: its outputs, what is right for them, and what the layers are compared with if it breaks."""

    name: str
    outputs: Outputs
    truths: Truths
    onnx: Callable[[], bytes] | None = None
    feed: Callable[[NDArray[np.uint8]], NDArray[Any]] | None = None
    network: nn.Module | None = None
    tflite: bytes = b""
    inside: bool = False
    """Whether that normalises pictures itself."""


def run(
    bundle: Path,
    data: Path,
    *,
    checkpoint: Path | None = None,
    limit: int | None = None,
    bad_images: BadImages = BadImages.REFUSE,
    progress: Progress = SILENT,
) -> ParityRecord:
    """Compare step by step.

    Args:
        bundle: the bundle.
        data: labelled images, as `edgetl eval` takes them.
        checkpoint: the network that was exported; where unset, the one in the bundle's run folder, if it is there.
        limit: use at most so many images, spread over the data.
        bad_images: skip images that cannot be used, or refuse the set.
        progress: where to report.

    Raises:
        BundleError: the bundle cannot be used.
        DataError: there are no images, classes that the bundle does not know, or images that cannot be used.
        WeightsError: the checkpoint cannot be used, or is given for a bundle to which classes were added.
        MissingDependencyError: onnxruntime is absent, or torch where a checkpoint is given.
    """
    opened = open_bundle(bundle)
    network = _checkpoint(opened, checkpoint)
    images = choose_images(data, [opened], progress=progress)
    task = task_of(opened.manifest.task)
    words = task.words(task.read([sample.label for sample in images.samples]))
    ordered = [
        sample
        for _, sample in sorted(zip(words, images.samples, strict=True), key=lambda p: (p[0], str(p[1].path)))
    ]
    samples = ordered if limit is None else spread(ordered, limit)
    kept, pixels, bad = list[LabelledImage](), list[NDArray[np.uint8]](), dict[Path, str]()
    for sample in samples:
        try:
            pixels.append(load_pixels(sample.path, opened.manifest.preprocess))
            kept.append(sample)
        except ImageError as error:
            bad[sample.path] = str(error)
    refuse_or_skip(bad, len(samples), bad_images, progress, opened.manifest.preprocess.kind)
    checked = _Comparison(opened, kept, np.stack(pixels), network, progress).run_all()
    return replace(checked, image_set=images.use(len(kept), bad))


def base_variant(bundle: Bundle) -> Variant:
    """The float32 model that others are held against.

    Raises:
        BundleError: there is none.
    """
    for variant in bundle.manifest.variants:
        plain = variant.precision is Precision.FP32 and variant.input is InputForm.FLOAT32
        if plain and variant.format is ModelFormat.ONNX:
            return variant
    raise BundleError(f"{bundle.path} has no float32 variant that the others could be held against.")


def _checkpoint(bundle: Bundle, given: Path | None) -> Path | None:
    """The one given, else the run folder's where it lies there and torch can read it.

    Raises:
        WeightsError: one is given, and classes were added to the bundle's models, which no checkpoint has.
    """
    added = [step.name for step in bundle.manifest.provenance.lineage if step.kind == ENROLLED]
    if added:
        if given is not None:
            raise WeightsError(
                f"{bundle.path} has classes that were added on a device ({', '.join(added)}), which {given} does not"
                " have; leave the checkpoint out, or compare the bundle that they were added to."
            )
        return None
    beside = bundle.path.parent / "distill" / "student.safetensors"
    return given or (beside if beside.is_file() and _has("torch") else None)


class _Comparison:
    def __init__(
        self,
        bundle: Bundle,
        samples: Sequence[LabelledImage],
        pixels: NDArray[np.uint8],
        checkpoint: Path | None,
        progress: Progress,
    ) -> None:
        self.bundle, self.checkpoint, self.progress = bundle, checkpoint, progress
        self.spec, self.names = bundle.manifest.preprocess, bundle.manifest.labels
        self.task = task_of(bundle.manifest.task)
        self.metric = self.task.metrics[0].name
        self.marked = self.task.read([sample.label for sample in samples])
        self.truths = framed(self.task, self.marked, self.spec)
        self.paths, self.pixels = [sample.path for sample in samples], pixels
        self.steps: list[ParityStep] = []
        self.divergence: Divergence | None = None

    def run_all(self) -> ParityRecord:
        variants, base = self.bundle.manifest.variants, base_variant(self.bundle)
        engines = self.bundle.manifest.engines
        with self.progress.task("Parity", total=len(variants) + len(engines) + 2) as task:
            exported = self._exported(base)
            task.advance(note="onnx")
            plain = self._bundled(base, exported)
            task.advance(note=base.name)
            stages = {base.name: plain}
            for variant in variants:
                if variant is not base:
                    stages[variant.name] = self._variant(variant, plain)
                task.advance(note=variant.name)
            for engine in engines:
                self._engine(engine.file, stages[engine.variant])
                task.advance(note=engine.file)
        broken = next((checked for checked in self.steps if checked.holds is False), None)
        return ParityRecord(
            bundle=str(self.bundle.path),
            images=len(self.paths),
            checkpoint=str(self.checkpoint or ""),
            metric=self.metric,
            steps=tuple(self.steps),
            first_outside=broken.name if broken else "",
            divergence=self.divergence,
        )

    # --- the steps ------------------------------------------------------------------------------------------

    def _exported(self, base: Variant) -> _Stage:
        """Only the float32 graph, with the preprocessing that was written into it when it was exported."""
        content = self.bundle.read(base.member)
        self.properties = _metadata(content)
        recorded = self.properties.get("edgetl.preprocess")
        spec = from_json(PreprocessSpec, json.loads(recorded)) if recorded else self.spec
        self.recorded = spec
        pixels = self.pixels
        if _geometry(spec) != _geometry(self.spec):
            pixels = np.stack([load_pixels(path, spec) for path in self.paths])

        def feed(part: NDArray[np.uint8]) -> NDArray[Any]:
            return normalise(part, spec)

        with OnnxBackend(content) as backend:
            outputs = _run(lambda part: backend.run(feed(part)), pixels)
        truths = framed(self.task, self.marked, spec)
        stage = _Stage("onnx", outputs, truths, lambda: content, feed)
        if self.checkpoint is None:
            self._first(stage, "as exported")
            return stage
        network = self._torch(spec, pixels, content, truths)
        self._first(network, str(self.checkpoint))
        self._judge("onnx", "as exported", Precision.FP32, stage, network, pixels=pixels)
        return stage

    def _torch(
        self, spec: PreprocessSpec, pixels: NDArray[np.uint8], exported: bytes, truths: Truths
    ) -> _Stage:
        """The checkpoint's network; its layers are those of an export made anew as the bundle's was."""
        try:
            import torch
        except ImportError as error:
            raise MissingDependencyError(
                "torch",
                f"Leave the checkpoint out, or install it with: {pip_install('torch', 'torchvision', 'timm')}",
            ) from error
        from edgetl.export.onnx import to_bytes, to_onnx
        from edgetl.export.parity import named_outputs
        from edgetl.models import checkpoint

        assert self.checkpoint is not None
        model, _ = checkpoint.load(self.checkpoint)
        model = model.to(memory_format=torch.channels_last)

        def call(part: NDArray[np.uint8]) -> Outputs:
            images = torch.from_numpy(normalise(part, spec)).contiguous(memory_format=torch.channels_last)
            with torch.inference_mode():
                return named_outputs(model(images).float(), self.task, spec.size)

        def fresh() -> bytes:
            import onnx

            opset = onnx.load_from_string(exported).opset_import[0].version
            return to_bytes(to_onnx(model, task=self.task.spec, spec=spec, opset=opset))

        def feed(part: NDArray[np.uint8]) -> NDArray[Any]:
            return normalise(part, spec)

        return _Stage("torch", _run(call, pixels), truths, fresh, feed, model)

    def _bundled(self, base: Variant, exported: _Stage) -> _Stage:
        """The same graph as the runtime runs it, with the preprocessing and the labels of the bundle's manifest."""
        changed = _differences(self.recorded, self.spec)
        labels = self.properties.get("edgetl.labels")
        if labels and tuple(json.loads(labels)) != self.names:
            changed.append("labels")
        stage = self._run_variant(base)
        note = f"the manifest's {', '.join(changed)} differ from the export's" if changed else ""
        self._judge(
            base.name, "through the bundle's preprocessing", base.precision, stage, exported, fault=note
        )
        return stage

    def _variant(self, variant: Variant, plain: _Stage) -> _Stage:
        kind = f"{variant.precision}, {variant.target}"
        try:
            stage = self._run_variant(variant)
        except MissingDependencyError as error:
            self.steps.append(
                ParityStep(name=variant.name, kind=kind, against=plain.name, skipped=str(error))
            )
            return plain
        precision = variant.precision
        if precision is Precision.FP32:
            precision = _stored(self.bundle.read(variant.member), variant.format)
        self._judge(variant.name, kind, precision, stage, plain)
        return stage

    def _run_variant(self, variant: Variant) -> _Stage:
        content = self.bundle.read(variant.member)
        spec, inside = self.spec, variant.input is InputForm.UINT8
        if variant.format is ModelFormat.TFLITE:
            from edgetl.runtime.engines.litert import LiteRtBackend

            with LiteRtBackend(content, threads=usable_cores()) as opened:
                found = _run(lambda part: run_pixels(opened, part, spec), self.pixels)
            return _Stage(variant.name, found, self.truths, tflite=content, inside=inside)

        def feed(part: NDArray[np.uint8]) -> NDArray[Any]:
            return part if inside else normalise(part, spec)

        if variant.precision is Precision.FP16 and _has("onnx"):
            # ONNX Runtime on a CPU computes half precision in float32, and so hides what overflows.
            outputs = _run(_rounded(content, feed), self.pixels)
        else:
            with OnnxBackend(content) as backend:
                outputs = _run(lambda part: run_pixels(backend, part, spec), self.pixels)
        return _Stage(variant.name, outputs, self.truths, lambda: content, feed)

    def _engine(self, file: str, variant: _Stage) -> None:
        engine = next(e for e in self.bundle.manifest.engines if e.file == file)
        name, content = Path(file).name, self.bundle.read(engine.member)
        try:
            backend = _engine_backend(content, engine.target)
        except EdgetlError as error:
            self.steps.append(
                ParityStep(name=name, kind=engine.target, against=variant.name, skipped=str(error))
            )
            return
        least, _, largest = engine.batch
        with backend:
            outputs = _run(
                lambda part: run_pixels(backend, part, self.spec),
                self.pixels,
                batch=min(BATCH, largest),
                least=least,
            )
        precision = Precision(engine.precision or Precision.FP32)
        self._judge(name, engine.target, precision, _Stage(name, outputs, self.truths), variant)

    # --- judging --------------------------------------------------------------------------------------------

    def _first(self, stage: _Stage, kind: str) -> None:
        found = score(self.task.score(stage.truths, stage.outputs), self.metric)
        self.steps.append(ParityStep(name=stage.name, kind=kind, score=found.value, interval=found.interval))

    def _judge(
        self,
        name: str,
        kind: str,
        precision: Precision,
        stage: _Stage,
        below: _Stage,
        *,
        fault: str = "",
        pixels: NDArray[np.uint8] | None = None,
    ) -> None:
        bound = BOUNDS[precision]
        held = hold(self.task, below.outputs, stage.outputs, bound)
        is_now = self.task.decide(held.finite)
        found = score(self.task.score(stage.truths, held.finite), self.metric)
        before = next(step.score for step in self.steps if step.name == below.name)
        assert before is not None
        change, change_interval = found.value - before, None
        if (
            self.metric == TOP1.name
        ):  # The share of right answers, whose difference has an interval of its own.
            was = self.task.decide(below.outputs)
            paired = compare_paired(self.task.right(below.truths, was), self.task.right(stage.truths, is_now))
            change, change_interval = paired.difference, paired.interval
        reasons = [*filter(None, [fault]), *held.reasons]
        self.steps.append(
            ParityStep(
                name=name,
                kind=kind,
                against=below.name,
                max_error=held.maximum,
                mean_error=held.mean,
                same=float(held.same.mean()),
                score=found.value,
                interval=found.interval,
                change=change,
                change_interval=change_interval,
                holds=not reasons,
                reason="; ".join(reasons),
            )
        )
        if reasons and self.divergence is None and not any(r.holds is False for r in self.steps[:-1]):
            worst = np.argsort(-held.worst, kind="stable")[:BISECTED]
            self._bisect(stage, below, (self.pixels if pixels is None else pixels)[worst], bound)

    def _bisect(self, stage: _Stage, below: _Stage, pixels: NDArray[np.uint8], bound: Bound) -> None:
        """Find the first layer that diverges, where there are two graphs to compare and onnx is there to read them."""
        compared = stage.tflite or (stage.onnx is not None and stage.feed is not None)
        if not compared or below.onnx is None or below.feed is None:
            return
        if not _has("onnx"):
            self.progress.warning(
                f"The first diverging layer is not looked for: install onnx ({pip_install('onnx')})."
            )
            return
        import onnx

        from edgetl.export.divergence import first_divergence, first_divergence_from

        if stage.tflite:
            from edgetl.export.litert.inside import inner_values

            planes = below.feed(pixels)
            self.divergence = first_divergence_from(
                onnx.load_from_string(below.onnx()),
                planes,
                inner_values(stage.tflite, pixels if stage.inside else planes.transpose(0, 2, 3, 1)),
                limit=bound.layer,
            )
            return
        assert stage.onnx is not None
        assert stage.feed is not None
        self.divergence = first_divergence(
            onnx.load_from_string(below.onnx()),
            below.feed(pixels),
            onnx.load_from_string(stage.onnx()),
            stage.feed(pixels),
            limit=bound.layer,
        )
        if below.network is not None and not (self.divergence and self.divergence.abrupt):
            # The export made anew shows the same, so the exporter is to blame.
            from edgetl.export.network_divergence import first_diverging_module

            graph = onnx.load_from_string(stage.onnx())
            self.divergence = first_diverging_module(
                below.network, graph, stage.feed(pixels), limit=bound.layer
            )


def _run(
    call: Callable[[NDArray[np.uint8]], Outputs],
    pixels: NDArray[np.uint8],
    *,
    batch: int = BATCH,
    least: int = 1,
) -> Outputs:
    """The outputs for all pixels, at most `batch` per call; a last call of fewer than `least` is filled up."""
    rows = []
    for start in range(0, len(pixels), batch):
        part = pixels[start : start + batch]
        filled = np.concatenate([part, np.repeat(part[:1], max(0, least - len(part)), axis=0)])
        rows.append({name: array[: len(part)] for name, array in call(filled).items()})
    return joined(rows)


def _rounded(
    content: bytes, feed: Callable[[NDArray[np.uint8]], NDArray[Any]]
) -> Callable[[NDArray[np.uint8]], Outputs]:
    import onnx

    from edgetl.export.graphs import Probe
    from edgetl.export.half_precision import as_on_a_gpu

    model: onnx.ModelProto = as_on_a_gpu(onnx.load_from_string(content))
    names = [tensor.name for tensor in model.graph.output]
    probe = Probe(model, names, optimised=False)

    def run(part: NDArray[np.uint8]) -> Outputs:
        return {n: np.asarray(a, np.float32) for n, a in zip(names, probe.run(feed(part)), strict=True)}

    return run


def _has(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package) is not None


def _stored(content: bytes, form: ModelFormat) -> Precision:
    """The narrowest type that a float model's weights are stored in; INT8 where onnx is not there to look."""
    if form is ModelFormat.TFLITE:
        from edgetl.export.litert.flat import constant_types

        types = constant_types(content)
        return Precision.INT8 if "int8" in types else Precision.FP16 if "float16" in types else Precision.FP32
    if not _has("onnx"):
        return Precision.INT8
    import onnx

    kinds = {tensor.data_type for tensor in onnx.load_from_string(content).graph.initializer}
    if onnx.TensorProto.INT8 in kinds:
        return Precision.INT8
    return Precision.FP16 if onnx.TensorProto.FLOAT16 in kinds else Precision.FP32


def _metadata(content: bytes) -> dict[str, str]:
    """The model's own metadata; nothing where onnx is not there to read it."""
    if not _has("onnx"):
        return {}
    import onnx

    return {p.key: p.value for p in onnx.load_from_string(content).metadata_props}


def _geometry(spec: PreprocessSpec) -> tuple[Any, ...]:
    return (
        spec.size,
        spec.resize,
        spec.crop_fraction,
        spec.interpolation,
        spec.decoded_side,
        spec.mean if spec.resize == "pad" else None,
        spec.window,
        spec.guess_floats,
    )


def _differences(recorded: PreprocessSpec, used: PreprocessSpec) -> list[str]:
    first, second = to_json(recorded), to_json(used)
    return [name for name in first if first[name] != second[name]]


def _engine_backend(content: bytes, target: str) -> Any:
    """The engine, loaded on its GPU.

    Raises:
        MissingDependencyError: there is no GPU here, or TensorRT is not installed.
        BundleError: it was not built on this machine, or for another version or GPU.
    """
    from edgetl.export.tensorrt import EngineTarget
    from edgetl.export.tensorrt.cache import built_here
    from edgetl.export.tensorrt.gpu import find_gpu
    from edgetl.runtime.engines.tensorrt import TensorRtBackend

    if find_gpu() is None:
        raise MissingDependencyError(
            "A GPU to run the engine on", f"Run edgetl parity on the machine that {target} was built for."
        )
    if not built_here(sha256_bytes(content)):
        raise BundleIntegrityError(
            "It was not built on this machine, and engines are native code: build it here with edgetl build."
        )
    return TensorRtBackend(content, target=EngineTarget(target))
