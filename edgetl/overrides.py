"""Values as they are typed behind `--set KEY=`: what they mean is decided by the setting's own type, never guessed."""

from __future__ import annotations

import tomllib
import types
from collections.abc import Iterator
from enum import Enum
from typing import Annotated, Any, Union, get_args, get_origin

UNSET = "null"
"""How a setting is unset that may be: TOML has no word for it."""


def value_of(text: str, annotation: Any) -> Any:
    """What `text` means for a setting of that type; what does not fit is left for the setting's own check.

    Text is taken as it is, with TOML's quotes taken off; a table in braces is TOML's where no text is
    meant. Numbers are written as in TOML. A list is one of TOML's, or its items between commas.

    Args:
        text: behind the equals sign.
        annotation: the setting's type, as a field of the recipe has it.
    """
    text = text.strip()
    literal = _toml(text)
    kinds = set(_kinds(annotation))
    is_text = any(isinstance(kind, type) and issubclass(kind, str) for kind in kinds)
    if isinstance(literal, str) or (isinstance(literal, dict) and not is_text):
        return literal
    if text == UNSET and type(None) in kinds:
        return None
    if items := next((k for k in kinds if get_origin(k) is tuple), None):
        return _list(text, literal, get_args(items)[0])
    if any(isinstance(k, type) and issubclass(k, str | Enum) for k in kinds):
        return text
    if bool not in kinds and isinstance(literal, int | float) and not isinstance(literal, bool):
        return literal
    return text


def _list(text: str, literal: Any, kind: Any) -> Any:
    if isinstance(literal, list) and all(isinstance(item, str) for item in literal):
        return literal
    inside = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    return [value_of(item, kind) for item in inside.split(",") if item.strip()]


def _kinds(annotation: Any) -> Iterator[Any]:
    """The types that a value may have; a tuple with those of its items."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _kinds(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for inner in get_args(annotation):
            yield from _kinds(inner)
    else:
        yield annotation


def _toml(text: str) -> Any:
    try:
        values = tomllib.loads(f"x = {text}")
    except tomllib.TOMLDecodeError:
        return None
    return values["x"] if len(values) == 1 else None
