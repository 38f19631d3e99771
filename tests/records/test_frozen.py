"""The dataclasses of a device's start behave as the standard library's frozen, keyword-only ones."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest

from edgetl.records import frozen


@frozen.dataclass(frozen=True, kw_only=True)
class Quick:
    """Made without compiling."""

    name: str
    count: int = 3
    notes: dict[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError("count is negative")


def test_values_defaults_and_text() -> None:
    made = Quick(name="a")
    assert (made.name, made.count, made.notes) == ("a", 3, {})
    assert made.notes is not Quick(name="b").notes
    assert repr(made) == "Quick(name='a', count=3, notes={})"
    assert dataclasses.is_dataclass(Quick)
    assert [field.name for field in dataclasses.fields(Quick)] == ["name", "count", "notes"]
    assert dataclasses.asdict(made) == {"name": "a", "count": 3, "notes": {}}


def test_equal_values_are_equal_and_hash_alike() -> None:
    assert Quick(name="a") == Quick(name="a", count=3)
    assert Quick(name="a") != Quick(name="b")
    assert Quick(name="a") != ("a", 3, {})
    first, second = (frozen_pair(2) for _ in range(2))
    assert len({first, second}) == 1


def frozen_pair(value: int) -> object:
    """One of two equal instances without a mutable field."""
    return Pair(left=value, right=value)


@frozen.dataclass(frozen=True, kw_only=True)
class Pair:
    """Two numbers."""

    left: int
    right: int


def test_nothing_can_be_changed() -> None:
    made = Pair(left=1, right=2)
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot set or delete 'left' of Pair"):
        made.left = 3  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError, match="'right' of Pair"):
        del made.right
    assert dataclasses.replace(made, left=3) == Pair(left=3, right=2)


def test_copies_and_pickles_are_equal() -> None:
    made = Quick(name="a", notes={"x": "y"})
    assert copy.deepcopy(made) == made
    assert pickle.loads(pickle.dumps(made)) == made


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(TypeError, match="Pair lacks right"):
        Pair(left=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="Pair has no top"):
        Pair(left=1, right=2, top=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="positional"):
        Pair(1, 2)  # type: ignore[misc]
    with pytest.raises(ValueError, match="count is negative"):
        Quick(name="a", count=-1)
