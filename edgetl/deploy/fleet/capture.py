"""`edgetl fleet capture`: the images that devices kept, brought home, each checked against the hash of its line.

Pictures come first and lines after them, both written atomically, so that a folder here is always one that
`edgetl data add` takes; what is here already is not fetched again.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgetl.deploy.fleet.place import Place, quoted
from edgetl.deploy.fleet.record import Brought, DeviceRecord, Outcome
from edgetl.deploy.fleet.work import Reporter
from edgetl.errors import DeviceError
from edgetl.files import sha256_bytes, sha256_file, write_bytes
from edgetl.records.captured import LINES, CapturedImage, line, read

BATCH = 16
"""Pictures of one command."""
MOST_PICTURE_BYTES = 64 << 20
_MOST_LINES_BYTES = 64 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")
_HEX = re.compile(r"[0-9a-f]{64}")
_NONE, _LARGE = -1, -2
"""What a device says of a picture that is not there, and of one that is over the limit."""


@dataclass(frozen=True, kw_only=True)
class Fetching:
    """What is brought home.

    Attributes:
        out: a folder, which gets one for each device.
        limit_mb: MiB that come from a device in one command.
        remove: remove pictures from the device once they are here, so that it has room for further ones.
    """

    out: Path
    limit_mb: float = 200.0
    remove: bool = False


def fetch(place: Place, wanted: Fetching, reporter: Reporter) -> DeviceRecord:
    """Bring a device's images home.

    Raises:
        DeviceError: it keeps none, or answers what no device would.
        StorageError: they cannot be written here.
    """
    reporter.step("look")
    seen = place.look()
    place.clock(seen)
    reporter.step("list")
    images, torn = _listed(place)
    home = wanted.out / place.device.name
    todo = [image for image in images if not _is_here(home, image)]
    reporter.step("fetch")
    left, new, size, gone, broken = int(wanted.limit_mb * (1 << 20)), 0, 0, 0, 0
    later = 0
    for at in range(0, len(todo), BATCH):
        batch = todo[at : at + BATCH]
        if left <= 0:
            later += len(todo) - at
            break
        with tempfile.TemporaryFile() as file:
            _ask(place, batch, left, file)
            file.seek(0)
            for image in batch:
                number, content = _picture(file)
                if number == _LARGE:
                    later += 1
                elif number == _NONE:
                    gone += 1
                elif sha256_bytes(content) != image.sha256:
                    broken += 1
                else:
                    write_bytes(home / image.file, content)
                    new, size, left = new + 1, size + number, left - number
        reporter.bytes(size)
        _write_lines(home, images)
    here = [image for image in images if _is_here(home, image)]
    if images:
        _write_lines(home, images)
    removed = 0
    if wanted.remove and here:
        reporter.step("remove")
        removed = _remove(place, here)
    brought = Brought(
        folder=str(home),
        images=len(_at_home(home)),
        new=new,
        size_bytes=size,
        left=later,
        gone=gone,
        broken=broken,
        torn=torn,
        removed=removed,
    )
    rest = f" {later} more are to come: run the command again." if later else ""
    sentence = f"{new} new images in {home}.{rest}"
    return reporter.record(Outcome.DONE, sentence, brought=brought, current=seen.state.current)


def _listed(place: Place) -> tuple[list[CapturedImage], int]:
    """The images that the device keeps, each once, and how many lines are none."""
    folder = _folder(place)
    answer = place.link.call(
        f"cd {folder} 2>/dev/null || exit 92; test -f {LINES} || exit 93; cat {LINES}",
        most_bytes=_MOST_LINES_BYTES,
    )
    if answer.code == 92:
        raise DeviceError(
            f"it has no folder {place.device.captured} in {place.device.folder}. Images are kept by: edgetl predict"
            " current.edgetl camera:0 --capture captured"
        )
    if answer.code == 93:
        return [], 0
    if answer.code != 0:
        raise DeviceError(f"its kept images cannot be read: {answer.last_words}.")
    images, torn = read(answer.out.splitlines())
    # The names are the device's, and lead nowhere else here.
    good = {
        image.file: image
        for image in images
        if _NAME.fullmatch(image.file) and image.file != LINES and _HEX.fullmatch(image.sha256)
    }
    return list(good.values()), torn + sum(image.file not in good for image in images)


def _folder(place: Place) -> str:
    kept = place.device.captured
    inside = kept if kept.startswith(("/", "~/")) else f"{place.device.folder}/{kept}"
    return quoted(inside)


def _ask(place: Place, batch: Sequence[CapturedImage], left: int, file: IO[bytes]) -> None:
    """Let the device write each picture's size and bytes into `file`, as long as they fit into `left` bytes."""
    names = " ".join(image.file for image in batch)
    one = f'if test "$s" -gt "$left" || test "$s" -gt {MOST_PICTURE_BYTES}; then echo {_LARGE}; else'
    script = (
        f"cd {_folder(place)} || exit 92; left={left}; for f in {names}; do if test -f $f; then s=$(wc -c < $f);"
        f" s=$((s)); {one} echo $s; cat $f; left=$((left - s)); fi; else echo {_NONE}; fi; done"
    )
    # A picture may grow no larger than what was asked for, whatever the device says.
    answer = place.link.call(script, sink=file, most_bytes=left + (1 << 16))
    if answer.code != 0:
        raise DeviceError(
            f"its kept images cannot be read: {answer.last_words or f'exit code {answer.code}'}."
        )


def _picture(file: IO[bytes]) -> tuple[int, bytes]:
    """The next picture's size and bytes; a size below zero stands for none."""
    head = file.readline(32).strip()
    if head in (b"-1", b"-2"):
        return int(head), b""
    if not head.isdigit() or int(head) > MOST_PICTURE_BYTES:
        raise DeviceError("it answered no size of a picture where one was expected.")
    size = int(head)
    content = file.read(size)
    if len(content) != size:
        raise DeviceError("its answer ended in the midst of a picture.")
    return size, content


def _is_here(home: Path, image: CapturedImage) -> bool:
    path = home / image.file
    return path.is_file() and sha256_file(path) == image.sha256


def _at_home(home: Path) -> list[CapturedImage]:
    try:
        return read((home / LINES).read_bytes().splitlines())[0]
    except FileNotFoundError:
        return []


def _write_lines(home: Path, images: Sequence[CapturedImage]) -> None:
    """The lines of all pictures that are here, those of earlier commands first."""
    known = {image.file: image for image in _at_home(home)}
    known |= {
        image.file: image for image in images if image.file not in known and (home / image.file).is_file()
    }
    write_bytes(home / LINES, b"".join(line(image) for image in known.values()))


def _remove(place: Place, images: Sequence[CapturedImage]) -> int:
    """Remove pictures there; their lines stay, and tell the device what it has kept before. How many were removed."""
    removed = 0
    for at in range(0, len(images), 256):
        names = " ".join(image.file for image in images[at : at + 256])
        script = (
            f"cd {_folder(place)} || exit 92; n=0; for f in {names}; do test -f $f && rm -f $f && n=$((n + 1)); done;"
            " echo $n"
        )
        answer = place.link.call(script)
        words = answer.text.split()
        removed += int(words[-1]) if words and words[-1].isdigit() else 0
    return removed
