"""From a bundle's model to a compiled engine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetl.bundle import confidence, reference, unknown
from edgetl.bundle.archive import Bundle, open_bundle
from edgetl.bundle.confidence import ConfidenceSource
from edgetl.bundle.manifest import InputForm, Precision, Variant
from edgetl.bundle.pack import VariantSource, add_engine, add_variant, engine_name
from edgetl.bundle.unknown import UnknownSource
from edgetl.errors import BundleError, ConfigError
from edgetl.export.tensorrt import BuildOptions, EnginePrecision, EngineTarget, build_engine
from edgetl.export.tensorrt.builder import float32_layers
from edgetl.files import write_bytes
from edgetl.packages import missing
from edgetl.progress import SILENT, Progress
from edgetl.records.variants import EngineRecord
from edgetl.tasks.base import joined

if TYPE_CHECKING:
    from numpy.typing import NDArray

BUNDLE_SUFFIX = ".edgetl"
HALF = "fp16"
"""Name of a variant in half precision."""


@dataclass(frozen=True)
class _Source:
    """The ONNX to compile: a variant's own, or one that was made from it."""

    variant: str
    onnx: bytes
    precision: EnginePrecision
    input: InputForm
    float32_layers: tuple[str, ...] = ()
    made: bool = False
    confidence: ConfidenceSource | None = None
    reference: bytes | None = None
    unknown: UnknownSource | None = None


def build_from_bundle(
    bundle: Path,
    options: BuildOptions,
    *,
    precision: EnginePrecision | None = None,
    variant: str | None = None,
    output: Path | None = None,
    reuse: bool = True,
    progress: Progress = SILENT,
) -> EngineRecord:
    """Compile an engine and write it.

    Args:
        bundle: the bundle.
        options: what to compile for; precision and image size come from the model.
        precision: what convolutions and matrix products shall compute in. FP16 is made from the float32 model where
            the bundle has no variant of it. Where unset, the variant's own.
        variant: the model; where unset, the one of that precision, or else the one made for the target, or else the
            float32 one.
        output: an engine file, or a bundle (`.edgetl`, it may be the same one) that will hold the engine too; where
            unset, an engine file next to the bundle.
        reuse: take the engine that was compiled from the same model under the same conditions.
        progress: where to report.

    Raises:
        BundleError: the bundle cannot be used, or has no such variant or none of that precision.
        ConfigError: the precision is not the variant's, or a GPU, the batch or the DLA is not to be had.
        MissingDependencyError: TensorRT is not installed, or needs a GPU that is not here.
        ModelError: TensorRT refuses the model, or the engine is not what was asked.
        StorageError: the output cannot be written.
    """
    opened = open_bundle(bundle)
    source = _source(opened, options.target, precision, variant)
    asked = replace(
        options,
        precision=source.precision,
        float32_layers=source.float32_layers,
        size=opened.manifest.preprocess.size,
    )
    built = build_engine(source.onnx, asked, reuse=reuse, progress=progress)
    record = replace(built.record, variant=source.variant)
    path = output or bundle.with_name(f"{bundle.stem}-{engine_name(source.variant, record)}")
    if path.suffix == BUNDLE_SUFFIX:
        if opened.signature is not None:
            progress.warning(f"{path}: with another engine the signature no longer holds; sign it again.")
        if source.made:
            opened = _with_variant(opened, source, path)
        add_engine(opened, variant=source.variant, content=built.content, record=record, out=path)
    else:
        write_bytes(path, built.content)
    return replace(record, path=str(path))


def _source(
    bundle: Bundle, target: EngineTarget, precision: EnginePrecision | None, name: str | None
) -> _Source:
    if name is not None:
        chosen = bundle.variant(name)
    elif precision is None:
        chosen = _made_for(bundle, target) or _of(bundle, Precision.FP32)
    elif precision is EnginePrecision.FP16:
        chosen = next((v for v in bundle.manifest.variants if v.precision is Precision.FP16), None) or _of(
            bundle, Precision.FP32
        )
    elif precision is EnginePrecision.FP32:
        chosen = _of(bundle, Precision.FP32)
    else:
        chosen = _quantized(bundle, target, precision)
    own = EnginePrecision(chosen.precision.value)
    if precision in (None, own):
        content = bundle.read(chosen.member)
        kept = float32_layers(content) if own is EnginePrecision.FP16 else ()
        return _Source(chosen.name, content, own, chosen.input, kept)
    if precision is EnginePrecision.FP16 and own is EnginePrecision.FP32:
        return _in_half_precision(bundle, chosen)
    raise ConfigError(
        f"Variant {chosen.name} computes in {own}, and {precision} was asked for; leave --precision out, or choose "
        "another variant."
    )


def _made_for(bundle: Bundle, target: EngineTarget) -> Variant | None:
    """TensorRT and TensorRT-RTX take the same form; the one made for `target` goes first."""
    variants = bundle.manifest.variants
    found = [v for wanted in (target, *EngineTarget) for v in variants if v.target == wanted]
    return found[0] if found else None


def _of(bundle: Bundle, precision: Precision) -> Variant:
    variants = bundle.manifest.variants
    found = next((v for v in variants if v.precision is precision and v.input is InputForm.FLOAT32), None)
    if found is None:
        names = ", ".join(v.name for v in variants)
        raise BundleError(f"{bundle.path} has no variant in {precision}; it has {names}.")
    return found


def _quantized(bundle: Bundle, target: EngineTarget, precision: EnginePrecision) -> Variant:
    variants = bundle.manifest.variants
    fitting = [v for v in variants if v.precision.value == precision and v.target in set(EngineTarget)]
    if not fitting:
        names = ", ".join(f"{v.name} ({v.precision}, {v.target})" for v in variants)
        raise BundleError(
            f"{bundle.path} has no {precision} variant made for {target}; it has {names}. Run the recipe with "
            f"quantize.target = '{target}'."
        )
    return next((v for v in fitting if v.target == target), fitting[0])


def _in_half_precision(bundle: Bundle, variant: Variant) -> _Source:
    """Convert the float32 model; the golden images show what would overflow."""
    try:
        import onnx
    except ImportError as error:
        raise missing("onnx", purpose="to convert the model to half precision") from error
    import numpy as np

    from edgetl.export.half_precision import to_half
    from edgetl.inputs.image import load_pixels, normalise

    spec = bundle.manifest.preprocess
    pixels = np.stack([load_pixels(content, spec) for content in bundle.golden_images()])
    images: NDArray[Any] = normalise(pixels, spec) if variant.input is InputForm.FLOAT32 else pixels
    half = to_half(onnx.load_from_string(bundle.read(variant.member)), images)
    content = bytes(half.model.SerializeToString(deterministic=True))
    plain = Precision.FP32.value
    name = variant.name.replace(plain, HALF, 1) if plain in variant.name else f"{variant.name}-{HALF}"
    return _Source(
        name,
        content,
        EnginePrecision.FP16,
        variant.input,
        half.float32_layers,
        made=True,
        # Half precision moves logits and features by so little that what was measured of them stays true.
        confidence=confidence.source(bundle, variant),
        reference=reference.source(bundle, variant),
        unknown=unknown.source(bundle, variant),
    )


def _with_variant(bundle: Bundle, source: _Source, out: Path) -> Bundle:
    """The bundle with the model that was made for the engine, and the golden outputs that it gives on a CPU."""
    import numpy as np

    from edgetl.inputs.image import load_pixels
    from edgetl.runtime.engines.base import run_pixels
    from edgetl.runtime.engines.onnxruntime import OnnxBackend

    spec = bundle.manifest.preprocess
    pixels = np.stack([load_pixels(content, spec) for content in bundle.golden_images()])
    with OnnxBackend(source.onnx, threads=1) as backend:
        outputs = joined([run_pixels(backend, pixels[i : i + 1], spec) for i in range(len(pixels))])
    made = VariantSource(
        name=source.variant,
        precision=source.precision.value,
        target="gpu",
        model=source.onnx,
        input=source.input,
        confidence=source.confidence,
        reference=source.reference,
        unknown=source.unknown,
    )
    return add_variant(bundle, made, outputs=outputs, out=out)
