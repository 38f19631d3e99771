"""Baselines: what a bundle was measured to be, kept in a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgetl import __version__, files
from edgetl.errors import BaselineError
from edgetl.records import Evaluation, Latency, Machine, from_json

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """A score and the images it belongs to.

    Attributes:
        source: `measured` here through the runtime, or taken from the bundle's `manifest` (its test split).
        images_sha256: which images; two scores are comparable only where this is equal.
        hits: for `measured`, one character an image in order: `1` right, `0` wrong. Else empty.
    """

    source: Literal["measured", "manifest"]
    evaluation: Evaluation
    images_sha256: str
    hits: str = ""


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A bundle's figures at one time on one machine; `size_bytes` is the variant's model file.

    `latency` is the model alone, batch 1, with its raw samples.
    """

    schema_version: int = SCHEMA_VERSION
    created_by: str = f"edgetl {__version__}"
    bundle: str
    bundle_sha256: str
    variant: str
    labels: tuple[str, ...]
    size_bytes: int
    accuracy: Accuracy
    latency: Latency
    machine: Machine

    def save(self, path: Path) -> None:
        """Write it atomically.

        Raises:
            StorageError: it cannot be written.
        """
        files.write_json(path, self)


def load(path: Path) -> Baseline:
    """Read a baseline.

    Raises:
        BaselineError: there is none, it is broken, or a newer edgetl wrote it.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BaselineError(
            f"There is no baseline at {path}. Write one with: edgetl baseline BUNDLE -o {path}"
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
            f"{path} was written by a newer edgetl with schema {version}; edgetl {__version__} reads up to "
            f"{SCHEMA_VERSION}. Upgrade edgetl, or write the baseline anew."
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
    if accuracy.evaluation.images < 1 or not 0.0 <= accuracy.evaluation.top1 <= 1.0:
        raise ValueError("its accuracy is of no images, or outside 0..1")
    if set(accuracy.hits) - set("01") or len(accuracy.hits) not in (0, accuracy.evaluation.images):
        raise ValueError("its hits are not one 0 or 1 an image")
    if baseline.size_bytes < 1:
        raise ValueError(f"its size_bytes is {baseline.size_bytes}")
