"""The pages that are made from the code say what it says."""

from __future__ import annotations

import pytest

from edgetl import config
from tests.guide import generated


@pytest.mark.parametrize("name", generated.PAGES)
def test_a_page_is_what_the_code_makes_of_it(name: str) -> None:
    text = (generated.FOLDER / f"{name}.md").read_text(encoding="utf-8")
    assert text == generated.PAGES[name](), "make it anew: python -m tests.guide.generated"


def test_every_command_and_setting_is_there() -> None:
    commands = generated.commands()
    assert [name for name in generated.all_commands() if f"## edgetl {name}\n" not in commands] == []
    settings = generated.settings()
    names = [name.rpartition(".")[2] for name in config.dotted_names()]
    assert len(names) > 100
    assert [name for name in names if f"- `{name}` (" not in settings] == []


def test_a_docstring_s_sections_become_lists() -> None:
    def thing() -> None:
        """What it does,
        on two lines.

        Args:
            size: in pixels,
                of a side.
            name: of it.

        Raises:
            ValueError: it is wrong.
        """

    assert list(generated._docstring(thing)) == [
        *("What it does, on two lines.", ""),
        *("Args:", "", "- `size`: in pixels, of a side.", "- `name`: of it.", ""),
        *("Raises:", "", "- `ValueError`: it is wrong.", ""),
    ]
