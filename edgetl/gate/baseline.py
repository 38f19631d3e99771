"""Baselines: what a bundle was measured to be, stored in a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgetl import files
from edgetl._version import __version__
from edgetl.errors import BaselineError
from edgetl.records.codec import from_json
from edgetl.records.measured import Latency, Machine
from edgetl.records.scores import Scores, SetUse
from edgetl.shell import command
from edgetl.tasks.all import task_of
from edgetl.tasks.base import TaskSpec, labels_of

SCHEMA_VERSION = 3


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """A score and the images it belongs to.

    Attributes:
        source: `measured` here through the runtime, or taken from the bundle's `manifest` (its test split).
        images_sha256: which images; two scores are comparable only where this is equal.
        paths: for `measured`, the images in order, relative to the image set; else empty, as the next two.
        truth: what is right for each image, as `Task.plain` has it.
        predictions: what was decided for it, likewise.
        image_set: what was taken of it; None for `manifest`.
    """

    source: Literal["measured", "manifest"]
    evaluation: Scores
    images_sha256: str
    paths: tuple[str, ...] = ()
    truth: tuple[Any, ...] = ()
    predictions: tuple[Any, ...] = ()
    image_set: SetUse | None = None


@dataclass(frozen=True, kw_only=True)
class Loads:
    """What fresh processes needed to load the bundle and run it once: One figure per process, in their order."""

    load_ms: tuple[float, ...]
    peak_memory_bytes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A bundle's figures at one time on one machine; `size_bytes` and `model_sha256` are of the variant's model file.

    `latency` is the model alone, batch 1, with its raw samples. `layers` counts the convolutions and matrix products by
    the bits that they compute in, as text: `{"8": 48, "32": 1}`. `target` is the engine; `placement` counts nodes by
    the ONNX Runtime provider that ran them, empty where the model runs as a whole in one place. `handed_on` is the
    share of the timed images that a cascade's larger model answered, None of one model.
    """

    schema_version: int = SCHEMA_VERSION
    created_by: str = f"edgetl {__version__}"
    bundle: str
    bundle_sha256: str
    task: TaskSpec
    variant: str
    model_sha256: str
    size_bytes: int
    accuracy: Accuracy
    latency: Latency
    loads: Loads
    layers: dict[str, int]
    target: str
    placement: dict[str, int]
    machine: Machine
    handed_on: float | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names."""
        return labels_of(self.task)

    def save(self, path: Path) -> None:
        """Write it atomically.

        Raises:
            StorageError: it cannot be written.
        """
        files.write_json(path, self)


def load(path: Path) -> Baseline:
    """Read a baseline.

    Raises:
        BaselineError: there is none, it is broken, or another version of edgetl wrote it.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BaselineError(
            f"There is no baseline at {path}. Write one with: {command('baseline', 'BUNDLE', '-o', path)}"
        ) from None
    except OSError as error:
        raise BaselineError(f"Cannot read the baseline {path}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise BaselineError(f"{path} is not a baseline: it is not JSON ({error}).") from error
    version = values.get("schema_version") if isinstance(values, Mapping) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise BaselineError(f"{path} is not a baseline: it has no schema_version.")
    if version > SCHEMA_VERSION:
        raise BaselineError(
            f"{path} was written by a newer edgetl with schema {version}; edgetl {__version__} reads "
            f"schema {SCHEMA_VERSION}. Upgrade edgetl, or write the baseline anew."
        )
    if version < SCHEMA_VERSION:
        raise BaselineError(
            f"{path} was written by an older edgetl with schema {version}; this one reads "
            f"schema {SCHEMA_VERSION}. Write it anew: "
            f"{command('baseline', 'BUNDLE', '--data', 'DATA', '-o', path)}"
        )
    try:
        baseline = from_json(Baseline, values)
        _check(baseline)
    except ValueError as error:
        raise BaselineError(f"{path} is a broken baseline: {error}.") from error
    return baseline


def _check(baseline: Baseline) -> None:
    """A baseline that was cut or edited must not pass as one.

    Raises:
        ValueError: it contradicts itself.
    """
    accuracy = baseline.accuracy
    if not baseline.latency.samples_ms or min(baseline.latency.samples_ms) <= 0:
        raise ValueError("its latency has no samples, or one that is not above 0")
    if accuracy.evaluation.images < 1 or not accuracy.evaluation.scores:
        raise ValueError("its accuracy is of no images, or outside 0..1")
    images = accuracy.evaluation.images if accuracy.source == "measured" else 0
    if not len(accuracy.paths) == len(accuracy.truth) == len(accuracy.predictions) == images:
        raise ValueError("it does not hold one path, class and prediction per image")
    task = task_of(baseline.task)
    for values in (accuracy.truth, accuracy.predictions):
        task.read(values)
    loads = baseline.loads
    if not loads.load_ms or min(loads.load_ms) <= 0 or len(loads.peak_memory_bytes) != len(loads.load_ms):
        raise ValueError("its loads are none, or not above 0")
    if baseline.size_bytes < 1:
        raise ValueError(f"its size_bytes is {baseline.size_bytes}")
