"""`edgetl guide`: which page is meant, and how it is shown."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from edgetl import guide
from edgetl.errors import ConfigError
from edgetl.report.terminal import guide as terminal
from tests.cli.typed import edgetl


def _shown(page: guide.Page, *, colour: bool = False, width: int = 80) -> str:
    stream = io.StringIO()
    system = "standard" if colour else None
    terminal.guide(Console(file=stream, force_terminal=True, color_system=system, width=width), page)
    return stream.getvalue()


@pytest.mark.parametrize("name", ["prune", "Prune", "prune.md", "pruning"])
def test_a_topic_is_found_by_its_name_or_its_title(name: str) -> None:
    found = guide.page(name)
    assert found.topic is not None
    assert found.topic.name == "prune"
    assert found.text.startswith("# Pruning\n")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("cookbok", "There is no topic 'cookbok'. Did you mean cookbook? Type: edgetl guide cookbook"),
        ("prunning", "There is no topic 'prunning'. Did you mean prune? Type: edgetl guide prune"),
        ("gunicorn", "There is no topic 'gunicorn'. The word stands in device. Type: edgetl guide device"),
        ("camera", "There is no topic 'camera'. The word stands in adapt, "),
        ("qqqq", "There is no topic 'qqqq'. There are install, start, cookbook, "),
        ("..", "There is no topic '..'. There are install, "),
    ],
)
def test_a_wrong_topic_names_the_right_one(word: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        guide.page(word)
    assert str(raised.value).startswith(message)


def test_a_pipe_gets_the_markdown_as_it_is() -> None:
    done = edgetl("guide", "prune")
    assert (done.returncode, done.stdout) == (0, guide.page("prune").text)
    assert edgetl("guide").stdout == guide.page().text
    wrong = edgetl("guide", "cookbok")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == (
        "Error: There is no topic 'cookbok'. Did you mean cookbook? Type: edgetl guide cookbook\n"
    )


def test_json_lists_the_topics_or_gives_a_page() -> None:
    listed = json.loads(edgetl("guide", "--json").stdout)
    assert [topic["name"] for topic in listed][:3] == ["install", "start", "cookbook"]
    assert all(topic["summary"].endswith(".") for topic in listed)
    page = json.loads(edgetl("guide", "gate", "--json").stdout)
    assert page["topic"]["name"] == "gate"
    assert page["text"] == guide.page("gate").text


def test_a_terminal_gets_a_page_laid_out_and_links_as_what_to_type() -> None:
    text = (
        "# Title\n\nSee [pruning](prune.md#why), [a file](../keys.py) and `x`.\n\n```sh\nedgetl run a\n```\n"
    )
    page = guide.Page(topic=guide.Topic(name="x", summary="y"), text=text)
    plain = _shown(page)
    assert "\x1b[3" not in plain
    assert "See pruning (edgetl guide prune), a file and x." in plain
    assert "edgetl run a" in plain
    assert ".md" not in plain
    assert "\x1b[" in _shown(page, colour=True)


def test_eighty_columns_are_enough_for_every_word() -> None:
    cut = [topic.name for topic in guide.topics() if "\u2026" in _shown(guide.page(topic.name))]
    assert cut == []


@pytest.mark.parametrize("width", [40, 200])
def test_every_page_can_be_laid_out(width: int) -> None:
    for topic in guide.topics():
        shown = _shown(guide.page(topic.name), width=width)
        assert max(map(len, shown.splitlines())) <= min(width, 100), topic.name
    assert "cookbook: Problems that everyone meets" in " ".join(_shown(guide.page()).split())
