"""How the classes of a set are related: a recipe's `labels.tree` or `labels.graph`, read and set beside the classes."""

from __future__ import annotations

import dataclasses
import tomllib
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from edgetl.data.index import DataIndex
from edgetl.data.labels import fault
from edgetl.data.sources import csv_lines
from edgetl.errors import ConfigError, DataError
from edgetl.failures import cause, remedy
from edgetl.tasks.base import Classification
from edgetl.tasks.relations import Graph, Relation, Tree, misfit


class RelationSettings(Protocol):
    """Where the relation stands; `edgetl.config.LabelsConfig` is one, with the meaning of each field."""

    @property
    def tree(self) -> str | None: ...  # noqa: D102
    @property
    def graph(self) -> str | None: ...  # noqa: D102


def read_relation(config: RelationSettings) -> Relation | None:
    """The relation that a recipe names; None where it names none. Which classes there are is not asked.

    Raises:
        ConfigError: the file cannot be read, or holds no relation.
    """
    if config.tree is not None:
        return _tree(Path(config.tree))
    return None if config.graph is None else _graph(Path(config.graph))


def related(index: DataIndex, config: RelationSettings) -> DataIndex:
    """An index whose task knows the relation that a recipe names; the index itself where it names none.

    Raises:
        ConfigError: as `read_relation`; or the relation is not one of the index's classes, or these are not one per
            image.
    """
    relation = read_relation(config)
    if relation is None:
        return index
    where = _where(relation, Path(config.tree or config.graph or ""))
    if not isinstance(index.task, Classification):
        raise ConfigError(
            f"{where}: relations are for one class per image, and the data is of the task {index.task.kind}; leave"
            f" labels.{relation.kind} out."
        )
    if found := misfit(relation, index.labels):
        raise ConfigError(f"{where}: {found}.")
    return dataclasses.replace(index, asked=dataclasses.replace(index.task, relation=relation))


def _where(relation: Relation, path: Path) -> str:
    return f"labels.{relation.kind} = {path}"


def _tree(path: Path) -> Tree:
    where = f"labels.tree = {path}"
    match path.suffix.lower():
        case ".toml":
            pairs = list(_toml_pairs(path, where))
        case ".csv":
            pairs = [(child, parent) for _, (parent, child) in _rows(path, where, ("parent", "child"))]
        case _:
            raise ConfigError(
                f'{where}: expected a .toml with parent = ["child", ...], or a .csv with the columns parent, child.'
            )
    parents: dict[str, str] = {}
    for child, parent in pairs:
        if child in parents:
            twice = (
                f"in {parent} twice" if parents[child] == parent else f"in {parents[child]} and in {parent}"
            )
            raise ConfigError(
                f"{where}: {child} is {twice}; each name has one place in a tree, remove the other."
            )
        parents[child] = parent
    try:
        return Tree(parents=dict(sorted(parents.items())))
    except ValueError as error:
        raise ConfigError(f"{where}: {error}.") from None


def _toml_pairs(path: Path, where: str) -> Iterator[tuple[str, str]]:
    """(child, parent) of each name, from a table of parent = ["child", ...]."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{where}: it cannot be read: {cause(error)}. {remedy(error)}".rstrip()) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: it is not text in UTF-8 ({error.reason}); save it as UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: it is not valid TOML: {error}.") from None
    for parent, children in table.items():
        if not isinstance(children, list) or not children or not all(isinstance(c, str) for c in children):
            raise ConfigError(
                f'{where}: {parent} is {children!r:.60}, expected a list of names, as in {parent} = ["a", "b"]; a name'
                " with a dot stands in quotes."
            )
        for child in children:
            yield _name(child, where), _name(parent, where)


def _graph(path: Path) -> Graph:
    where = f"labels.graph = {path}"
    if path.suffix.lower() != ".csv":
        raise ConfigError(f"{where}: expected a .csv with the columns a, b, weight.")
    edges: dict[tuple[str, str], float] = {}
    for line, (one, other, text) in _rows(path, where, ("a", "b", "weight")):
        try:
            length = float(text)
        except ValueError:
            raise ConfigError(
                f"{where}: line {line}: weight is {text!r}, expected a number above 0."
            ) from None
        if one == other:
            raise ConfigError(f"{where}: line {line}: {one} is joined to itself; remove the line.")
        ends = (min(one, other), max(one, other))
        if ends in edges:
            raise ConfigError(
                f"{where}: line {line}: {one} and {other} are joined twice; keep one of the lines."
            )
        edges[ends] = length
    try:
        return Graph(edges=tuple((*ends, length) for ends, length in sorted(edges.items())))
    except ValueError as error:
        raise ConfigError(f"{where}: {error}.") from None


def _rows(path: Path, where: str, columns: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """(line, the columns' cells) of a CSV, of which all but a last `weight` are names."""
    if not path.is_file():
        what = "it is a folder, and a file was expected" if path.is_dir() else "no such file"
        raise ConfigError(f"{where}: it cannot be read: {what}. Check the path.")
    try:
        lines = csv_lines(path)
    except DataError as error:
        raise ConfigError(f"{where}: {error}") from None
    header = [cell.strip().casefold() for cell in lines[0]] if lines else []
    if lacking := [name for name in columns if header.count(name) != 1]:
        raise ConfigError(
            f"{where}: its first line is {', '.join(header) or 'empty'}, expected the columns {', '.join(columns)}"
            f" ({' and '.join(lacking)} must be there once)."
        )
    places = [header.index(name) for name in columns]
    for number, cells in enumerate(lines[1:], start=2):
        if not any(cell.strip() for cell in cells):
            continue
        row = [cells[at].strip() if at < len(cells) else "" for at in places]
        named = zip(columns, row, strict=True)
        yield number, [text if name == "weight" else _name(text, where, number) for name, text in named]


def _name(text: str, where: str, line: int | None = None) -> str:
    """A class's or group's name as sets have them."""
    name = unicodedata.normalize("NFC", text.strip())
    if found := fault(name):
        raise ConfigError(
            f"{where}: {'' if line is None else f'line {line}: '}{found.replace('the class', 'the', 1)}."
        )
    return name
