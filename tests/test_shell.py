"""Printed commands: pasted into a shell they mean what was meant."""

from __future__ import annotations

import ast
import os
import re
import subprocess
from pathlib import Path

import pytest
import typer

from edgetl import shell
from edgetl.cli import app

PACKAGE = Path(__file__).parent.parent / "edgetl"
NAMES = [
    "plain.toml",
    "two words.toml",
    "quote's.toml",
    '"$HOME`ls`.toml',
    "~odd.toml",
    "-dash.toml",
    "line\nbreak.toml",
    "\x1b[31mred.toml",
    "café.toml",
    os.fsdecode(b"caf\xe9 'x'.toml"),
    "back\\slash\t.toml",
    "",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_shell_reads_the_words_back(name: str) -> None:
    line = shell.join(["printf", "%s", name])
    assert name == "" or all(c.isprintable() for c in line)
    done = subprocess.run(["bash", "-c", line], stdout=subprocess.PIPE, check=True)
    assert done.stdout == os.fsencode(name)


def test_a_path_that_begins_with_a_dash_is_not_taken_for_an_option() -> None:
    assert shell.command("info", Path("-x.edgetl")) == "edgetl info ./-x.edgetl"
    assert shell.command("info", "--json", Path("a b")) == "edgetl info --json 'a b'"


def test_no_command_is_put_together_by_hand() -> None:
    """A name inside of a printed command is quoted in one place."""
    names = "|".join(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    inside = re.compile(rf"\bedgetl ({names})( check)?( [A-Z_]+| -{{1,2}}[\w-]+)* \0")
    by_hand = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [str(p.value) if isinstance(p, ast.Constant) else "\0" for p in node.values]
                if inside.search("".join(parts)):
                    by_hand.append(f"{path.relative_to(PACKAGE)}:{node.lineno}: {''.join(parts)}")
    assert by_hand == []
