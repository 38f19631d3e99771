from __future__ import annotations

from edgetl.text import few, first_line


def test_names_beyond_the_first_are_counted() -> None:
    assert few(["a", "b", "c"]) == "a, b, c"
    assert few(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
    assert few(["a", "b", "c"], 2, by="; ") == "a; b and 1 more"
    assert few([]) == ""


def test_an_error_s_first_line() -> None:
    assert first_line(ValueError("\n one\ntwo")) == "one"
    assert first_line(KeyboardInterrupt()) == "KeyboardInterrupt"
