"""The pages that say what the code says: commands, settings, Python.

python -m tests.guide.generated    # writes them anew; tests/guide/test_generated.py holds them to the code
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import typer.main
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from edgetl import config
from edgetl.cli import app, device, host
from edgetl.config.writing import as_toml

FOLDER = Path(__file__).parents[2] / "edgetl" / "guide"
_LONG = 100


def write() -> None:
    """Write every generated page."""
    for name, make in PAGES.items():
        (FOLDER / f"{name}.md").write_text(make(), encoding="utf-8")


def _page(title: str, summary: str, parts: Iterator[str]) -> str:
    return "\n".join([f"# {title}", "", summary, "", *parts]).rstrip() + "\n"


# --- commands -----------------------------------------------------------------------------------------------


def all_commands() -> dict[str, Any]:
    """Every command by the words that call it."""
    found = {}
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        for inner, sub in getattr(command, "commands", {"": command}).items():
            found[f"{name} {inner}".strip()] = sub
    return found


def commands() -> str:
    """The page of commands, from the texts of `--help`."""
    return _page(
        "Commands",
        "Every command with its arguments and options, as `edgetl COMMAND --help` shows them.",
        _command_parts(),
    )


def _command_parts() -> Iterator[str]:
    yield from [
        "Figures come as JSON on standard output with `--json`. Progress, logs and reasons go to standard error.",
        "",
        "| exit code | meaning |",
        "|---|---|",
        "| 0 | done |",
        "| 1 | a gate failed: accuracy, latency, the floor of a run, golden images |",
        "| 2 | the input is wrong, or the machine refuses; one message, no traceback |",
        "| 3 | a gate cannot tell |",
        "| 70 | a bug, with its traceback |",
        "| 130 | stopped by Ctrl-C; the message says how to go on |",
        "| 141 | the reader of the output has gone, as after `head`; no message |",
        "",
        "Where a signal ends a stage, the message names the stage, and the exit code is the signal's.",
        "",
    ]
    for name, command in all_commands().items():
        own = [p for p in command.params if p.name != "help"]
        words = [_usage(p) for p in own if _positional(p)]
        yield from [f"## edgetl {name}", "", _flowing(command.help or ""), ""]
        yield from ["```text", " ".join(["edgetl", name, *words, "[OPTIONS]"]), "```", ""]
        run = inspect.unwrap(command.callback)
        kinds = typing.get_type_hints(run, vars(host) | vars(device) | run.__globals__)
        yield from [_argument(p) if _positional(p) else _option(p, _choices(kinds[p.name])) for p in own]
        yield from ["", f"{command.epilog}".replace("Example: ", "Example: `", 1) + "`", ""]


def _positional(parameter: Any) -> bool:
    # By its name: releases of typer differ in whose classes these are.
    return bool(parameter.param_type_name == "argument")


def _usage(argument: Any) -> str:
    name = argument.metavar or (argument.name or "").upper()
    name = f"{name}..." if argument.nargs == -1 and not name.endswith("...") else name
    return name if argument.required else f"[{name}]"


def _argument(argument: Any) -> str:
    return f"- `{_usage(argument)}`: {_flowing(getattr(argument, 'help', '') or '')}"


def _choices(annotation: Any) -> tuple[str, ...]:
    """The values of an option that takes one of a few."""
    kinds = [kind for kind in (annotation, *typing.get_args(annotation)) if inspect.isclass(kind)]
    return tuple(_plain(value) for kind in kinds if issubclass(kind, Enum) for value in kind)


def _option(option: Any, choices: tuple[str, ...]) -> str:
    names = ", ".join(f"`{name}`" for name in option.opts)
    takes = " " + " or ".join(choices) if choices else f" {option.metavar}" if option.metavar else ""
    takes = "" if option.is_flag else takes
    return f"- {names}{takes}: {_flowing(option.help or '')}{_default(option)}"


def _default(option: Any) -> str:
    shown, value = getattr(option, "show_default", None), option.default
    if isinstance(shown, str):
        return f" Default: {shown}."
    if option.is_flag or value is None or value == () or not shown:
        return ""
    return f" Default: {_plain(value)}."


def _plain(value: object) -> str:
    return str(value.value if isinstance(value, Enum) else value)


# --- settings -----------------------------------------------------------------------------------------------


def settings() -> str:
    """The page of settings, from the docstrings of `edgetl.config`."""
    return _page(
        "Settings",
        "Every setting of a recipe with its default; `edgetl run RECIPE --set train.epochs=4` changes one.",
        _setting_parts(),
    )


def _setting_parts() -> Iterator[str]:
    yield from [
        "A recipe is TOML. A wrong key is refused with the nearest right one, and all errors come at once.",
        "The run folder gets `recipe.lock.toml`, in which every default is explicit.",
        "",
    ]
    for name, field in config.Recipe.model_fields.items():
        sections = _sections(field.annotation)
        if not sections:
            yield from [_setting(name, field), ""]
            continue
        for section in sections:
            kind = section.model_fields.get("kind")
            several = f', `kind = "{kind.default}"`' if kind is not None and len(sections) > 1 else ""
            yield from [f"## [{name}]{several}", "", _flowing(section.__doc__ or ""), ""]
            yield from [_setting(key, inner) for key, inner in section.model_fields.items()]
            yield ""
    yield from ["## A head of `task.heads`", "", _flowing(config.HeadConfig.__doc__ or ""), ""]
    yield from [_setting(key, inner) for key, inner in config.HeadConfig.model_fields.items()]


def _sections(annotation: Any) -> list[type[BaseModel]]:
    kinds = typing.get_args(annotation) if _is_union(annotation) else (annotation,)
    return [kind for kind in kinds if inspect.isclass(kind) and issubclass(kind, BaseModel)]


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def _setting(name: str, field: FieldInfo) -> str:
    return f"- `{name}` ({_usual(field.default)}): {_flowing(field.description or '')}"


def _usual(value: Any) -> str:
    if value is PydanticUndefined:
        return "must be set"
    if value is None:
        return "unset"
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    plain = [_plain(each) for each in plain] if isinstance(plain, tuple) else plain
    return f"`{as_toml(_plain(plain) if isinstance(plain, Enum) else plain)}`"


# --- Python -------------------------------------------------------------------------------------------------


def python() -> str:
    """The page of the Python interface, from docstrings."""
    return _page(
        "Python",
        "The Python interface, from its docstrings: loading and running bundles, runs, tests, errors.",
        _python_parts(),
    )


def _python_parts() -> Iterator[str]:
    from edgetl import config as recipes
    from edgetl import errors, pipeline
    from edgetl.gate import pytest_plugin
    from edgetl.runtime import Session, explain, load, session
    from edgetl.runtime.targets import Choice, EngineName
    from edgetl.tasks.classification.answers import Candidate, Prediction
    from edgetl.tasks.detection.answers import Detection, Detections
    from edgetl.tasks.multihead.answers import HeadsPrediction
    from edgetl.tasks.multilabel.answers import TagsPrediction

    yield from ["Shapes: N images of S by S pixels, H by W pixels of a picture, C classes.", ""]
    yield from ["## Load and predict", "", "Numpy, Pillow and one inference engine are enough.", ""]
    yield from _callable("edgetl.load", load)
    yield from _class("edgetl.Session", Session, ("run", "predict", "verify", "close"), init=False)
    yield from _class("edgetl.runtime.targets.Choice", Choice)
    yield from ["### Picture", "", _after(session, "Picture"), ""]
    yield from _class("edgetl.runtime.targets.EngineName", EngineName)
    yield from ["Values: " + ", ".join(f"`{name}`" for name in EngineName) + ".", ""]
    yield from ["## Predictions", "", "What `predict` gives depends on the bundle's task.", ""]
    answers = "edgetl.tasks"
    yield from _class(f"{answers}.classification.answers.Prediction", Prediction)
    yield from _class(f"{answers}.classification.answers.Candidate", Candidate)
    yield from _class(f"{answers}.multilabel.answers.TagsPrediction", TagsPrediction)
    yield from _class(f"{answers}.multihead.answers.HeadsPrediction", HeadsPrediction)
    yield from _class(f"{answers}.detection.answers.Detections", Detections)
    yield from _class(f"{answers}.detection.answers.Detection", Detection)
    yield from _class("edgetl.runtime.explain.Explained", explain.Explained)
    yield from _class(
        "edgetl.runtime.explain.ActivationMap", explain.ActivationMap, ("in_picture", "strength")
    )
    yield from ["## Make a model", "", "This needs the `train` extra.", ""]
    yield from _callable("edgetl.config.load", recipes.load)
    yield from _callable("edgetl.config.parse", recipes.parse)
    yield from _callable("edgetl.pipeline.run", pipeline.run)
    yield from _class("edgetl.pipeline.Outcome", pipeline.Outcome)
    yield from ["## Gates in pytest", "", "Installed with edgetl; nothing has to be imported.", ""]
    for name in ("edge_session", "edge_baseline", "edge_report", "assert_accuracy", "assert_latency"):
        yield from [f"- `{name}`: {_flowing(_fixture(pytest_plugin, name))}"]
    yield from [f"- `assert_footprint`: {_flowing(_fixture(pytest_plugin, 'assert_footprint'))}", ""]
    tree = (errors.__doc__ or "").partition("\n\n")[2].partition("\n\n")[0]
    yield from ["## Errors", "", "Every error that is the user's to mend is an `edgetl.EdgetlError`.", ""]
    yield from ["```text", _plain_tree(tree), "```", ""]


def _fixture(module: types.ModuleType, name: str) -> str:
    found = getattr(module, name)
    return inspect.getdoc(getattr(found, "__wrapped__", None) or found._get_wrapped_function()) or ""


def _plain_tree(text: str) -> str:
    lines = text.splitlines()
    drawn = [re.sub(r"[├└]── ", "|-- ", line).replace("│", "|") for line in lines]
    return "\n".join(drawn)


def _after(module: types.ModuleType, name: str) -> str:
    """The text that stands below an assignment in a module's source."""
    found = re.search(rf'^{name}: .*\n"""((?:.|\n)*?)"""', inspect.getsource(module), re.MULTILINE)
    assert found is not None, name
    return _flowing(found[1])


def _class(path: str, kind: type, methods: tuple[str, ...] = (), *, init: bool = True) -> Iterator[str]:
    yield from [f"### {path}", ""]
    fields = getattr(kind, "__dataclass_fields__", {})
    if init and fields:
        yield from ["```py", _fields(kind), "```", ""]
    yield from _docstring(kind)
    public = [(n, v) for n, v in vars(kind).items() if not n.startswith("_") and isinstance(v, property)]
    for name, value in public:
        yield f"- `{name}`: {_flowing(inspect.getdoc(value) or '')}"
    if public:
        yield ""
    for name in methods:
        yield from _callable(f"{kind.__name__}.{name}", getattr(kind, name), "####")


def _callable(path: str, function: Callable[..., Any], level: str = "###") -> Iterator[str]:
    yield from [f"{level} {path}", ""]
    yield from ["```py", _signature(function), "```", ""]
    yield from _docstring(function)


def _signature(function: Callable[..., Any]) -> str:
    """A function's head as its source has it, without `self`."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    assert isinstance(node, ast.FunctionDef)
    given = node.args
    usual = [None] * (len(given.args) - len(given.defaults)) + list(given.defaults)
    parts = [_parameter(*pair) for pair in zip(given.args, usual, strict=True) if pair[0].arg != "self"]
    named = [_parameter(*pair) for pair in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    parts += ["*", *named] if named else []
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    if len(short := f"{node.name}({', '.join(parts)}){result}") <= _LONG:
        return short
    return f"{node.name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){result}"


def _parameter(own: ast.arg, usual: ast.expr | None) -> str:
    text = f"{own.arg}: {ast.unparse(own.annotation)}" if own.annotation else own.arg
    return f"{text} = {ast.unparse(usual)}" if usual else text


def _fields(kind: type) -> str:
    """A record's fields with their types, as its source has them."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(node, ast.ClassDef)
    own = [each for each in node.body if isinstance(each, ast.AnnAssign)]
    return "\n".join(f"{ast.unparse(each.target)}: {ast.unparse(each.annotation)}" for each in own)


_HEADING = re.compile(r"^(Args|Returns|Raises|Attributes):$")


def _docstring(thing: object) -> Iterator[str]:
    """A docstring as Markdown: its sections become lists."""
    block: list[str] = []
    for line in [*(inspect.getdoc(thing) or "").splitlines(), ""]:
        if found := _HEADING.match(line):
            yield from [f"{found[1]}:", ""]
        elif line.strip():
            block.append(line)
        elif block:
            yield from [*_listed(block), ""]
            block = []
    assert not block


def _listed(block: list[str]) -> list[str]:
    if not block[0].startswith("    "):
        return [_flowing("\n".join(block))]
    items: list[str] = []
    for line in block:
        if line.startswith("     "):
            items[-1] += f" {line.strip()}"
        else:
            items.append(line.strip())
    return ["- " + re.sub(r"^([A-Za-z_]+):", r"`\1`:", item) for item in items]


def _flowing(text: str) -> str:
    """Text without the line breaks of its source; paragraphs stay apart."""
    parts = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip())]
    return "\n\n".join(parts)


PAGES: Mapping[str, Callable[[], str]] = {"commands": commands, "settings": settings, "python": python}
"""Names of pages with what makes them."""

if __name__ == "__main__":
    write()
