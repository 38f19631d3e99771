from __future__ import annotations

import dataclasses
import inspect
import json
import types
import typing
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgetl.records import bench, gate, measured, parity, prune, scores, train, variants
from edgetl.records.codec import from_json, to_json
from edgetl.records.measured import Latency, Machine
from edgetl.records.scores import Evaluation
from edgetl.tasks.classification import detail
from edgetl.tasks.classification.detail import ClassDetail, ClassScore

MODULES = (bench, detail, gate, measured, parity, prune, scores, train, variants)
RECORDS = sorted(
    (
        kind
        for module in MODULES
        for _, kind in inspect.getmembers(module, dataclasses.is_dataclass)
        if kind.__module__ == module.__name__
    ),
    key=lambda kind: kind.__name__,
)


def _values(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*map(_values, args))
    if kind is type(None):
        return st.none()
    if origin is tuple and args[-1] is Ellipsis:
        return st.lists(_values(args[0]), max_size=2).map(tuple)
    if origin is tuple:
        return st.tuples(*map(_values, args))
    if origin is dict:
        return st.dictionaries(st.text(max_size=4), _values(args[1]), max_size=2)
    if origin is Literal:
        return st.sampled_from(args)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return st.sampled_from(kind)
    if dataclasses.is_dataclass(kind):
        return _instances(kind)
    if kind is Any:
        return st.text(max_size=4)
    plain = {
        int: st.integers(-(2**53), 2**53),
        float: st.floats(allow_nan=False, allow_infinity=False),
        str: st.text(max_size=8),
        bool: st.booleans(),
    }
    return plain[kind]


def _instances(kind: Any) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(kind)
    return st.builds(kind, **{f.name: _values(hints[f.name]) for f in dataclasses.fields(kind)})


def test_all_records_were_found() -> None:
    assert len(RECORDS) >= 40
    for kind in RECORDS:
        assert kind.__doc__, kind.__name__
        with pytest.raises(dataclasses.FrozenInstanceError):
            object.__new__(kind).anything = 1
        assert all(f.kw_only for f in dataclasses.fields(kind)), kind.__name__


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_record_travels_as_json_both_ways(kind: Any, data: st.DataObject) -> None:
    record = data.draw(_instances(kind))
    text = json.dumps(to_json(record), allow_nan=False)
    assert from_json(kind, json.loads(text)) == record


MACHINE = {"cpu": "x", "cores": 2, "memory_bytes": 1, "system": "Linux x86_64", "python": "3.11"}


def test_defaults_fill_in_and_unknown_keys_are_ignored() -> None:
    machine = from_json(Machine, {**MACHINE, "from_a_newer_version": [1]})
    assert (machine.gpu, machine.governor) == ("", "")
    assert machine.fingerprint == "x x2, Linux x86_64"
    assert dataclasses.replace(machine, gpu="NVIDIA A2").fingerprint == "x x2, Linux x86_64, NVIDIA A2"


def test_a_whole_number_is_a_float_where_a_float_belongs() -> None:
    score = from_json(ClassScore, {"label": "a", "support": 1, "precision": 1, "recall": 0, "f1": 0.5})
    assert (score.precision, type(score.precision)) == (1.0, float)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "Machine is [], expected an object"),
        ({**MACHINE, "cores": "two"}, "Machine.cores is 'two', expected int"),
        ({**MACHINE, "cores": True}, "Machine.cores is True, expected int"),
        ({**MACHINE, "cores": 2.0}, "Machine.cores is 2.0, expected int"),
        ({**MACHINE, "cpu": None}, "Machine.cpu is None, expected str"),
        ({"cpu": "x"}, "Machine.cores is missing"),
    ],
)
def test_a_wrong_field_is_named(value: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        from_json(Machine, value)
    assert str(caught.value) == message


def test_a_wrong_field_deep_inside_is_named() -> None:
    scores = {"label": "a", "support": 1, "precision": 1.0, "recall": 1.0, "f1": "high"}
    whole = {"classes": [{**scores, "f1": 1.0}, scores], "cells": [[0, 0, 1]]}
    with pytest.raises(ValueError, match=r"^ClassDetail\.classes\[1\]\.f1 is 'high', expected float$"):
        from_json(ClassDetail, whole)
    whole["classes"] = []
    with pytest.raises(ValueError, match=r"^ClassDetail\.cells\[0\] is \[1\], expected 3 values$"):
        from_json(ClassDetail, {**whole, "cells": [[1]]})
    with pytest.raises(ValueError, match=r"^ClassDetail\.cells\[0\] is 3, expected a list$"):
        from_json(ClassDetail, {**whole, "cells": [3]})


def test_a_long_wrong_value_is_cut_in_the_message() -> None:
    with pytest.raises(ValueError) as caught:
        from_json(Machine, {**MACHINE, "cores": "9" * 5000})
    assert len(str(caught.value)) < 120


class _Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class _Tagged:
    colour: _Colour
    kind: Literal["a", "b"]
    anything: Any = None


def test_enums_and_literals_travel_and_are_checked() -> None:
    record = _Tagged(_Colour.RED, "b", {"x": [1, None]})
    back = from_json(_Tagged, json.loads(json.dumps(to_json(record))))
    assert back == record
    assert isinstance(back.colour, _Colour)
    with pytest.raises(ValueError, match=r"^_Tagged\.colour is 'blue', expected one of 'red'$"):
        from_json(_Tagged, {"colour": "blue", "kind": "a"})
    with pytest.raises(ValueError, match=r"^_Tagged\.kind is 'c', expected one of 'a', 'b'$"):
        from_json(_Tagged, {"colour": "red", "kind": "c"})


def test_tuples_come_back_as_tuples() -> None:
    values = {
        "scenario": "s",
        "batch": 1,
        "threads": 1,
        "warmup": 0,
        "runs": 2,
        "mean_ms": 1.5,
        "p50_ms": 1.5,
        "p90_ms": 2.0,
        "p99_ms": 2.0,
        "throughput": 1.0,
        "samples_ms": [1, 2.0],
    }
    latency = from_json(Latency, values)
    assert latency.samples_ms == (1.0, 2.0)
    assert hash(latency) == hash(from_json(Latency, to_json(latency)))


def test_an_evaluation_and_its_detail_come_back() -> None:
    from edgetl.tasks.all import detail_of
    from edgetl.tasks.classification.scores import evaluate

    new = evaluate(np.array([0, 1, 1]), np.eye(2)[[0, 1, 0]], ("a", "b"))
    again = from_json(Evaluation, json.loads(json.dumps(to_json(new))))
    assert again == new
    assert detail_of(again) == detail_of(new)
    assert detail_of(again).cells == ((0, 0, 1), (1, 0, 1), (1, 1, 1))
