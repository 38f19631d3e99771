"""Recipes from TOML, with overrides: unknown keys are refused with the nearest right one; all errors come at once."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from edgetl.config.choices import Imbalance
from edgetl.config.data import BUILT_IN
from edgetl.config.recipe import SECTIONS, Recipe, dotted_names, settings_of
from edgetl.config.task import KINDS, TaskConfig
from edgetl.errors import ConfigError
from edgetl.failures import cause, remedy
from edgetl.files import text_as_name
from edgetl.overrides import value_of
from edgetl.shell import command


def for_boxes(recipe: Recipe) -> Recipe:
    """A recipe that says nothing of the task, for pictures with boxes.

    Raises:
        ConfigError: it asks for what boxes do not have.
    """
    return parse({**recipe.model_dump(exclude_unset=True), "task": {"kind": "detection"}})


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file and apply `--set` overrides.

    A relative path in it that names an existing file or folder is taken relative to the recipe.

    Raises:
        ConfigError: the file is missing, not TOML, or has wrong keys or values; all problems at once.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"No recipe at {path}. Write one with: {command('init', 'DATA_DIR', '-o', path)}"
        ) from None
    except OSError as error:
        raise ConfigError(f"Cannot read the recipe {path}: {cause(error)}. {remedy(error)}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"Cannot read the recipe {path}: it is not text in UTF-8 ({error.reason})."
        ) from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    recipe = parse(values, overrides)
    return _anchor(recipe, path.resolve().parent)


def extended(run: Path, added: str, name: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a run that goes on from a finished one with added images.

    All settings are those of the finished run, but for what it learned first or got used to. Classes of unequal size
    are drawn equally often where it had set nothing, since few exemplars stand for what is known.

    Args:
        run: the folder of the finished run.
        added: the images, as `data.source`.
        name: of the new run.
        overrides: as for `load`.

    Raises:
        ConfigError: the folder holds no recipe, or one that does not go with that.
    """
    lock = run / "recipe.lock.toml"
    if not lock.is_file():
        raise ConfigError(
            f"{run} is not the folder of a run; expected one that edgetl run wrote, as in runs/NAME."
        )
    before = load(lock)
    values = before.model_dump(exclude={"pretrain", "adapt", "extend"})
    values["name"] = name
    values["data"] |= {"source": added, "max_train_images": None}
    values["extend"] = {**before.extend.model_dump(exclude={"run"}), "run": str(run)}
    if before.train.imbalance is Imbalance.NONE:
        values["train"]["imbalance"] = Imbalance.SAMPLING
    return parse(values, overrides)


def parse(values: Mapping[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """Check plain values (as read from TOML) with `--set` overrides applied.

    Raises:
        ConfigError: with every problem found.
    """
    merged = {k: dict(v) if isinstance(v, Mapping) else v for k, v in values.items()}
    problems: list[str] = []
    for override in overrides:
        _apply_override(merged, override, problems)
    try:
        recipe = Recipe.model_validate(merged)
    except ValidationError as error:
        raise ConfigError([*problems, *map(_sentence, error.errors())]) from None
    if problems:
        raise ConfigError(problems)
    return recipe


def _apply_override(values: dict[str, Any], override: str, problems: list[str]) -> None:
    name, equals, text = override.partition("=")
    if not equals:
        problems.append(f"--set {override}: expected the form section.key=value.")
        return
    section, dot, key = name.strip().partition(".")
    if not dot and section in SECTIONS:
        first = next(iter(settings_of(section)))
        problems.append(
            f"--set {override}: {section} is a section; name one of its settings, as in {section}.{first}."
        )
        return
    fields = settings_of(section) if section in SECTIONS else {} if dot else Recipe.model_fields
    field = fields.get(key if dot else section)
    value = text if field is None else value_of(text, field.annotation)
    if not dot:
        values[section] = value
        return
    inner = values.setdefault(section, {})
    if isinstance(inner, dict):
        inner[key] = value
    else:
        problems.append(f"--set {override}: {section} is not a section.")


def _sentence(error: Any) -> str:
    loc = [str(part) for part in error["loc"]]
    if loc[:1] == ["task"] and len(loc) > 2:  # the kind of task stands between
        del loc[1]
    where = ".".join(loc)
    if loc == ["task"] and error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        kinds = f"{', '.join(KINDS[:-1])} or {KINDS[-1]}"
        return f"{where}.kind: expected {kinds}, got {error['input']!r:.80}."
    if error["type"] == "extra_forbidden":
        return f"{where}: no such key.{_suggestion(where)}"
    if error["type"] == "value_error":
        return f"{where}: {error['ctx']['error']}." if where else f"{error['ctx']['error']}."
    message = error["msg"]
    return f"{where}: {message[:1].lower()}{message[1:]}, got {error['input']!r:.80}."


def _suggestion(name: str) -> str:
    section, _, key = name.partition(".")
    if not key or section not in SECTIONS:
        tops = ["name", "seed", *SECTIONS]
        close = difflib.get_close_matches(section, tops, n=1)
        return f" Did you mean {close[0]}?" if close else f" Known are {', '.join(tops)}."
    own = list(settings_of(section))
    if key in own:
        kinds = [kind for kind in get_args(TaskConfig) if key in kind.model_fields]
        of_kind = kinds[0].model_fields["kind"].default
        return f' It belongs to task.kind = "{of_kind}".'
    if close := difflib.get_close_matches(key, own, n=1):
        return f" Did you mean {section}.{close[0]}?"
    if elsewhere := [n for n in dotted_names() if n.rpartition(".")[2] == key]:
        return f" Did you mean {elsewhere[0]}?"
    return f" {section} has {', '.join(own)}."


def _anchor(recipe: Recipe, folder: Path) -> Recipe:
    def anchored(text: str) -> str:
        text = text_as_name(text)
        here = folder / text
        own = text not in BUILT_IN and not Path(text).is_absolute() and here.exists()
        return str(here) if own else text

    data = recipe.data.model_copy(update={"source": anchored(recipe.data.source)})
    train = recipe.train.model_copy(update={"weights": anchored(recipe.train.weights)})
    further = tuple(anchored(path) for path in recipe.distill.teachers)
    unlabelled = recipe.distill.unlabelled
    distill = recipe.distill.model_copy(
        update={
            "weights": anchored(recipe.distill.weights),
            "teachers": further,
            "unlabelled": None if unlabelled is None else anchored(unlabelled),
        }
    )
    target = recipe.adapt.images
    adapt = recipe.adapt.model_copy(update={"images": None if target is None else anchored(target)})
    before = recipe.pretrain
    named = {name: getattr(before, name) for name in ("source", "images", "teacher")}
    pretrain = before.model_copy(
        update={name: None if text is None else anchored(text) for name, text in named.items()}
    )
    earlier = recipe.extend.run
    extend = recipe.extend.model_copy(update={"run": None if earlier is None else anchored(earlier)})
    files = {name: getattr(recipe.labels, name) for name in ("tree", "graph")}
    labels = recipe.labels.model_copy(
        update={name: anchored(path) for name, path in files.items() if path is not None}
    )
    return recipe.model_copy(
        update={
            "data": data,
            "labels": labels,
            "pretrain": pretrain,
            "extend": extend,
            "train": train,
            "adapt": adapt,
            "distill": distill,
        }
    )
