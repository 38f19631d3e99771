"""A detector over a long time and on broken input: 50,000 predictions, 2,000 annotation files and as many pictures.

Broken files are read in child processes, part by part, so that a crash is seen as what it is.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgetl
from tests.slow.test_soak import grow
from tests.squares import COLOURS, drawn, encoded, squares, write_bundle, write_set

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]

PREDICTIONS = int(os.environ.get("EDGETL_DETECTION_SOAK", "50000"))
CASES = int(os.environ.get("EDGETL_DETECTION_FUZZ", "2000"))
PART, PART_SECONDS = 500, 600

ANNOTATIONS = """
import random, sys
from pathlib import Path
import edgetl
from edgetl.runtime.evaluate import evaluate_folder
from tests.slow.test_detection_long import broken_set
bundle, folder, first, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
answers = errors = 0
with edgetl.load(bundle, threads=1) as session:
    for case in range(first, first + count):
        path = broken_set(folder, random.Random(case))
        try:
            found = evaluate_folder(session, path)
            assert 0.0 <= found.scores["map"].value <= 1.0
            answers += 1
        except edgetl.EdgetlError as error:
            assert str(error).strip(), repr(error)
            errors += 1
print(answers, errors)
"""
PICTURES = """
import math, random, sys
import edgetl
from tests.slow.test_detection_long import seeds
from tests.slow.test_fuzz import mutate
bundle, _, first, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
answers = errors = 0
originals = seeds()
with edgetl.load(bundle, threads=1) as session:
    for case in range(first, first + count):
        generator = random.Random(case)
        try:
            found = session.predict(mutate(generator.choice(originals), generator))
            for item in found.items:
                x1, y1, x2, y2 = item.box
                assert 0 <= x1 < x2 <= found.width and 0 <= y1 < y2 <= found.height, item
                assert math.isfinite(item.score)
            answers += 1
        except edgetl.EdgetlError as error:
            assert str(error).strip() and "\\n" not in str(error), repr(error)
            errors += 1
print(answers, errors)
"""


def seeds() -> list[bytes]:
    """Pictures of squares in several formats."""
    return [encoded(drawn(squares(3)), kind) for kind in ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM")]


_ODD: tuple[Any, ...] = (
    *(None, True, "", "x", "a\0b", -1, 0, 1.5, 1e308, 10**30, float("nan"), float("inf"), [], {}, [[]]),
    *("../../etc/passwd", "0000.png", "\\ud800", "red", "re\u0301d", "a" * 5000, [1] * 9, {"id": 1}),
)


def broken_set(folder: Path, generator: random.Random) -> Path:
    """One of four forms of a small set in `folder`, some of its values replaced, or bytes of its files changed."""
    from tests.slow.test_fuzz import mutate

    form = generator.choice(("coco", "yolo", "voc", "csv"))
    root = folder / form
    path = FORMS[form](root)
    files = [p for p in root.rglob("*") if p.suffix in (".json", ".yaml", ".txt", ".xml", ".csv")]
    chosen = generator.choice(sorted(files))
    if chosen.suffix == ".json" and generator.random() < 0.7:
        content = json.loads(chosen.read_text())
        for _ in range(generator.randint(1, 3)):
            _replace(content, generator)
        chosen.write_text(json.dumps(content))
    elif generator.random() < 0.5:
        words = chosen.read_text().split(" ")
        words[generator.randrange(len(words))] = str(generator.choice(_ODD))
        chosen.write_text(" ".join(words), errors="surrogatepass" if generator.random() < 0.1 else "replace")
    else:
        chosen.write_bytes(mutate(chosen.read_bytes(), generator))
    return path


def _replace(value: Any, generator: random.Random) -> None:
    """Put something odd at one place of a JSON value."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = generator.choice(keys)
        inner = value[key]
        if isinstance(inner, dict | list) and inner and generator.random() < 0.85:
            value = inner
            continue
        value[key] = generator.choice(_ODD)
        return


def _coco(root: Path) -> Path:
    return write_set(root, 3)


def _others(root: Path) -> dict[str, list[tuple[str, tuple[int, int, int, int]]]]:
    """Writes three pictures; their objects by name."""
    root.mkdir(parents=True, exist_ok=True)
    found = {}
    for at in range(3):
        own = squares(100 + at)
        (root / f"{at:04}.png").write_bytes(encoded(drawn(own)))
        found[f"{at:04}.png"] = [(COLOURS[c], (x, y, x + side, y + side)) for x, y, side, c in own]
    return found


def _csv(root: Path) -> Path:
    lines = ["path,label,x1,y1,x2,y2"]
    for name, objects in _others(root).items():
        lines += [f"{name},{label},{','.join(map(str, box))}" for label, box in objects]
    (root / "boxes.csv").write_text("\n".join(lines))
    return root / "boxes.csv"


def _voc(root: Path) -> Path:
    for name, objects in _others(root).items():
        inner = "".join(
            f"<object><name>{label}</name><bndbox><xmin>{b[0]}</xmin><ymin>{b[1]}</ymin><xmax>{b[2]}</xmax>"
            f"<ymax>{b[3]}</ymax></bndbox></object> "
            for label, b in objects
        )
        text = f"<annotation> <filename>{name}</filename> <size><width>192</width><height>144</height></size> {inner}"
        (root / name).with_suffix(".xml").write_text(f"{text}</annotation>")
    return root


def _yolo(root: Path) -> Path:
    for part in ("images/val", "labels/val"):
        (root / part).mkdir(parents=True, exist_ok=True)
    for name, objects in _others(root / "images/val").items():
        rows = [
            f"{COLOURS.index(label)} {(b[0] + b[2]) / 384:.4f} {(b[1] + b[3]) / 288:.4f} {32 / 192:.4f} {32 / 144:.4f}"
            for label, b in objects
        ]
        (root / "labels/val" / name).with_suffix(".txt").write_text("\n".join(rows))
    (root / "data.yaml").write_text(f"path: .\nval: images/val\nnames: [{', '.join(COLOURS)}]\n")
    return root / "data.yaml"


FORMS = {"coco": _coco, "yolo": _yolo, "voc": _voc, "csv": _csv}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("long") / "b.edgetl")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_fifty_thousand_predictions_keep_their_memory_and_their_answers(bundle: Path) -> None:
    inputs: list[Any] = [encoded(drawn(squares(i)), ("PNG", "JPEG")[i % 2]) for i in range(6)]
    inputs += [np.asarray(drawn(squares(i))) for i in range(6, 12)]
    with edgetl.load(bundle, threads=1) as session:
        expected = [session.predict(image) for image in inputs]

        def work(count: int) -> None:
            for number in range(count):
                at = number % len(inputs)
                assert session.predict(inputs[at]) == expected[at]

        assert grow(work, PREDICTIONS, "detector, one thread") < 0.01


@pytest.mark.parametrize("source", [ANNOTATIONS, PICTURES], ids=["annotations", "pictures"])
def test_broken_files_give_an_answer_or_one_of_our_errors(bundle: Path, tmp_path: Path, source: str) -> None:
    counted = [0, 0]
    for first in range(0, CASES, PART):
        count = min(PART, CASES - first)
        done = subprocess.run(
            [sys.executable, "-c", source, str(bundle), str(tmp_path), str(first), str(count)],
            capture_output=True,
            text=True,
            timeout=PART_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"cases {first} to {first + count}:\n{done.stderr[-3000:]}"
        counted = [a + int(b) for a, b in zip(counted, done.stdout.split(), strict=True)]
    print(f"\n{counted[0]} answers, {counted[1]} errors")
    assert sum(counted) == CASES
    assert min(counted) > CASES // 20  # Some files still say something, and some do not.
