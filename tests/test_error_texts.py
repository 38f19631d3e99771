"""Every error that the code can raise has a test that knows its words, and every class one that knows its remedy.

Both sides are read, not run: the literal texts of errors in `edgetl/`, and every literal text in `tests/`. A test knows
an error where a piece of its own text, regular expressions taken apart, is a piece of the error's.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from edgetl import errors

ROOT = Path(__file__).parent.parent
LEAST = 16
"""Characters that a test's text and an error's must share: fewer are shared by chance."""
COMMON = 2
"""Errors' texts that may have them in common; what more have tells none of them."""
SHORT = 12
"""Characters of the shortest piece that is looked at."""
WILD = re.compile(r"(?<!\\)(?:\.[*+]\??|\\[dwsbS]\+?|\[[^\]]*\][*+]?|\(\?[:=!P]|[|()^$])")
"""What stands for any text in a pattern."""
_VERBS = (
    r"add|allow|ask|bring|build|change|check|choose|close|compare|compile|copy|create|delete|fetch|finish|fit|fix|free"
    r"|get|give|go on|increase|install|leave|let|list|load|lower|make|mark|measure|mend|move|name|open|pass|point|put"
    r"|raise|read|reconnect|redirect|remove|rename|run|save|send|set|show|sign|start|stop|take|train|try|turn|unpack"
    r"|update|upgrade|use|wait|write"
)
REMEDY = re.compile(
    rf"(?:^|[.;:,?!]\s|\b(?:or|and|then)\s)(?:{_VERBS})\b|\bexpected\b|\bWith --|Did you mean", re.IGNORECASE
)
"""What tells the reader what to do: a verb that begins a clause, what was expected, or the name that was meant."""
UNTOLD = 46
"""Errors without a test that knows their words: only ever lowered."""


@dataclass(frozen=True)
class Site:
    """A place that makes an error: its class, where it is, and the literal pieces of its message in order."""

    kind: str
    place: str
    pieces: tuple[str, ...]


@cache
def _kinds() -> set[str]:
    return {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.EdgetlError)
    }


def _pieces(node: ast.AST, named: dict[str, list[ast.expr]]) -> Iterator[str]:
    """The literal texts of an expression, in order; of a variable those that its function gives it."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            yield node.value
    elif isinstance(node, ast.Name):
        for value in named.get(node.id, ()):
            yield from _pieces(value, {})
    else:
        for child in ast.iter_child_nodes(node):
            yield from _pieces(child, named)


def _assigned(function: ast.AST) -> dict[str, list[ast.expr]]:
    """What a function gives to its variables."""
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign | ast.AugAssign) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    found.setdefault(target.id, []).append(node.value)
    return found


@cache
def sites() -> tuple[Site, ...]:
    """Every call of an error's class with words of its own."""
    found: dict[tuple[Path, int, int], Site] = {}
    for path in sorted((ROOT / "edgetl").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            named: dict[str, list[ast.expr]] | None = None
            for node in ast.walk(function):
                if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute)):
                    continue
                name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                if name not in _kinds():
                    continue
                named = _assigned(function) if named is None else named
                words = (text for arg in node.args for text in _pieces(arg, named or {}))
                pieces = tuple(text for text in words if len(text.strip()) >= SHORT)
                if pieces:  # The innermost function comes last, and knows its variables best.
                    place = f"{path.relative_to(ROOT)}:{node.lineno}"
                    found[path, node.lineno, node.col_offset] = Site(name, place, pieces)
    return tuple(found.values())


@cache
def known() -> str:
    """The tests' literal texts, taken apart where they are patterns, one piece a line."""
    lines = set()
    for path in sorted((ROOT / "tests").rglob("*.py")):
        if path == Path(__file__):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) >= SHORT:
                plain = node.value.replace("\\\\", "\\")
                for part in WILD.split(plain):
                    lines.add(re.sub(r"\\(.)", r"\1", part))
                lines.add(node.value)
    return "\n".join(sorted(line for line in lines if len(line) >= SHORT))


@cache
def shared() -> Counter[str]:
    """In how many different texts of errors each run of `LEAST` characters stands."""
    texts = {piece for site in sites() for piece in site.pieces}
    return Counter(run for text in texts for run in {*_runs(text)})


def _runs(text: str) -> Iterator[str]:
    text = text.strip()
    size = min(LEAST, len(text))
    return (text[at : at + size] for at in range(len(text) - size + 1))


@cache
def told_runs() -> frozenset[str]:
    """Those runs of errors' texts that a test knows and that are not common to many."""
    rare = {run for run, texts in shared().items() if texts <= COMMON}
    text = known()
    whole = {run for at in range(len(text) - LEAST + 1) if (run := text[at : at + LEAST]) in rare}
    return frozenset(whole | {run for run in rare if len(run) < LEAST and run in text})


def told(text: str) -> bool:
    """Whether a test knows a run of `LEAST` characters of a text that is not common to many."""
    return not told_runs().isdisjoint(_runs(text))


def test_nearly_every_error_has_a_test_that_knows_its_words() -> None:
    assert len(sites()) > 500
    missing = [site for site in sites() if not any(map(told, site.pieces))]
    lines = [f"{site.place} {site.kind}: {' ... '.join(site.pieces)[:100]}" for site in missing]
    assert len(missing) <= UNTOLD, "give these a test, or some others:\n" + "\n".join(lines)


def test_each_class_of_errors_has_a_test_that_knows_a_remedy() -> None:
    """Of the classes that are raised with words of their own; those above others, and Interrupted, are told apart."""
    told_of = {site.kind for site in sites() if any(told(p) and REMEDY.search(p) for p in site.pieces)}
    assert _kinds() - told_of == {"EdgetlError"}, "give one of its errors a remedy, and that a test"


def test_a_text_that_no_test_knows_is_seen_as_such() -> None:
    assert not told(" zebras are ridden by nobody at night; take a horse.")
    assert REMEDY.search("x is not a bundle. Get a fresh copy.")
    assert REMEDY.search("got 3, expected 4")
    assert not REMEDY.search(" is too large to be true.")
