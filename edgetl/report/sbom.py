"""A bundle's bill of materials as CycloneDX JSON (ECMA-424; version 1.6): models, weights, data, packages.

What is equal gives an equal file: it bears no time, and its serial number is made of the bundle's hash. The packages
are those of the machine that writes it, as a bundle holds none.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgetl import files
from edgetl._version import __version__
from edgetl.bundle.archive import Bundle
from edgetl.bundle.manifest import Manifest, ModelFormat, Variant
from edgetl.records.origin import WeightsOrigin
from edgetl.runtime.engines.table import ENGINES
from edgetl.runtime.licences import LicensedPackage, device_packages
from edgetl.runtime.targets import EngineName
from edgetl.tasks.base import MultiHead

SPEC_VERSION = "1.6"
SUFFIX = ".cdx.json"
_OWN = "edgetl"
_SCHEMA = "http://cyclonedx.org/schema/bom-1.6.schema.json"
_MIME = {ModelFormat.ONNX: "application/onnx", ModelFormat.TFLITE: "application/vnd.tflite"}


def bill_of_materials(bundle: Bundle) -> dict[str, Any]:
    """The bill as plain JSON values.

    Raises:
        BundleError: the bundle's file cannot be read any more.
    """
    manifest, sha256 = bundle.manifest, bundle.sha256()
    packages = device_packages(engine_packages(manifest))
    models = [_model(manifest, variant) for variant in manifest.variants]
    weights = [_weights(origin) for origin in manifest.provenance.weights]
    return {
        "$schema": _SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'edgetl-bundle:{sha256}')}",
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "edgetl", "version": __version__}]},
            "component": _bundle(manifest, sha256, weights),
        },
        "components": [*models, *_data(manifest), *map(_package, packages)],
        "dependencies": _dependencies(manifest, packages),
    }


def encoded(bill: dict[str, Any]) -> str:
    """The bill as indented JSON with a line break at the end."""
    return json.dumps(bill, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_bill(bundle: Bundle, path: Path) -> None:
    """Write the bill atomically.

    Raises:
        StorageError: it cannot be written.
    """
    files.write_text(path, encoded(bill_of_materials(bundle)))


def engine_packages(manifest: Manifest) -> tuple[str, ...]:
    """The packages of the engines that its files are for: ONNX Runtime's, LiteRT's, and those of compiled engines."""
    formats = {variant.format for variant in manifest.variants}
    names = [EngineName.CPU] if ModelFormat.ONNX in formats else []
    names += [EngineName.LITERT] if ModelFormat.TFLITE in formats else []
    names += [EngineName(target) for target in dict.fromkeys(engine.target for engine in manifest.engines)]
    return tuple(dict.fromkeys(package for name in names for package in ENGINES[name].packages))


def _bundle(manifest: Manifest, sha256: str, weights: Sequence[dict[str, Any]]) -> dict[str, Any]:
    made = manifest.provenance
    facts = {
        "edgetl:schema": str(manifest.schema_version),
        "edgetl:created-by": made.created_by,
        "edgetl:recipe-sha256": made.recipe_sha256,
        "edgetl:data-sha256": made.data_sha256,
        "edgetl:calibration-sha256": made.calibration_sha256,
        "edgetl:git-commit": made.git_commit,
        "edgetl:seed": str(made.seed),
        "edgetl:default-variant": manifest.default,
        "edgetl:lineage": ", then ".join(step.words for step in made.lineage),
    }
    found: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": "bundle",
        "name": manifest.name,
        "version": sha256[:12],
        "hashes": [{"alg": "SHA-256", "content": sha256}],
    }
    if weights:
        found["pedigree"] = {"ancestors": list(weights)}
    return {**found, "properties": _properties(facts)}


def _model(manifest: Manifest, variant: Variant) -> dict[str, Any]:
    facts = {
        "edgetl:file": variant.file,
        "edgetl:precision": variant.precision.value,
        "edgetl:target": variant.target,
        "edgetl:size-bytes": str(variant.size_bytes),
    }
    spec = manifest.preprocess
    card: dict[str, Any] = {
        "modelParameters": {
            "task": _task(manifest),
            "inputs": [{"format": f"{spec.kind}, {spec.size} x {spec.size} pixels"}],
            "outputs": [{"format": label} for label in manifest.labels],
        }
    }
    metrics = [
        _metric(name, score.value, score.interval, split)
        for split, scores in (("validation", variant.val), ("test", variant.test))
        if scores is not None
        for name, score in scores.scores.items()
    ]
    if metrics:
        card["quantitativeAnalysis"] = {"performanceMetrics": metrics}
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model:{variant.name}",
        "name": variant.name,
        "mime-type": _MIME[variant.format],
        "hashes": [{"alg": "SHA-256", "content": variant.sha256}],
        "modelCard": card,
        "properties": _properties(facts),
    }


def _metric(name: str, value: float, interval: tuple[float, float] | None, split: str) -> dict[str, Any]:
    found: dict[str, Any] = {"type": name, "value": str(value), "slice": split}
    if interval is not None:
        found["confidenceInterval"] = {"lowerBound": str(interval[0]), "upperBound": str(interval[1])}
    return found


def _task(manifest: Manifest) -> str:
    if isinstance(manifest.task, MultiHead):
        return ", ".join(f"{name}: {head.kind}" for name, head in manifest.task.heads.items())
    return str(manifest.task.kind)


def _weights(origin: WeightsOrigin) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "machine-learning-model",
        "name": origin.network,
        "description": f"Weights that the network began with, from {origin.source}.",
    }
    if origin.licence:
        found["licenses"] = [{"expression": origin.licence}]
    if origin.source.startswith("https://"):
        found["externalReferences"] = [{"type": "distribution", "url": origin.source}]
    return {**found, "properties": _properties({"edgetl:licence-stated-by": origin.stated_by or "nobody"})}


def _data(manifest: Manifest) -> list[dict[str, Any]]:
    """The images that the networks learned of; they are not in the bundle."""
    found = []
    for at, step in enumerate(manifest.provenance.lineage):
        if step.kind == "weights":
            continue
        facts = {
            "edgetl:images": str(step.images),
            "edgetl:classes": ", ".join(step.classes),
            "edgetl:index-sha256": step.data,
            "edgetl:learned-by": step.kind,
        }
        found.append(
            {
                "type": "data",
                "bom-ref": f"data:{at}",
                "name": step.name,
                "scope": "excluded",
                "data": [{"type": "dataset", "name": step.name}],
                "properties": _properties(facts),
            }
        )
    return found


def _package(package: LicensedPackage) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "library",
        "bom-ref": _reference(package),
        "name": package.name,
        "version": package.version,
    }
    if package.name != _OWN:
        found["purl"] = _reference(package)
    if package.licence:
        said = {"expression": package.licence} if package.spdx else {"license": {"name": package.licence}}
        found["licenses"] = [said]
    return found


def _reference(package: LicensedPackage) -> str:
    """A package URL of the type `pypi`, whose names are lower case with dashes; edgetl's own wheel has none."""
    if package.name == _OWN:
        return f"{package.name}@{package.version}"
    return f"pkg:pypi/{package.name}@{package.version.replace('+', '%2B')}"


def _dependencies(manifest: Manifest, packages: Sequence[LicensedPackage]) -> list[dict[str, Any]]:
    by_name = {package.name: _reference(package) for package in packages}
    models = [f"model:{variant.name}" for variant in manifest.variants]
    first = [by_name[name] for name in (_OWN, *engine_packages(manifest)) if name in by_name]
    return [
        {"ref": "bundle", "dependsOn": [*models, *first]},
        *(
            {"ref": by_name[one.name], "dependsOn": [by_name[name] for name in one.needs]}
            for one in packages
            if one.needs
        ),
    ]


def _properties(facts: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in facts.items() if value]
