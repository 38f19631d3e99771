"""Pack what was measured into the bundle that ships: models, golden images, provenance."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgetl.bundle.provenance import git_commit, packages
from edgetl.config import BundleConfig
from edgetl.files import sha256_file
from edgetl.keys import UNKEYED
from edgetl.progress import SILENT, Progress
from edgetl.records.confidence import OutputConfidence
from edgetl.records.lineage import LineageStep
from edgetl.records.origin import WeightsOrigin
from edgetl.records.unknown import UnknownRecord
from edgetl.records.variants import BundleRecord, MeasureRecord
from edgetl.tasks.all import spec_of
from edgetl.tasks.base import joined

if TYPE_CHECKING:
    from edgetl.bundle.confidence import ConfidenceSource
    from edgetl.bundle.golden import GoldenSet
    from edgetl.bundle.unknown import UnknownSource
    from edgetl.data.index import DataIndex
    from edgetl.inputs.image import PreprocessSpec


@dataclass(frozen=True, kw_only=True)
class ShipInputs:
    """What is packed. The variants' files are relative to `run_dir`, where the bundle goes as `NAME.edgetl`."""

    name: str
    measured: MeasureRecord
    index: DataIndex
    spec: PreprocessSpec
    run_dir: Path = field(metadata=UNKEYED)
    recipe_sha256: str
    seed: int
    calibration_sha256: str = ""
    lineage: tuple[LineageStep, ...] = ()
    weights: tuple[WeightsOrigin, ...] = ()


def run(config: BundleConfig, inputs: ShipInputs, *, out: Path, progress: Progress = SILENT) -> BundleRecord:
    """Write `NAME.edgetl` into the run folder.

    Raises:
        BundleError: the parts do not fit together.
        StorageError: it cannot be written.
    """
    from edgetl.bundle import pack
    from edgetl.bundle.manifest import InputForm, Provenance
    from edgetl.data.sources import SPLITS
    from edgetl.measure.candidates import format_of
    from edgetl.measure.drift import source_of

    measured = inputs.measured
    contents = pack.Contents(
        name=inputs.name,
        task=spec_of(measured.task, inputs.index.task),
        preprocess=inputs.spec,
        variants=[
            pack.VariantSource(
                name=v.name,
                precision=v.precision,
                target=v.target,
                model=inputs.run_dir / v.file,
                format=format_of(inputs.run_dir / v.file),
                input=InputForm(v.input),
                val=v.val,
                test=v.test,
                latency=v.latency,
                other_latency=v.other_latency,
                machine=measured.machine,
                confidence=_confidence(v.confidence),
                reference=inputs.run_dir / v.reference if v.reference else None,
                unknown=_unknown(v.unknown),
            )
            for v in measured.variants
        ],
        default=measured.default,
        golden=_golden(config, inputs),
        provenance=Provenance(
            recipe_sha256=inputs.recipe_sha256,
            data_sha256=inputs.index.sha256,
            calibration_sha256=inputs.calibration_sha256,
            git_commit=git_commit(),
            seed=inputs.seed,
            packages=packages(),
            lineage=inputs.lineage,
            weights=inputs.weights,
        ),
        splits={split: [s.sha256 for s in inputs.index.split(split)] for split in SPLITS},
        drift=source_of(measured),
    )
    path = inputs.run_dir / f"{inputs.name}.edgetl"
    manifest = pack.pack(contents, path)
    return BundleRecord(
        path=path.name,
        sha256=sha256_file(path),
        size_bytes=path.stat().st_size,
        variants=tuple(v.name for v in manifest.variants),
        default=manifest.default,
    )


def _confidence(found: tuple[OutputConfidence, ...]) -> ConfidenceSource | None:
    import numpy as np

    from edgetl.bundle.confidence import ConfidenceSource
    from edgetl.tasks.conformal import Conformity

    if not found:
        return None
    return ConfidenceSource(
        temperatures={one.output: one.temperature for one in found},
        conformities={
            one.output: Conformity(images=one.images, ranked=np.array(one.conformity, dtype=np.float32))
            for one in found
        },
    )


def _unknown(found: UnknownRecord | None) -> UnknownSource | None:
    import numpy as np

    from edgetl.bundle.unknown import UnknownSource
    from edgetl.tasks.conformal import Conformity

    if found is None:
        return None
    ranked = np.array(found.ranked, dtype=np.float32)
    return UnknownSource(score=found.score, normal=Conformity(images=found.images, ranked=ranked))


def _golden(config: BundleConfig, inputs: ShipInputs) -> GoldenSet:
    import numpy as np

    from edgetl.bundle.golden import GoldenSet, encode_image
    from edgetl.data.splits import spread
    from edgetl.data.targets import order
    from edgetl.inputs.image import load_pixels
    from edgetl.measure.candidates import open_backend, runner

    ordered = sorted(inputs.index.split("val"), key=lambda s: (order(s.label), s.sha256))
    chosen = spread(ordered, config.golden_images)
    images = tuple(encode_image(sample.path, inputs.spec) for sample in chosen)
    pixels = np.stack([load_pixels(content, inputs.spec) for content in images])
    outputs = {}
    for variant in inputs.measured.variants:
        file = inputs.run_dir / variant.file
        with open_backend(file, threads=1) as backend:
            run = runner(backend, file, variant.target, inputs.spec)
            # One image per call, as the device's check runs them.
            rows = [run(pixels[i : i + 1]) for i in range(len(pixels))]
        outputs[variant.name] = joined(rows)
    return GoldenSet(images=images, pixels=pixels, outputs=outputs)
