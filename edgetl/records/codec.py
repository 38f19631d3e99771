"""Records as JSON both ways."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, TypeVar

R = TypeVar("R")
OPTIONAL = types.MappingProxyType({"optional": True})
"""`dataclasses.field(default=..., metadata=OPTIONAL)`: JSON has the field only where it is not its default, so that
records without it are written as they were before there was such a field."""


def to_json(record: Any) -> Any:
    """Turn a record (dataclasses, tuples, lists, dicts of plain values) into plain JSON values."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {
            f.name: to_json(getattr(record, f.name))
            for f in dataclasses.fields(record)
            if not f.metadata.get("optional", False) or getattr(record, f.name) != f.default
        }
    if isinstance(record, Mapping):
        return {str(k): to_json(v) for k, v in record.items()}
    if isinstance(record, list | tuple):
        plain = set(map(type, record)) <= {int, float, str}  # Large ones are: rows of confusion, samples.
        return list(record) if plain else [to_json(v) for v in record]
    return record


def from_json(kind: type[R], value: Any) -> R:
    """Rebuild a record of type `kind` from `to_json`'s output. Unknown keys are ignored.

    Raises:
        ValueError: a field is missing or of the wrong shape; the message names it.
    """
    reader = _reader(typing.cast(Any, kind))
    return typing.cast(R, reader(value, getattr(kind, "__name__", "value")))  # A union has no name.


_Reader = Callable[[Any, str], Any]
"""Takes a JSON value and where it stands, for the message of its ValueError."""


@functools.cache
def _reader(kind: Any) -> _Reader:
    """What reads values of a type: made once a type, so that a device's start asks no annotation twice."""
    if kind is Any:
        return lambda value, where: value
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        kinds = [a for a in args if a is not type(None)]
        inner = _reader(kinds[0]) if len(kinds) == 1 else _tagged_reader(kinds)
        return lambda value, where: None if value is None and len(kinds) < len(args) else inner(value, where)
    if origin is tuple:
        return _tuple_reader(args)
    if origin in (dict, Mapping):
        return _mapping_reader(_reader(args[1]))
    if dataclasses.is_dataclass(kind):
        return _dataclass_reader(kind)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return _choice_reader({member.value: member for member in kind})
    if origin is typing.Literal:
        return _choice_reader({choice: choice for choice in args})
    return _plain_reader(kind)


def _tuple_reader(args: tuple[Any, ...]) -> _Reader:
    endless = args[1:] == (Ellipsis,)
    readers = [_reader(arg) for arg in (args[:1] if endless else args)]
    plain = args[0] if endless and args[0] in (float, int, str) else None

    def read(value: Any, where: str) -> Any:
        _expect(isinstance(value, list | tuple), where, "a list", value)
        if plain is not None and all(type(v) is plain for v in value):
            return tuple(value)
        _expect(endless or len(value) == len(readers), where, f"{len(readers)} values", value)
        pairs = zip(value, readers * len(value) if endless else readers, strict=True)
        return tuple(reader(v, f"{where}[{i}]") for i, (v, reader) in enumerate(pairs))

    return read


def _mapping_reader(inner: _Reader) -> _Reader:
    def read(value: Any, where: str) -> Any:
        _expect(isinstance(value, Mapping), where, "an object", value)
        return {k: inner(v, f"{where}.{k}") for k, v in value.items()}

    return read


def _dataclass_reader(kind: Any) -> _Reader:
    hints = typing.get_type_hints(kind)
    missing = dataclasses.MISSING
    fields = [
        (f.name, _reader(hints[f.name]), f.default is missing and f.default_factory is missing)
        for f in dataclasses.fields(kind)
    ]

    def read(value: Any, where: str) -> Any:
        _expect(isinstance(value, Mapping), where, "an object", value)
        values = {}
        for name, reader, required in fields:
            if name in value:
                values[name] = reader(value[name], f"{where}.{name}")
            elif required:
                raise ValueError(f"{where}.{name} is missing")
        return kind(**values)

    return read


def _tagged_reader(kinds: list[Any]) -> _Reader:
    """Reads a union of records, each of which has a field `kind` of one literal that says which it is."""
    tags = {typing.get_args(typing.get_type_hints(kind)["kind"])[0]: kind for kind in kinds}
    tag_of = _choice_reader({tag: tag for tag in tags})

    def read(value: Any, where: str) -> Any:
        _expect(isinstance(value, Mapping), where, "an object", value)
        _expect("kind" in value, where, "an object with a kind", value)
        # Asked for when it is read, so that only what occurs is prepared.
        return _reader(tags[tag_of(value["kind"], f"{where}.kind")])(value, where)

    return read


def _choice_reader(choices: Mapping[Any, Any]) -> _Reader:
    def read(value: Any, where: str) -> Any:
        # A list or an object has no hash.
        holds = isinstance(value, str | int) and value in choices
        _expect(holds, where, f"one of {', '.join(map(repr, choices))}", value)
        return choices[value]

    return read


def _plain_reader(kind: type) -> _Reader:
    def read(value: Any, where: str) -> Any:
        if type(value) is kind:
            return value
        if kind is float and type(value) is int:
            return float(value)
        _expect(isinstance(value, kind) and not isinstance(value, bool), where, kind.__name__, value)
        return value

    return read


def _expect(holds: bool, where: str, expected: str, value: Any) -> None:
    if not holds:
        raise ValueError(f"{where} is {value!r:.60}, expected {expected}")
