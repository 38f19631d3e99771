"""Images come home whole, once, within the limit; a device cannot write elsewhere here."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from edgetl.deploy.fleet.capture import Fetching, fetch
from edgetl.deploy.fleet.link import Calls
from edgetl.deploy.fleet.record import Brought
from edgetl.errors import DeviceAwayError, DeviceError
from edgetl.records.captured import LINES, CapturedImage, line, read
from tests.deploy.fleet.devices import Lab, place_of


def keep(root: Path, *contents: bytes, names: tuple[str, ...] = ()) -> list[Path]:
    """Let a device keep images; their files."""
    folder = root / "captured"
    folder.mkdir(exist_ok=True)
    made = []
    with (folder / LINES).open("ab") as lines:
        for number, content in enumerate(contents):
            name = names[number] if names else f"{hashlib.sha256(content).hexdigest()[:12]}.png"
            if "/" not in name:
                (folder / name).write_bytes(content)
            sha256 = hashlib.sha256(content).hexdigest()
            lines.write(
                line(
                    CapturedImage(
                        file=name,
                        sha256=sha256,
                        time="t",
                        reasons=("unsure",),
                        answer="a",
                        label="a",
                        score=0.4,
                    )
                )
            )
            made.append(folder / name)
    return made


def brought(lab: Lab, **wanted: object) -> Brought:
    place, told = place_of(lab.fleet(), Calls())
    found = fetch(place, Fetching(out=lab.folder / "home", **wanted), told).brought
    assert found is not None
    return found


PICTURES = [bytes([number]) * (1000 + 7 * number) + b"\n-1\n" for number in range(20)]


def test_images_come_home_once_and_are_removed_where_that_is_asked(lab: Lab) -> None:
    root = lab.device("line-1")
    files = keep(root, *PICTURES)
    first = brought(lab)
    home = lab.folder / "home" / "line-1"
    assert (first.new, first.images, first.left) == (20, 20, 0)
    assert first.size_bytes == sum(map(len, PICTURES))
    assert {path.name: path.read_bytes() for path in home.glob("*.png")} == {
        path.name: path.read_bytes() for path in files
    }
    images, torn = read((home / LINES).read_bytes().splitlines())
    assert ([image.file for image in images], torn) == ([path.name for path in files], 0)
    keep(root, b"new")
    second = brought(lab, remove=True)
    assert (second.new, second.images, second.removed) == (1, 21, 21)
    assert [path.name for path in (root / "captured").iterdir()] == [LINES]
    third = brought(lab)
    assert (third.new, third.images, third.gone) == (0, 21, 0)


def test_a_limit_leaves_the_rest_for_the_next_time(lab: Lab) -> None:
    keep(lab.device("line-1"), *(bytes([n]) * 400_000 for n in range(5)))
    first = brought(lab, limit_mb=1.0)
    assert (first.new, first.left) == (2, 3)
    assert brought(lab, limit_mb=1.0).new == 2
    assert brought(lab, limit_mb=1.0).new == 1


def test_a_connection_that_breaks_leaves_whole_images(lab: Lab) -> None:
    keep(lab.device("line-1"), *PICTURES)
    lab.cut("line-1", 4, "after")
    with pytest.raises(DeviceAwayError):
        brought(lab)
    home = lab.folder / "home" / "line-1"
    assert len(read((home / LINES).read_bytes().splitlines())[0]) == len(list(home.glob("*.png"))) == 16
    assert brought(lab).new == 4


def test_what_is_broken_or_leads_elsewhere_is_counted_and_not_taken(lab: Lab) -> None:
    root = lab.device("line-1")
    files = keep(root, b"good", b"altered", b"gone")
    files[1].write_bytes(b"altered!")
    files[2].unlink()
    keep(root, b"evil", names=("../../evil.png",))
    with (root / "captured" / LINES).open("ab") as lines:
        lines.write(b'{"file": "torn')
    found = brought(lab)
    assert (found.new, found.broken, found.gone, found.torn) == (1, 1, 1, 2)
    assert not list(lab.folder.rglob("evil.png"))
    assert found.images == 1


def test_a_device_that_answers_too_much_is_broken_off(lab: Lab) -> None:
    keep(lab.device("line-1"), b"x")
    lab.program("wc", 'if test "$1" = -c; then echo 3; else exec /usr/bin/wc "$@"; fi')
    lab.program("cat", 'case $1 in *.png) head -c 3000000 /dev/zero ;; *) exec /bin/cat "$@" ;; esac')
    with pytest.raises(DeviceError, match="it answered more than 1 MB where less was asked for"):
        brought(lab, limit_mb=1.0)


def test_a_device_that_keeps_none_is_told_how(lab: Lab) -> None:
    root = lab.device("line-1")
    with pytest.raises(DeviceError, match="it has no folder captured in edgetl"):
        brought(lab)
    (root / "captured").mkdir()
    assert brought(lab).images == 0
