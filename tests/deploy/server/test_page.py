"""The page: served whole and from here alone; in a browser it answers pictures and the camera, by every task."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgetl.deploy.server.options import ServerOptions
from tests import squares
from tests.bundles import picture
from tests.deploy.server import browser as browsers
from tests.deploy.server.serving import LIMITS, Running, serving
from tests.runtime.test_tasks import TASKS, linear_bundle

TOKEN = "a-token-of-many-letters"


def test_the_page_is_served_whole_and_loads_from_here_alone(server: Running) -> None:
    page = server.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'; script-src 'self'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    text = page.body.decode()
    for name, kind in (("page.css", "text/css"), ("page.js", "text/javascript")):
        assert f'"{name}"' in text
        got = server.get(f"/{name}")
        assert got.headers["content-type"].startswith(kind)
        text += got.body.decode()
    assert re.findall(r"(?:https?:)?//[a-z]", text) == []


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browsers.Browser]:
    if browsers.find() is None:
        pytest.skip("Chromium is not installed")
    with browsers.browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


def test_a_browser_shows_answers(tab: browsers.Browser, bundles: Path, tmp_path: Path) -> None:
    (tmp_path / "flower.png").write_bytes(picture(5))
    (tmp_path / "squares.png").write_bytes(squares.encoded(squares.drawn(squares.squares(5))))
    paths = {name: bundles / f"{name}.edgetl" for name in ("flowers", "squares")}
    paths["heads"] = linear_bundle(tmp_path, TASKS[-1])
    options = ServerOptions(port=0, limits=LIMITS, watch_seconds=0, token=TOKEN)
    with serving(paths, options) as running:
        tab.open(running.url, 1280, 900)
        tab.until("!document.getElementById('token-field').hidden")
        tab.run(
            f"document.getElementById('token').value = '{TOKEN}'; document.getElementById('use-token').click()"
        )
        tab.until("document.getElementById('model').options.length === 3")
        tab.choose("#file", tmp_path / "flower.png")
        tab.until("/%$/.test(document.getElementById('text').textContent)")
        wanted = running.post("/v1/models/flowers:predict", picture(5), {"authorization": f"Bearer {TOKEN}"})
        assert tab.run("document.getElementById('text').textContent") == wanted.json["text"]
        assert tab.run("document.querySelectorAll('#labels li').length") == 3
        tab.run("document.getElementById('where').click()")
        tab.until("document.getElementById('problem').hidden")
        tab.screenshot(tmp_path / "flowers-1280.png")
        tab.run(
            "document.getElementById('model').value = 'squares';"
            "document.getElementById('model').dispatchEvent(new Event('change'))"
        )
        tab.choose("#file", tmp_path / "squares.png")
        tab.until("document.querySelectorAll('#labels .swatch').length === 3")
        tab.run(
            "document.getElementById('model').value = 'heads';"
            "document.getElementById('model').dispatchEvent(new Event('change'))"
        )
        tab.until("document.querySelectorAll('#labels h3').length === 2")
        tab.open(running.url, 390, 844)
        tab.until("!document.getElementById('token-field').hidden")
        tab.run(
            f"document.getElementById('token').value = '{TOKEN}'; document.getElementById('use-token').click()"
        )
        tab.until("document.getElementById('model').options.length === 3")
        tab.run(
            "document.getElementById('model').value = 'squares';"
            "document.getElementById('model').dispatchEvent(new Event('change'))"
        )
        tab.choose("#file", tmp_path / "squares.png")
        tab.until("document.querySelectorAll('#labels .swatch').length === 3")
        assert tab.run("document.documentElement.scrollWidth <= 390")
        tab.screenshot(tmp_path / "squares-390.png")
        tab.run("document.getElementById('camera').click()")
        tab.until("Number(document.getElementById('rate').textContent) > 0")
        assert tab.run("document.getElementById('problem').hidden")
        assert tab.run("document.getElementById('shown').width") > 0
        tab.run("document.getElementById('camera').click()")
        named = [
            (role, name)
            for role, name in tab.names()
            if role in ("button", "combobox", "checkbox", "textbox", "image")
        ]
        assert len(named) >= 4
        assert [role for role, name in named if not name] == []
        small = tab.run(
            "[...document.querySelectorAll('button,select,.button,.check')].filter((one) => one.offsetParent)"
            ".filter((one) => one.getBoundingClientRect().height < 44).length"
        )
        assert small == 0
