"""The calibration cache: histograms on disk, keyed by what they were made of.

A file holds what one float model did on one calibration set with one preprocessing. It holds numbers only, is read
without pickle, and is dropped where anything about it does not fit.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgetl.data.calibration import CalibrationSet
from edgetl.files import sha256_bytes, sha256_json, write_bytes
from edgetl.inputs.image import PreprocessSpec
from edgetl.quantize.observers import HALF, Histogram

_VERSION = 1


def calibration_key(model: onnx.ModelProto, images: CalibrationSet, spec: PreprocessSpec) -> str:
    """SHA-256 over the model, the images' contents in order, and the preprocessing."""
    return sha256_json(
        {
            "version": _VERSION,
            "bins": 2 * HALF,
            "model": sha256_bytes(model.SerializeToString(deterministic=True)),
            "images": [sample.sha256 for sample in images.samples],
            "preprocess": spec,
        }
    )


def save(histograms: Mapping[str, Histogram], folder: Path, key: str) -> Path:
    """Write the histograms as `KEY.npz`.

    Raises:
        StorageError: it cannot be written.
    """
    names, kept = list(histograms), list(histograms.values())
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        names=np.array(names, dtype=np.str_),
        counts=np.stack([h.counts for h in kept]) if kept else np.zeros((0, 2 * HALF), np.int64),
        exponents=np.array([h.exponent for h in kept], np.int64),
        images=np.array([h.images for h in kept], np.int64),
        extremes=np.array([[h.low, h.high, h.low_sum, h.high_sum] for h in kept], np.float64).reshape(-1, 4),
    )
    path = folder / f"{key}.npz"
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(path, buffer.getvalue())
    return path


def load(folder: Path, key: str, tensors: Sequence[str]) -> dict[str, Histogram] | None:
    """The histograms of `tensors`; None where the file is missing, broken or lacks one."""
    try:
        content = (folder / f"{key}.npz").read_bytes()
        with np.load(io.BytesIO(content), allow_pickle=False) as saved:
            parts = {name: saved[name] for name in ("names", "counts", "exponents", "images", "extremes")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    rows = {str(name): at for at, name in enumerate(parts["names"])}
    shape = (len(rows), 2 * HALF)
    if parts["counts"].shape != shape or parts["counts"].dtype != np.int64 or not set(tensors) <= set(rows):
        return None
    if parts["extremes"].shape != (len(rows), 4) or not np.isfinite(parts["extremes"]).all():
        return None
    return {name: _histogram(parts, rows[name]) for name in tensors}


def _histogram(parts: Mapping[str, NDArray[Any]], row: int) -> Histogram:
    histogram = Histogram()
    histogram.counts = parts["counts"][row].copy()
    histogram.exponent, histogram.images = int(parts["exponents"][row]), int(parts["images"][row])
    histogram.low, histogram.high, histogram.low_sum, histogram.high_sum = map(float, parts["extremes"][row])
    return histogram
