"""Mutated images and bundles: an answer or one of our errors; never a crash, a hang or a traceback.

Work is done in a child process, part by part, so that a crash is seen as what it is; each part has a time limit.
"""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from edgetl.bundle import archive
from edgetl.bundle.pack import pack
from tests.bundles import contents, picture

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]

CASES = int(os.environ.get("EDGETL_FUZZ", "20000"))
PART = 1000
PART_SECONDS = 300

IMAGES = """
import random, sys, warnings
from pathlib import Path
import edgetl
from tests.slow.test_fuzz import mutate, seeds
warned = []
warnings.simplefilter("always")
warnings.showwarning = lambda message, *_, **__: warned.append(str(message))
bundle, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
answers = errors = 0
originals = seeds()
with edgetl.load(bundle, threads=1) as session:
    for case in range(first, first + count):
        generator = random.Random(case)
        content = mutate(generator.choice(originals), generator)
        try:
            session.predict(content)
            answers += 1
        except edgetl.EdgetlError as error:
            assert str(error).strip() and "\\n" not in str(error), repr(error)
            errors += 1
        assert not warned, warned
print(answers, errors)
"""
BUNDLES = """
import random, sys
from pathlib import Path
import edgetl
from tests.bundles import picture
from tests.slow.test_fuzz import mutate, with_manifest
bundle, first, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
answers = errors = 0
original, image = bundle.read_bytes(), picture(0)
path = bundle.with_name(f"fuzz-{first}.edgetl")
for case in range(first, first + count):
    # Every other one is sealed anew after its manifest was changed, as someone who means harm would do.
    if case % 2:
        with_manifest(bundle, path, random.Random(case))
    else:
        path.write_bytes(mutate(original, random.Random(case)))
    try:
        with edgetl.load(path, threads=1) as session:
            session.predict(image)
            session.verify()
        answers += 1
    except edgetl.EdgetlError as error:
        assert str(error).strip() and "\\n" not in str(error), repr(error)
        errors += 1
path.unlink()
print(answers, errors)
"""


METADATA = """
import sys
from tests.inputs.test_metadata import fuzz
first, count = int(sys.argv[1]), int(sys.argv[2])
print(fuzz(count, seed=first))
"""


def seeds() -> list[bytes]:
    """Small pictures in every format that is read, in several modes."""
    found = [picture(0, kind="PNG"), picture(1, kind="JPEG")]
    rgb = Image.open(io.BytesIO(picture(2)))
    for kind, modes in {
        "JPEG": ("L", "CMYK"),
        "PNG": ("P", "LA", "RGBA", "I;16", "1"),
        "BMP": ("RGB", "P"),
        "GIF": ("P",),
        "WEBP": ("RGB", "RGBA"),
        "TIFF": ("RGB", "F", "CMYK"),
        "PPM": ("RGB", "L"),
    }.items():
        for mode in modes:
            buffer = io.BytesIO()
            image = rgb.convert("I").convert("I;16") if mode == "I;16" else rgb.convert(mode)
            image.save(buffer, kind)
            found.append(buffer.getvalue())
    progressive, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    rgb.save(progressive, "JPEG", progressive=True, exif=exif)
    return [*found, progressive.getvalue()]


def mutate(content: bytes, generator: random.Random) -> bytes:
    """Flip bits, overwrite with edge values, cut, repeat, insert and swap stretches, one to eight times."""
    changed = bytearray(content)
    for _ in range(generator.randint(1, 8)):
        if not changed:
            break
        # Headers say the most: half of the changes go there.
        limit = len(changed) if generator.random() < 0.5 else min(len(changed), 200)
        at, length = generator.randrange(limit), generator.randint(1, 16)
        match generator.randrange(7):
            case 0:
                changed[at] ^= 1 << generator.randrange(8)
            case 1:
                changed[at] = generator.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                changed[at : at + length] = generator.randbytes(length)
            case 3:
                del changed[at : at + length]
            case 4:
                changed[at:at] = changed[at : at + length]
            case 5:
                del changed[at:]
            case _:
                changed[at : at + 4] = generator.choice(
                    (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff")
                )
    return bytes(changed)


def with_manifest(bundle: Path, out: Path, generator: random.Random) -> None:
    """Write the bundle with a mutated manifest and a right seal."""
    opened = archive.open_bundle(bundle)
    with zipfile.ZipFile(out, "w") as zipped:
        zipped.writestr("manifest.json", mutate(opened.manifest_bytes, generator))
        for member in opened.manifest.members():
            zipped.writestr(member.file, opened.read(member))
        zipped.comment = b"edgetl-sha256:" + b"0" * 64
    with out.open("r+b") as file:
        digest = archive._seal(file, archive._spans(file, "x"))
        file.seek(-64, 2)
        file.write(digest.encode())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    pack(contents(folder), folder / "b.edgetl")
    return folder / "b.edgetl"


def survive(script: str, bundle: Path, cases: int) -> tuple[int, int]:
    """Run all cases in child processes; answers and errors."""
    answers = errors = 0
    for first in range(0, cases, PART):
        count = min(PART, cases - first)
        done = subprocess.run(
            [sys.executable, "-c", script, str(bundle), str(first), str(count)],
            capture_output=True,
            text=True,
            timeout=PART_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"cases {first} to {first + count}: {done.stderr[-3000:]}"
        assert "Traceback" not in done.stderr
        good, bad = map(int, done.stdout.split())
        answers, errors = answers + good, errors + bad
    return answers, errors


def test_mutated_images(bundle: Path) -> None:
    answers, errors = survive(IMAGES, bundle, CASES // 2)
    print(f"\n{answers + errors} mutated images: {answers} answers, {errors} errors of ours")
    assert answers > 100
    assert errors > 100


def test_mutated_metadata_never_changes_a_pixel() -> None:
    """A sixth of the cases for each of six formats; a child process fails at a crash, a warning or another pixel."""
    cases, turned = CASES // 6, 0
    for first in range(0, cases, PART):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", METADATA, str(first), str(min(PART, cases - first))],
            capture_output=True,
            text=True,
            timeout=PART_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert not done.stderr
        turned += int(done.stdout)
    print(f"\n{6 * cases} mutated metadata: no pixel changed, {turned} pictures turned")
    assert turned > 100


def test_mutated_bundles(bundle: Path) -> None:
    answers, errors = survive(BUNDLES, bundle, CASES // 2)
    print(f"\n{answers + errors} mutated bundles: {answers} answers, {errors} errors of ours")
    assert errors > 100
