"""Recipes as TOML: with every default for a run's folder, or with comments for people."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from edgetl.config.recipe import SECTIONS, Recipe
from edgetl.errors import ConfigError
from edgetl.files import name_as_text


def dump(recipe: Recipe) -> str:
    """The recipe as TOML with every default explicit. Unset values stand as comments."""
    lines = [f"name = {as_toml(recipe.name)}", f"seed = {recipe.seed}"]
    for section in SECTIONS:
        lines += ["", f"[{section}]"]
        for key, value in getattr(recipe, section).model_dump(mode="json").items():
            lines.append(f"# {key} is unset" if value is None else f"{key} = {as_toml(value)}")
    return "\n".join(lines) + "\n"


COMMON = (
    "preprocess.size",
    "train.backbone",
    "train.epochs",
    "train.lr",
    "train.augment",
    "prune.target",
    "distill.size",
    "distill.epochs",
    "quantize.target",
    "bundle.max_drop",
)
"""The settings that people change most."""


def commented(recipe: Recipe, reasons: Mapping[str, str], *, full: bool = True) -> str:
    """The recipe as TOML for people: what differs from the defaults is set, with its reason; the rest is a comment.

    Args:
        recipe: the recipe.
        reasons: why a setting was chosen, by dotted name.
        full: with every setting; else with those that are set, and of the rest `COMMON` alone.
    """
    every = "" if full else " Every setting: edgetl guide settings"
    lines = [
        f"# A recipe for edgetl. Settings that are commented out show their defaults.{every}",
        f"name = {as_toml(recipe.name)}",
        f"seed = {recipe.seed}",
    ]
    for section in SECTIONS:
        chosen_section = getattr(recipe, section)
        model = type(chosen_section)
        # A setting without a default, and the kind of task that is not the usual one, must be written.
        usual = getattr(Recipe(), section)
        values, defaults = chosen_section.model_dump(mode="json"), usual.model_dump(mode="json")
        shown: list[str] = []
        for key, field in model.model_fields.items():
            name, reason = f"{section}.{key}", reasons.get(f"{section}.{key}")
            # TOML cannot say that a value is unset.
            chosen = values[key] is not None and (
                values[key] != defaults.get(key) or reason is not None or name == "data.source"
            )
            if not (full or chosen or reason is not None or name in COMMON):
                continue
            shown += _comment(field.description or "")
            if reason:
                shown += _comment(f"Chosen: {reason}")
            text = f"{key} = {as_toml(values[key])}" if values[key] is not None else f"{key} ="
            shown += [text] if chosen else [f"# {line}".rstrip() for line in text.splitlines()]
        if shown:
            lines += ["", *_comment(model.__doc__ or ""), f"[{section}]", *shown]
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, 108)]


def as_toml(value: Any) -> str:
    """A value as TOML writes it.

    Raises:
        ConfigError: a text that is not UTF-8.
    """
    import tomli_w

    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {as_toml(inner)}" for key, inner in value.items()) + "}"
    # Names of files among them, which a locale may have taken for something else.
    if isinstance(value, str) and not _is_text(value := name_as_text(value)):
        raise ConfigError(
            f"{value!r} has bytes that are not UTF-8, which a recipe cannot hold; rename it, or name a link to it."
        )
    return tomli_w.dumps({"x": value}).partition(" = ")[2].strip()


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
