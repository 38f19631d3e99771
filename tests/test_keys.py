"""A stage's key changes with every field of what the stage is given, and with nothing else."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from edgetl import config as recipes
from edgetl import keys
from edgetl.data.index import DataIndex, Sample
from edgetl.data.stage import DataInputs
from edgetl.data.unlabelled import UnlabelledInputs
from edgetl.distill.objective import Guide
from edgetl.distill.stage import DistillInputs
from edgetl.export.stage import ExportInputs
from edgetl.inputs.image import PreprocessSpec
from edgetl.inputs.spec import SoundSpec
from edgetl.keys import UNKEYED, key_of
from edgetl.measure.pack import ShipInputs
from edgetl.measure.stage import MeasureInputs
from edgetl.measure.stopwatch import RuntimeStopwatch
from edgetl.prune.latency import Stopwatch
from edgetl.prune.stage import PruneInputs
from edgetl.quantize.stage import QuantizeInputs
from edgetl.tasks.relations import Graph, Tree
from edgetl.train.extend.stage import ExtendInputs
from edgetl.train.stage import TrainInputs

INPUTS = (
    DataInputs,
    UnlabelledInputs,
    TrainInputs,
    Guide,
    RuntimeStopwatch,
    ExtendInputs,
    PruneInputs,
    DistillInputs,
    ExportInputs,
    QuantizeInputs,
    MeasureInputs,
    ShipInputs,
)
SECTIONS = tuple(type(getattr(recipes.Recipe(), name)) for name in recipes.Recipe.model_fields)
CONFIGS = (recipes.Recipe, *(s for s in SECTIONS if issubclass(s, BaseModel)))
PLACES = {"pixels_dir", "cache_dir", "run_dir"}
"""Folders of what can be made again: results do not depend on where they are."""


def values(kind: Any, folder: Path) -> Iterator[Any]:
    """Values of an annotated type, no two alike."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is type(None):
        yield None
    elif kind is Any:
        yield from (1, 2)
    elif origin is typing.Annotated:
        yield from values(args[0], folder)
    elif origin in (typing.Union, types.UnionType):
        for arg in sorted(args, key=lambda arg: arg is not type(None)):
            yield from values(arg, folder)
    elif origin is typing.Literal:
        yield from args
    elif origin is tuple:
        inner = [list(values(arg, folder)) for arg in args if arg is not Ellipsis]
        yield tuple(v[0] for v in inner)
        yield tuple(v[1] for v in inner)
    elif origin is dict:
        (first, second, *_) = values(args[1], folder)
        yield {"a": first}
        yield {"a": second}
    elif isinstance(kind, type) and issubclass(kind, BaseModel):
        base = kind(**{name: 2 for name, field in kind.model_fields.items() if field.is_required()})
        yield base
        for name, field in kind.model_fields.items():
            others = (v for v in values(field.annotation, folder) if v != getattr(base, name))
            if (other := next(others, None)) is not None:
                yield base.model_copy(update={name: other})
    elif kind is bool:
        yield from (False, True)
    elif kind is Path:
        for text in ("one", "two"):
            path = folder / f"{text}.bin"
            path.write_text(text)
            yield path
    elif kind is DataIndex:
        for label in (0, 1):
            sample = Sample(Path("/set/x.png"), label, "train", "ab")
            yield DataIndex(Path("/set"), ("a", "b"), (sample,))
    elif kind is SoundSpec:
        yield from (
            SoundSpec(rate=8000, seconds=1.0, high_hz=4000.0),
            SoundSpec(rate=16000, seconds=1.0, high_hz=4000.0),
        )
    elif kind is PreprocessSpec:
        yield from (PreprocessSpec(size=8), PreprocessSpec(size=9))
    elif isinstance(kind, type) and issubclass(kind, enum.Enum):
        yield from kind
    elif kind in (int, float, str):
        yield from (kind(1), kind(2))
    elif kind is Tree:  # of the classes that `Classification` has here
        yield from (Tree(parents={"1": top}) for top in ("a", "b"))
    elif kind is Graph:
        yield from (Graph(edges=(("1", "a", 1.0), ("1", "b", length))) for length in (1.0, 2.0))
    elif isinstance(kind, type) and dataclasses.is_dataclass(kind):
        yield from changes(kind, folder)
    elif kind is Stopwatch:
        yield from changes(RuntimeStopwatch, folder)
    else:
        raise AssertionError(f"no values of {kind}")


def fields_of(kind: Any) -> dict[str, Any]:
    """The fields that a caller gives, with their types."""
    if issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    hints = typing.get_type_hints(
        kind, localns={"DataIndex": DataIndex, "PreprocessSpec": PreprocessSpec, "SoundSpec": SoundSpec}
    )
    return {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.init}


def base_of(kind: Any, folder: Path) -> Any:
    if issubclass(kind, BaseModel):
        return kind()
    return kind(**{name: next(values(hint, folder)) for name, hint in fields_of(kind).items()})


def changes(kind: Any, folder: Path) -> Iterator[Any]:
    base = base_of(kind, folder)
    yield base
    for name, hint in fields_of(kind).items():
        now = getattr(base, name)
        for value in values(hint, folder):
            if value != now:
                yield dataclasses.replace(base, **{name: value})
                break


@pytest.mark.parametrize("kind", INPUTS)
def test_every_input_of_a_stage_changes_its_key(kind: Any, tmp_path: Path) -> None:
    base = base_of(kind, tmp_path)
    for name, hint in fields_of(kind).items():
        field = next(f for f in dataclasses.fields(kind) if f.name == name)
        other = next(v for v in values(hint, tmp_path) if v != getattr(base, name))
        changed = dataclasses.replace(base, **{name: other})
        excluded = field.metadata == UNKEYED
        assert excluded is (name in PLACES), name
        assert (key_of(changed) == key_of(base)) is excluded, name


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_setting_changes_its_stages_key(kind: type[BaseModel], tmp_path: Path) -> None:
    base = kind()
    for name, hint in fields_of(kind).items():
        if isinstance(hint, type) and issubclass(hint, BaseModel):
            continue  # a section, which is its own stage's config
        if name == "kind":
            continue  # has one value in each kind of section
        other = next(v for v in values(hint, tmp_path) if v != getattr(base, name))
        assert key_of(base.model_copy(update={name: other})) != key_of(base), name


def test_a_file_counts_by_its_content_wherever_it_lies(tmp_path: Path) -> None:
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    for path in (first, second):
        path.write_text("weights")
    assert key_of(first) == key_of(second)
    config = recipes.TrainConfig(weights=str(first))
    before = key_of(config)
    first.write_text("other weights")
    assert key_of(first) != key_of(second)
    assert key_of(config) != before
    assert key_of(tmp_path / "gone") == f"missing: {tmp_path / 'gone'}"


def test_what_has_no_key_is_refused() -> None:
    with pytest.raises(TypeError, match="object has no key: mark its field by UNKEYED"):
        key_of({"a": [object()]})


def test_the_code_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "train.py").write_text("rate = 1\n")
    monkeypatch.setattr(keys, "__file__", str(tmp_path / "keys.py"))
    seen = []
    for text in ("rate = 1\n", "rate = 2\n"):
        (tmp_path / "stages" / "train.py").write_text(text)
        keys.sources.cache_clear()
        seen.append(keys.sources())
    keys.sources.cache_clear()
    assert seen[0] != seen[1]
