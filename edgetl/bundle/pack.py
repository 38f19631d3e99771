"""Packing: from the files of a run to one bundle, and adding engines to a bundle that exists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgetl.bundle import drift, golden, splits, unknown
from edgetl.bundle.archive import Bundle, is_safe_name, open_bundle, write_archive
from edgetl.bundle.confidence import ConfidenceSource, encode
from edgetl.bundle.drift import DriftSource
from edgetl.bundle.golden import GoldenSet
from edgetl.bundle.manifest import (
    SCHEMA_VERSION,
    Confidence,
    EngineFile,
    Golden,
    InputForm,
    Manifest,
    Member,
    ModelFormat,
    Precision,
    Provenance,
    Unknown,
    Variant,
    problems,
)
from edgetl.bundle.unknown import UnknownSource
from edgetl.errors import BundleError
from edgetl.files import sha256_bytes, sha256_file
from edgetl.inputs.image import PreprocessSpec
from edgetl.inputs.recordings import ending_of
from edgetl.records.cascade import Cascade
from edgetl.records.measured import Latency, Machine
from edgetl.records.scores import Evaluation
from edgetl.records.variants import EngineRecord
from edgetl.tasks.all import task_of
from edgetl.tasks.base import Outputs, TaskSpec


@dataclass(frozen=True, kw_only=True)
class VariantSource:
    """A model to pack: its file (or the content) and what was measured with it.

    `confidence` says how sure its answers are; without it scores are as the network gives them. `reference` is what it
    makes of known images, as a file or as `edgetl.bundle.reference.encode` gives it; `unknown` is how it tells
    unknown ones; `cascade` says of which two models it is made.
    """

    name: str
    precision: str
    target: str
    model: Path | bytes
    format: ModelFormat = ModelFormat.ONNX
    input: InputForm = InputForm.FLOAT32
    val: Evaluation | None = None
    test: Evaluation | None = None
    latency: Latency | None = None
    other_latency: Latency | None = None
    machine: Machine | None = None
    confidence: ConfidenceSource | None = None
    reference: Path | bytes | None = None
    unknown: UnknownSource | None = None
    cascade: Cascade | None = None


@dataclass(frozen=True, kw_only=True)
class Contents:
    """All that goes into a new bundle. `task` says what the models answer; `default` names one of the variants.

    `splits` holds the SHA-256 in hex of every image file of `train`, `val` and `test`; None keeps it untold. `drift` is
    what validation images are like; without it a device cannot watch for other ones.
    """

    name: str
    task: TaskSpec
    preprocess: PreprocessSpec
    variants: Sequence[VariantSource]
    default: str
    golden: GoldenSet
    provenance: Provenance
    splits: Mapping[str, Sequence[str]] | None = None
    drift: DriftSource | None = None


def pack(contents: Contents, out: Path) -> Manifest:
    """Write a bundle atomically. Equal contents give an equal file.

    Raises:
        BundleError: the parts do not fit together; the message lists how.
        StorageError: it cannot be written.
    """
    files: dict[str, bytes | Path] = {}
    variants = tuple(_variant(source, files) for source in contents.variants)
    described = Manifest(
        schema_version=SCHEMA_VERSION,
        name=contents.name,
        task=contents.task,
        preprocess=contents.preprocess,
        variants=variants,
        default=contents.default,
        golden=_golden(contents.golden, contents.task, files),
        provenance=contents.provenance,
        splits=None if contents.splits is None else _splits(contents.splits, files),
        drift=None if contents.drift is None else _drift(contents.drift, files),
    )
    if found := problems(described):
        raise BundleError(f"Cannot pack {out}: {'; '.join(found)}.")
    write_archive(described, files, out)
    return described


def add_engine(
    bundle: Bundle, *, variant: str, content: bytes, record: EngineRecord, out: Path | None = None
) -> Bundle:
    """Write the bundle with one more compiled engine, atomically; by default in place of the old one.

    An engine of the same variant, target and GPUs is replaced.

    Raises:
        BundleError: there is no such variant, the content is not the record's, or a member was altered.
        StorageError: it cannot be written.
    """
    bundle.variant(variant)
    if sha256_bytes(content) != record.sha256:
        raise BundleError(f"The engine for {variant} is not the one that its record describes.")
    member = _member(f"engines/{engine_name(variant, record)}", content)
    engine = EngineFile(
        variant=variant,
        target=record.target,
        compute_capabilities=record.compute_capabilities,
        tensorrt_version=record.tensorrt_version,
        batch=record.batch,
        precision=record.precision,
        gpu=record.gpu,
        driver=record.driver,
        file=member.file,
        size_bytes=member.size_bytes,
        sha256=member.sha256,
    )
    kept = [other for other in bundle.manifest.engines if other.file != engine.file]
    described = replace(bundle.manifest, engines=tuple(sorted([*kept, engine], key=lambda e: e.file)))
    files: dict[str, bytes | Path] = {
        m.file: content if m.file == engine.file else bundle.read(m) for m in described.members()
    }
    target = bundle.path if out is None else out
    write_archive(described, files, target)
    return open_bundle(target)


def add_variant(
    bundle: Bundle, source: VariantSource, *, outputs: Outputs, out: Path | None = None
) -> Bundle:
    """Write the bundle with one more model, atomically; by default in place of the old one.

    A variant of the same name is replaced.

    Args:
        bundle: the bundle.
        source: the model.
        outputs: what it gives for the golden images.
        out: where to write.

    Raises:
        BundleError: the parts do not fit together, or a member was altered.
        StorageError: it cannot be written.
    """
    files: dict[str, bytes | Path] = {}
    variant = _variant(source, files)
    known = bundle.manifest
    recorded = _outputs(source.name, outputs, known.task, len(known.golden.images), files)
    kept = [other for other in known.variants if other.name != source.name]
    described = replace(
        known,
        variants=(*kept, variant),
        golden=replace(known.golden, outputs={**known.golden.outputs, source.name: recorded}),
    )
    if found := problems(described):
        raise BundleError(f"Cannot add {source.name} to {bundle.path}: {'; '.join(found)}.")
    contents = {m.file: files[m.file] if m.file in files else bundle.read(m) for m in described.members()}
    target = bundle.path if out is None else out
    write_archive(described, contents, target)
    return open_bundle(target)


def engine_name(variant: str, record: EngineRecord) -> str:
    """File name of an engine; it shows apart all engines that a bundle may hold."""
    gpus = "-".join(f"sm{digits}" for digits in record.compute_capabilities) or "native"
    return f"{variant}-{record.target}-{gpus}.engine"


def _variant(source: VariantSource, files: dict[str, bytes | Path]) -> Variant:
    name = f"models/{source.name}.{source.format}"
    if not is_safe_name(name) or "/" in source.name:
        raise BundleError(
            f"A variant cannot be named {source.name!r}: use letters, digits, dot, dash and underscore."
        )
    if source.precision not in set(Precision):
        raise BundleError(
            f"Variant {source.name} has the precision {source.precision!r}, expected {', '.join(Precision)}."
        )
    if isinstance(source.model, Path) and not source.model.is_file():
        raise BundleError(f"Variant {source.name}: there is no model at {source.model}.")
    files[name] = source.model
    content = source.model
    return Variant(
        name=source.name,
        precision=Precision(source.precision),
        target=source.target,
        file=name,
        size_bytes=content.stat().st_size if isinstance(content, Path) else len(content),
        sha256=sha256_file(content) if isinstance(content, Path) else sha256_bytes(content),
        format=source.format,
        input=source.input,
        val=source.val and source.val.summary(),
        test=source.test and source.test.summary(),
        latency=source.latency and replace(source.latency, samples_ms=()),
        other_latency=source.other_latency and replace(source.other_latency, samples_ms=()),
        machine=source.machine,
        confidence=None if source.confidence is None else _confidence(source.name, source.confidence, files),
        reference=None if source.reference is None else _reference(source.name, source.reference, files),
        unknown=None if source.unknown is None else _unknown(source.name, source.unknown, files),
        cascade=source.cascade,
    )


def _confidence(variant: str, source: ConfidenceSource, files: dict[str, bytes | Path]) -> Confidence:
    content = encode(source.conformities)
    member = _member(f"confidence/{variant}.npz", content)
    files[member.file] = content
    return Confidence(
        temperatures=dict(source.temperatures),
        images={name: one.images for name, one in source.conformities.items()},
        conformity=member,
    )


def _reference(variant: str, source: Path | bytes, files: dict[str, bytes | Path]) -> Member:
    content = source.read_bytes() if isinstance(source, Path) else source
    member = _member(f"reference/{variant}.npz", content)
    files[member.file] = content
    return member


def _unknown(variant: str, source: UnknownSource, files: dict[str, bytes | Path]) -> Unknown:
    content = unknown.encode(source.normal)
    member = _member(f"unknown/{variant}.npz", content)
    files[member.file] = content
    return Unknown(score=source.score, images=source.normal.images, ranked=member)


_SUFFIXES = ((b"\x89PNG", "png"), (b"\xff\xd8", "jpg"))


def _golden(parts: GoldenSet, task: TaskSpec, files: dict[str, bytes | Path]) -> Golden:
    images = []
    for index, content in enumerate(parts.images):
        suffix = next(
            (name for start, name in _SUFFIXES if content.startswith(start)), ending_of(content)[1:]
        )
        suffix = suffix or "img"
        images.append(_member(f"golden/{index:02d}.{suffix}", content))
        files[images[-1].file] = content
    outputs = {
        name: _outputs(name, found, task, len(images), files) for name, found in sorted(parts.outputs.items())
    }
    return Golden(images=tuple(images), outputs=outputs, pixels_sha256=golden.pixels_sha256(parts.pixels))


def _outputs(
    variant: str, outputs: Outputs, task: TaskSpec, images: int, files: dict[str, bytes | Path]
) -> Member:
    content = golden.encode_outputs(outputs)
    golden.decode_outputs(content, task_of(task), images, f"The golden outputs of variant {variant}")
    member = _member(f"golden/{variant}.npz", content)
    files[member.file] = content
    return member


def _splits(sha256: Mapping[str, Sequence[str]], files: dict[str, bytes | Path]) -> Member:
    files[splits.FILE] = content = splits.encode(sha256)
    return _member(splits.FILE, content)


def _drift(source: DriftSource, files: dict[str, bytes | Path]) -> Member:
    files[drift.FILE] = content = drift.encode(source)
    return _member(drift.FILE, content)


def _member(name: str, content: bytes) -> Member:
    return Member(file=name, size_bytes=len(content), sha256=sha256_bytes(content))
