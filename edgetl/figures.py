"""Figures that bundles carry, and records as JSON both ways: the part of the records that a device loads.

Each class costs a device time when it starts, so what only the host needs stands in `edgetl.records`. Units stand in
the names: `_ms` milliseconds, `_bytes` bytes.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeVar

from edgetl.frozen import dataclass

R = TypeVar("R")


def to_json(record: Any) -> Any:
    """Turn a record (dataclasses, tuples, lists, dicts of plain values) into plain JSON values."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {f.name: to_json(getattr(record, f.name)) for f in dataclasses.fields(record)}
    if isinstance(record, Mapping):
        return {str(k): to_json(v) for k, v in record.items()}
    if isinstance(record, list | tuple):
        return [to_json(v) for v in record]
    return record


def from_json(kind: type[R], value: Any) -> R:
    """Rebuild a record of type `kind` from `to_json`'s output. Unknown keys are ignored.

    Raises:
        ValueError: a field is missing or of the wrong shape; the message names it.
    """
    return typing.cast(R, _decode(kind, value, kind.__name__))


def _decode(kind: Any, value: Any, where: str) -> Any:
    if kind is Any:
        return value
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _decode(next(a for a in args if a is not type(None)), value, where)
    if origin is tuple:
        _expect(isinstance(value, list | tuple), where, "a list", value)
        if len(args) == 2 and args[1] is Ellipsis:
            if args[0] in (float, int, str) and all(type(v) is args[0] for v in value):
                return tuple(value)
            return tuple(_decode(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))
        _expect(len(value) == len(args), where, f"{len(args)} values", value)
        return tuple(_decode(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(args, value, strict=True)))
    if origin in (dict, Mapping):
        _expect(isinstance(value, Mapping), where, "an object", value)
        return {k: _decode(args[1], v, f"{where}.{k}") for k, v in value.items()}
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, value, where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        choices = [member.value for member in kind]
        _expect(value in choices, where, f"one of {', '.join(map(repr, choices))}", value)
        return kind(value)
    if origin is typing.Literal:
        _expect(value in args, where, f"one of {', '.join(map(repr, args))}", value)
        return value
    _expect(
        isinstance(value, kind) and not (kind is int and isinstance(value, bool)), where, kind.__name__, value
    )
    return value


def _decode_dataclass(kind: Any, value: Any, where: str) -> Any:
    _expect(isinstance(value, Mapping), where, "an object", value)
    values = {}
    for name, hint, required in _fields(kind):
        if name in value:
            values[name] = _decode(hint, value[name], f"{where}.{name}")
        elif required:
            raise ValueError(f"{where}.{name} is missing")
    return kind(**values)


@functools.cache
def _fields(kind: Any) -> tuple[tuple[str, Any, bool], ...]:
    """Name, type and whether it must be there, of each field: asked once a type, since hints are slow to resolve."""
    hints = typing.get_type_hints(kind)
    return tuple(
        (f.name, hints[f.name], f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING)
        for f in dataclasses.fields(kind)
    )


def _expect(holds: bool, where: str, expected: str, value: Any) -> None:
    if not holds:
        raise ValueError(f"{where} is {value!r:.60}, expected {expected}")


# --- what is measured --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """One class's scores. `support` is its number of images; a ratio with an empty denominator is 0."""

    label: str
    support: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Accuracy of a classifier on a set of images. All ratios are in 0..1.

    `confusion[i][j]` counts images of class i that were predicted as j.
    `top1_interval` is a 95% Wilson score interval; those of macro-F1 and balanced accuracy are 95% percentile
    bootstrap intervals over the images. `top5` stands where there are more than five classes, `calibration_error`
    (expected calibration error of the top class, 15 bins) where scores are at hand.
    """

    images: int
    top1: float
    top1_interval: tuple[float, float]
    macro_f1: float
    balanced_accuracy: float
    classes: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]
    top5: float | None = None
    calibration_error: float | None = None
    macro_f1_interval: tuple[float, float] | None = None
    balanced_accuracy_interval: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The machine a figure was measured on."""

    cpu: str
    cores: int
    memory_bytes: int
    system: str
    python: str
    gpu: str = ""
    governor: str = ""

    @property
    def fingerprint(self) -> str:
        """Short text that tells machines apart; figures of different fingerprints are not comparable."""
        return f"{self.cpu} x{self.cores}, {self.system}" + (f", {self.gpu}" if self.gpu else "")


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Statistics over raw samples of one call's wall time. `batch` images a call; throughput in images a second."""

    scenario: str
    batch: int
    threads: int
    warmup: int
    runs: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    throughput: float
    samples_ms: tuple[float, ...] = ()
