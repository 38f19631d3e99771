"""Folders that look like finished runs, around tiny real bundles."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgetl.bundle.archive import open_bundle
from edgetl.comparison.sides import RECIPE, REPORT, StoredRun
from edgetl.data.index import DataIndex, Sample
from edgetl.files import sha256_file, write_json
from edgetl.records.train import DataRecord
from edgetl.records.variants import BundleRecord, MeasureRecord, VariantScore
from edgetl.tasks.base import Classification, TaskSpec, labels_of
from tests.report.conftest import evaluation, latency, make_report


def write_run(
    folder: Path,
    bundle: Path,
    task: TaskSpec,
    images: Sequence[tuple[Path, Any]],
    *,
    split: str = "val",
    recipe: str = "seed = 0\n",
    median_ms: float = 2.0,
    samples: Sequence[Sample] | None = None,
) -> Path:
    """A run folder of a bundle whose `split` holds these images, each with what is right as an index has it."""
    folder.mkdir(parents=True)
    shutil.copy(bundle, folder / bundle.name)
    labels = labels_of(task)
    found = samples or [Sample(path.resolve(), label, split, sha256_file(path)) for path, label in images]
    asked = None if isinstance(task, Classification) else task
    root = found[0].path.parent
    index = DataIndex(root, labels, tuple(found), asked=asked)
    (folder / "data").mkdir()
    index.save(folder / "data" / "index.json")
    (folder / RECIPE).write_text(recipe)
    packed = open_bundle(bundle)
    stored = StoredRun(
        data=DataRecord(
            index="data/index.json", labels=labels, counts=index.counts(), skipped=(), sha256=index.sha256
        ),
        measure=_measured(packed.manifest.variants, median_ms),
        bundle=BundleRecord(
            path=bundle.name,
            sha256=packed.sha256(),
            size_bytes=bundle.stat().st_size,
            variants=tuple(v.name for v in packed.manifest.variants),
            default=packed.manifest.default,
        ),
    )
    write_json(folder / REPORT, stored)
    return folder


def _measured(variants: Sequence[Any], median_ms: float) -> MeasureRecord:
    measure = make_report().measure
    scored = evaluation(("a", "b"), 0.9)
    return replace(
        measure,
        variants=tuple(
            VariantScore(
                name=v.name,
                precision=v.precision,
                target=v.target,
                file=v.file,
                sha256=v.sha256,
                size_bytes=v.size_bytes,
                val=scored,
                test=None,
                latency=latency(median_ms),
            )
            for v in variants
        ),
        default=variants[0].name,
    )
