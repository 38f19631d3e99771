from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from edgetl.data import labels
from edgetl.data.index import build_index
from edgetl.errors import DataError
from tests.data.images import Recorder, Settings, fill, write

UNUSABLE = {
    "a\nb": "control character",
    "a\rb": "control character",
    "a\tb": "control character",
    "a\x1b[31mb": "control character",
    "a\x85b": "control character",
    "a\u2028b": "control character",
    "caf\udce9": "not UTF-8",
    "\u200b": "is empty",
    "x" * 201: "at most 200",
}


@pytest.mark.parametrize("label", UNUSABLE)
def test_a_name_that_breaks_lines_or_is_no_text_is_refused(label: str) -> None:
    assert UNUSABLE[label] in labels.fault(label)


@pytest.mark.parametrize(
    "label", ["cat", "猫", "mit Lücke", "a_b-c.d", "0", "café", "cat ", "हिन्दी", "ไทย", "👍🏽"]
)
def test_other_names_are_taken(label: str) -> None:
    assert labels.fault(label) == ""


@pytest.mark.parametrize("other", ["Cat", "cat ", "cat\u200b", "\u00adcat", "\uff43at", " cat"])
def test_names_that_look_the_same_are_grouped(other: str) -> None:
    assert labels.alike(["cat", "dog", other]) == (("cat", other),)


@pytest.mark.parametrize("pair", [("1", "-1"), ("resume", "résumé"), ("a b", "ab"), ("कि", "की")])
def test_names_that_look_different_are_not(pair: tuple[str, str]) -> None:
    assert labels.alike(pair) == ()


def test_the_question_shows_what_is_invisible() -> None:
    assert "'cat' and 'cat\\u200b'" in labels.question([("cat", "cat\u200b")])


def test_an_index_asks_and_refuses(tmp_path: Path) -> None:
    root = fill(tmp_path / "set", {"cat": 4, "Cat": 4, "dog": 4})
    recorder = Recorder()
    assert build_index(Settings(source=str(root)), progress=recorder).labels == ("Cat", "cat", "dog")
    assert recorder.warnings == [labels.question([("Cat", "cat")])]
    write(root / "two\nlines" / "x.png", 77)
    with pytest.raises(DataError, match=r"need other names:\n  the class name 'two\\nlines' holds a control"):
        build_index(Settings(source=str(root)))


def test_forms_of_one_name_are_one_class(tmp_path: Path) -> None:
    root = fill(tmp_path, {unicodedata.normalize(form, "café"): 3 for form in ("NFC", "NFD")} | {"b": 4})
    assert build_index(Settings(source=str(root))).labels == ("b", "café")
