"""`manifest.json`: what a bundle holds, byte for byte, and where it came from.

Every other file of the bundle is listed here with its size and SHA-256; the manifest itself is covered by the
archive's seal (see `edgetl.bundle.archive`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import field
from enum import StrEnum
from typing import Any, get_args

from edgetl._version import BUNDLE_SCHEMA, __version__
from edgetl.errors import BundleIntegrityError, BundleSchemaError
from edgetl.inputs.spec import PreprocessSpec
from edgetl.records.cascade import Cascade
from edgetl.records.codec import OPTIONAL, from_json, to_json
from edgetl.records.frozen import dataclass
from edgetl.records.lineage import LineageStep
from edgetl.records.measured import Latency, Machine
from edgetl.records.origin import WeightsOrigin
from edgetl.records.scores import Scores
from edgetl.records.unknown import ScoreName
from edgetl.tasks.base import LOGITS, MultiHead, TaskSpec, labels_of

SCHEMA_VERSION = BUNDLE_SCHEMA
MANIFEST = "manifest.json"
_FIRST_TASK = "image-classification"
"""What schema 1 called the one task that it had."""


class Precision(StrEnum):
    """Arithmetic of a model variant."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    FP8 = "fp8"
    INT8 = "int8"


class ModelFormat(StrEnum):
    """What a variant's file is; also its suffix."""

    ONNX = "onnx"
    TFLITE = "tflite"


class InputForm(StrEnum):
    """What a model takes: normalised images (N, 3, S, S) float32, or pictures (N, S, S, 3) uint8 RGB."""

    FLOAT32 = "float32-nchw"
    UINT8 = "uint8-nhwc"


@dataclass(frozen=True, kw_only=True)
class Member:
    """One file of the bundle: its name in the archive, its size and its SHA-256 as 64 hex digits."""

    file: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Confidence:
    """How sure a variant's answers are; see `edgetl.bundle.confidence`.

    Attributes:
        temperatures: by which logits are divided before they become scores, by output.
        images: labelled images of the validation split, by output.
        conformity: the file with their conformities, from which sets of labels are made for any coverage.
    """

    temperatures: dict[str, float]
    images: dict[str, int]
    conformity: Member


@dataclass(frozen=True, kw_only=True)
class Unknown:
    """How a variant tells unknown images; see `edgetl.bundle.unknown`.

    Attributes:
        score: what it judges them by.
        images: of the validation split, which say what is normal.
        ranked: the file with their scores, from which any false alarm rate is made.
    """

    score: ScoreName
    images: int
    ranked: Member


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One model. `target` is what it was made for (`cpu-x86`, ...), `input` says who normalises: the caller, or it.

    `val` and `test` are its scores on those splits, `latency` its time on `machine`, None where not measured.
    `confidence` is None in older bundles and of detectors: then logits become scores as they are. `reference` is the
    file of what it makes of known images (`edgetl.bundle.reference`), None where it has no features to be compared;
    `unknown` says how it tells unknown ones, None in older bundles and of detectors. `other_latency` is its time with
    another number of threads than `latency`, with which it is slower; None where one number was timed. `cascade` says
    of which two models it is made, None where it is one.
    """

    name: str
    precision: Precision
    target: str
    file: str
    size_bytes: int
    sha256: str
    format: ModelFormat = ModelFormat.ONNX
    input: InputForm = InputForm.FLOAT32
    val: Scores | None = None
    test: Scores | None = None
    latency: Latency | None = None
    machine: Machine | None = None
    confidence: Confidence | None = field(default=None, metadata=OPTIONAL)
    reference: Member | None = field(default=None, metadata=OPTIONAL)
    unknown: Unknown | None = field(default=None, metadata=OPTIONAL)
    other_latency: Latency | None = field(default=None, metadata=OPTIONAL)
    cascade: Cascade | None = field(default=None, metadata=OPTIONAL)

    @property
    def temperatures(self) -> dict[str, float]:
        """By output; empty where they are all 1."""
        return {} if self.confidence is None else self.confidence.temperatures

    @property
    def member(self) -> Member:
        """The model's file."""
        return Member(file=self.file, size_bytes=self.size_bytes, sha256=self.sha256)


@dataclass(frozen=True, kw_only=True)
class EngineFile:
    """A compiled TensorRT engine of a variant.

    `compute_capabilities` as in `("89",)`; `batch` is the (least, tuned, largest) number of images per call; `gpu` and
    `driver` are those that it was compiled on, empty where it was compiled for named compute capabilities.
    """

    variant: str
    target: str
    compute_capabilities: tuple[str, ...]
    tensorrt_version: str
    batch: tuple[int, int, int]
    file: str
    size_bytes: int
    sha256: str
    precision: str = ""
    gpu: str = ""
    driver: str = ""

    @property
    def member(self) -> Member:
        """The engine's file."""
        return Member(file=self.file, size_bytes=self.size_bytes, sha256=self.sha256)


@dataclass(frozen=True, kw_only=True)
class Golden:
    """A few encoded images, the outputs that each variant gave for them, and what preprocessing made of them.

    Attributes:
        images: encoded pictures (JPEG or PNG), or sounds (WAV).
        outputs: variant name to a `.npz` with a float32 array for each of the task's outputs.
        pixels_sha256: SHA-256 of the preprocessed pixels, (images, size, size, 3) uint8 in C order.
    """

    images: tuple[Member, ...]
    outputs: dict[str, Member]
    pixels_sha256: str


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a bundle came from. `created` is empty by default, so that equal contents give an equal file.

    `calibration_sha256` covers the float model, the calibration images and their preprocessing; empty where nothing
    was quantized. `lineage` is the chain of what the teacher learned, from its first weights on; `weights` says where
    the networks' first weights come from, and their licences.
    """

    recipe_sha256: str = ""
    data_sha256: str = ""
    calibration_sha256: str = ""
    git_commit: str = ""
    seed: int = 0
    packages: dict[str, str] = field(default_factory=dict)
    created_by: str = f"edgetl {__version__}"
    created: str = ""
    lineage: tuple[LineageStep, ...] = ()
    weights: tuple[WeightsOrigin, ...] = field(default=(), metadata=OPTIONAL)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The description of a bundle. `task` says what the models answer; `default` names the variant that ships.

    `splits` is the file that says which images it was trained on (`edgetl.bundle.splits`), `drift` the one that says
    what they were like (`edgetl.bundle.drift`); older bundles have neither.
    """

    schema_version: int
    name: str
    task: TaskSpec
    preprocess: PreprocessSpec
    variants: tuple[Variant, ...]
    default: str
    golden: Golden
    provenance: Provenance
    engines: tuple[EngineFile, ...] = ()
    splits: Member | None = None
    drift: Member | None = field(default=None, metadata=OPTIONAL)

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names; of several heads each as `head/name`."""
        return labels_of(self.task)

    def members(self) -> Iterator[Member]:
        """Every file that the archive must hold besides the manifest, each once."""
        yield from (variant.member for variant in self.variants)
        yield from (v.confidence.conformity for v in self.variants if v.confidence is not None)
        yield from (v.reference for v in self.variants if v.reference is not None)
        yield from (v.unknown.ranked for v in self.variants if v.unknown is not None)
        yield from self.golden.images
        yield from self.golden.outputs.values()
        yield from (engine.member for engine in self.engines)
        if self.splits is not None:
            yield self.splits
        if self.drift is not None:
            yield self.drift

    def variant(self, name: str | None = None) -> Variant | None:
        """The variant of that name, the default one for None; None when there is no such variant."""
        wanted = self.default if name is None else name
        return next((variant for variant in self.variants if variant.name == wanted), None)


def problems(manifest: Manifest) -> list[str]:
    """What contradicts itself in a manifest, one sentence each."""
    names = [variant.name for variant in manifest.variants]
    files = [member.file.casefold() for member in manifest.members()]
    found = []
    if len(set(names)) != len(names):
        found.append("two variants have one name")
    if manifest.default not in names:
        found.append(f"its default variant {manifest.default!r} is not among {', '.join(names) or 'none'}")
    if len(set(files)) != len(files):
        found.append("one file is listed twice")
    if set(manifest.golden.outputs) != set(names) or not manifest.golden.images:
        found.append("its golden set does not cover every variant")
    if wrong := [t for v in manifest.variants for t in v.temperatures.values() if not 0.0 < t < math.inf]:
        found.append(f"a temperature is {wrong[0]:g}, expected a number above 0")
    outputs = set(manifest.task.heads) if isinstance(manifest.task, MultiHead) else {LOGITS}
    known = [v.confidence for v in manifest.variants if v.confidence is not None]
    if any(set(one.temperatures) != outputs or set(one.images) != outputs for one in known):
        found.append("its temperatures are not those of its task's outputs")
    for v in manifest.variants:
        if v.unknown is not None and v.unknown.score.by_features and v.reference is None:
            found.append(f"variant {v.name} tells unknown images by {v.unknown.score}, and knows none")
        if v.cascade is not None and not 0.0 <= v.cascade.threshold < math.inf:
            found.append(
                f"the threshold of its cascade is {v.cascade.threshold:g}, expected a number from 0 up"
            )
    if strays := {engine.variant for engine in manifest.engines} - set(names):
        found.append(f"it has an engine of an unknown variant {min(strays)!r}")
    return found


def encode(manifest: Manifest) -> bytes:
    """The manifest's bytes: the same for equal manifests.

    Raises:
        ValueError: a figure is not finite.
    """
    text = json.dumps(_sorted(to_json(manifest)), indent=1, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def _sorted(value: Any, *, heads: bool = False) -> Any:
    """Plain values with their keys in alphabetical order, but for heads: theirs is that of the network's outputs."""
    if isinstance(value, Mapping):
        items = value.items() if heads else sorted(value.items())
        return {key: _sorted(inner, heads=key == "heads") for key, inner in items}
    return [_sorted(inner) for inner in value] if isinstance(value, list | tuple) else value


def decode(content: bytes, where: str) -> Manifest:
    """Read a manifest; `where` names the bundle in errors.

    Raises:
        BundleSchemaError: it was written for a newer schema, or for a task that this version does not know.
        BundleIntegrityError: it is not a manifest, or contradicts itself.
    """
    try:
        values = json.loads(content.decode(), parse_constant=_refuse_constant)
        if not isinstance(values, Mapping):
            raise ValueError("it is not a JSON object")
        _check_schema(values, where)
        if values["schema_version"] == 1:
            values = _from_first(values)
        _check_task(values, where)
        manifest = from_json(Manifest, values)
    except (ValueError, RecursionError) as error:
        raise BundleIntegrityError(f"{where} has a broken {MANIFEST}: {error}.") from error
    if found := problems(manifest):
        raise BundleIntegrityError(f"{where} has a broken {MANIFEST}: {'; '.join(found)}.")
    return manifest


def _check_schema(values: Mapping[str, Any], where: str) -> None:
    version = values.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ValueError(f"schema_version is {version!r:.60}, expected a positive integer")
    if version > SCHEMA_VERSION:
        provenance = values.get("provenance")
        writer = provenance.get("created_by") if isinstance(provenance, Mapping) else None
        raise BundleSchemaError(
            f"{where} was written by {writer or 'a newer edgetl'} with schema {version}; "
            f"edgetl {__version__} reads up to schema {SCHEMA_VERSION}. "
            "Install a wheel of that version of edgetl."
        )


def _check_task(values: Mapping[str, Any], where: str) -> None:
    task = values.get("task")
    kind = task.get("kind") if isinstance(task, Mapping) else None
    known = [spec.kind for spec in get_args(TaskSpec)]
    if isinstance(kind, str) and kind not in known:
        raise BundleSchemaError(
            f"{where} is of the task {kind!r}, which edgetl {__version__} does not know (it knows {', '.join(known)}). "
            "Install a wheel of a newer version of edgetl."
        )


def _from_first(values: Mapping[str, Any]) -> dict[str, Any]:
    """Schema 1 as schema 2: its one task was classification, whose scores stood side by side and whose golden
    logits are one array."""
    if values.get("task") != _FIRST_TASK:
        raise ValueError(f"its task is {values.get('task')!r:.60}, schema 1 has only {_FIRST_TASK!r}")
    variants = values.get("variants")
    if not isinstance(variants, list) or not all(isinstance(variant, Mapping) for variant in variants):
        raise ValueError("its variants are not a list of objects")
    golden = values.get("golden")
    if not isinstance(golden, Mapping):
        raise ValueError("its golden set is not an object")
    return {
        **values,
        "golden": {**golden, "outputs": golden.get("logits")},
        "schema_version": SCHEMA_VERSION,
        "task": {"kind": "classification", "labels": values.get("labels")},
        "variants": [
            {**v, **{split: _first_scores(v[split]) for split in ("val", "test") if v.get(split) is not None}}
            for v in variants
        ],
    }


def _first_scores(values: Any) -> Any:
    if not isinstance(values, Mapping):
        return values
    scores = {}
    for name in ("top1", "macro_f1", "balanced_accuracy", "top5", "calibration_error"):
        if values.get(name) is not None:
            low, high = values.get(f"{name}_interval") or (None, None)
            scores[name] = {"value": values[name], "low": low, "high": high}
    return {"images": values.get("images"), "scores": scores}


def _refuse_constant(name: str) -> float:
    raise ValueError(f"it holds the figure {name}")
