"""Frozen dataclasses that cost a device's start next to nothing.

`dataclasses.dataclass` writes and compiles the source of six methods for each class, at every start; here they
stand once, for all classes. `fields`, `replace` and `is_dataclass` work on both kinds alike. What only the
host loads uses the standard library's.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(*, frozen: bool, kw_only: bool):
        """Make a frozen, keyword-only dataclass; the arguments are for the reader and the type checker."""
        assert frozen
        assert kw_only

        def make(kind):
            kind.__init__, kind.__repr__, kind.__eq__, kind.__hash__ = _init, _repr, _eq, _hash
            kind.__setattr__ = kind.__delattr__ = _refuse
            return dataclasses.dataclass(init=False, repr=False, eq=False, kw_only=True)(kind)

        return make


def _init(self: Any, **values: Any) -> None:
    fields, own = self.__dataclass_fields__, self.__dict__
    for name, field in fields.items():
        if name in values:
            own[name] = values[name]
        elif field.default is not dataclasses.MISSING:
            own[name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            own[name] = field.default_factory()
        else:
            raise TypeError(f"{type(self).__name__} lacks {name}")
    if unknown := values.keys() - fields.keys():
        raise TypeError(f"{type(self).__name__} has no {min(unknown)}")
    if hasattr(self, "__post_init__"):
        self.__post_init__()


def _values(self: Any) -> tuple[Any, ...]:
    return tuple(getattr(self, name) for name in self.__dataclass_fields__)


def _repr(self: Any) -> str:
    shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__dataclass_fields__)
    return f"{type(self).__qualname__}({shown})"


def _eq(self: Any, other: object) -> bool:
    return _values(self) == _values(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash(_values(self))


def _refuse(self: Any, name: str, value: Any = None) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot set or delete {name!r} of {type(self).__name__}")
