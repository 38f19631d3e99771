"""Captured images become labelled rows, or a folder without labels; what is broken, known or alike is left out."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from edgetl.config import DataConfig
from edgetl.data.add import TO_LABEL, AddInputs, run
from edgetl.data.index import DataIndex, build_index
from edgetl.errors import ConfigError, DataError
from edgetl.files import sha256_bytes
from edgetl.records.captured import LINES, AddedRecord, CapturedImage, line
from edgetl.report.terminal import stages
from tests.cli.typed import edgetl as typed
from tests.report.test_terminal import shown
from tests.runtime.scenes import encoded, scene, write_scenes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three kept scenes with their lines, of which the last is torn, a copy, and what is no picture."""
    captured = write_scenes(tmp_path / "captured", 3)
    about = b""
    for at, score in enumerate((0.5, 0.3, 0.4)):
        content = (captured / f"{at:04d}.png").read_bytes()
        about += line(
            CapturedImage(
                file=f"{at:04d}.png",
                sha256=sha256_bytes(content),
                time="2027-01-15T08:00:00.000Z",
                reasons=("unsure", "drifted"),
                answer=f"rose {score:.1%}",
                label="rose",
                score=score,
            )
        )
    (captured / LINES).write_bytes(about + b'{"file": "0003')
    (captured / "again.png").write_bytes(encoded(scene(0)))
    (captured / "broken.png").write_bytes(encoded(scene(9))[:60])
    return captured


@pytest.fixture
def known(tmp_path: Path) -> Path:
    """A data set with scene 1, once as it is in other light, and others."""
    photos = tmp_path / "photos"
    for at, label in enumerate(("rose", "daisy") * 5):
        place = photos / ("val" if at >= 6 else "train") / label
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{at}.png").write_bytes(encoded(scene(100 + at)))
    (photos / "train" / "rose" / "dim.png").write_bytes(encoded(scene(1, light=0.8)))
    return photos


def index_of(source: Path) -> DataIndex:
    return build_index(DataConfig(source=str(source)))


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_to_label(folder: Path, tmp_path: Path) -> None:
    record = run(str(folder), AddInputs(), out=tmp_path / "new")
    assert (record.images, record.added, record.torn) == (5, 3, 1)
    assert record.copies == (("again.png", "0000.png"),)
    [(name, reason)] = record.unreadable
    assert name == "broken.png"
    assert reason
    assert sorted(path.name for path in (tmp_path / "new").glob("*.png")) == [
        "0000.png",
        "0001.png",
        "0002.png",
    ]
    rows = read_csv(tmp_path / "new" / TO_LABEL)
    assert [row["path"] for row in rows] == ["0001.png", "0002.png", "0000.png"], "the least sure first"
    assert rows[0] == {
        "path": "0001.png", "label": "", "guess": "rose", "score": "0.300", "reasons": "unsure drifted"
    }  # fmt: skip
    text = shown(stages.added, record)
    assert "1 cannot be read; 1 are copies of others" in text
    assert "distill.unlabelled" in text


def test_what_the_data_set_has_or_nearly_has_is_left_out(folder: Path, known: Path, tmp_path: Path) -> None:
    (folder / "there.png").write_bytes(encoded(scene(103)))
    record = run(str(folder), AddInputs(known=index_of(known)), out=tmp_path / "new")
    assert [name for name, _ in record.copies] == ["again.png", "there.png"]
    [(name, other)] = record.near
    assert (name, Path(other).name) == ("0001.png", "dim.png")
    assert record.added == 2


def test_labelled_rows_are_the_next_data_set(folder: Path, known: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("path,label,guess\ncaptured/0000.png,rose,x\n0002.png,tulip,\n0001.png,,\n")
    record = run(str(folder), AddInputs(known=index_of(known), labels=labels), out=tmp_path / "all.csv")
    assert (record.added, record.before, record.unlabelled) == (2, 11, 0)
    assert record.classes == {"rose": 1, "tulip": 1}
    assert record.new_classes == ("tulip",)
    rows = read_csv(tmp_path / "all.csv")
    assert [tuple(row.values()) for row in rows[-2:]] == [
        ("captured/0000.png", "rose", "train"),
        ("captured/0002.png", "tulip", "train"),
    ]
    again = index_of(tmp_path / "all.csv")
    before = index_of(known).sizes()
    assert again.sizes() == before | {"train": before["train"] + 2}
    assert again.labels == ("daisy", "rose", "tulip")
    assert "data.source" in shown(stages.added, record)


def test_rows_alone_and_their_split(folder: Path, tmp_path: Path) -> None:
    labels = folder / "labels.csv"
    labels.write_text("path;label\n0000.png;rose\n0001.png;\n")
    record = run(str(folder), AddInputs(labels=labels, split="test"), out=tmp_path / "new.csv")
    assert (record.added, record.unlabelled, record.before) == (1, 2, 0)
    assert read_csv(tmp_path / "new.csv") == [{"path": "captured/0000.png", "label": "rose", "split": "test"}]


def test_any_folder_of_images_will_do(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for at, place in enumerate((tmp_path, tmp_path / "a")):
        (place / "x.png").write_bytes(encoded(scene(at)))
    record = run(str(tmp_path), AddInputs(), out=tmp_path.parent / f"{tmp_path.name}-new")
    assert record.added == 2, "two of one name"
    assert len(list(Path(record.out).glob("x-*.png"))) == 2


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("file,label\n", r"its first line is file, label; expected the columns path and label\."),
        ("", r"its first line is empty;"),
        ("path,label\nnope.png,rose\n", r"names images that are not in .*captured:\n  line 2: nope\.png"),
        (
            "path,label\n0000.png,rose\n0000.png,daisy\n",
            r"gives an image two classes:\n  line 3: 0000\.png is daisy and",
        ),
        ("path,label\n0000.png,\n", r"gives none of the 2 images a class; fill in its column label\."),
        ("path,label\n0000.png,Rose\n", r"spells otherwise:\n  Rose: did you mean rose\?"),
    ],
)
def test_labels_that_are_not_right(
    text: str, sentence: str, folder: Path, known: Path, tmp_path: Path
) -> None:
    labels = folder / "labels.csv"
    labels.write_text(text)
    with pytest.raises(DataError, match=sentence):
        run(str(folder), AddInputs(labels=labels, known=index_of(known)), out=tmp_path / "new.csv")
    assert not (tmp_path / "new.csv").exists()


def test_nothing_is_overwritten(folder: Path, tmp_path: Path) -> None:
    for out in (folder, folder / LINES):
        with pytest.raises(
            ConfigError, match=r"^data add: .* is there already; choose another name with -o\.$"
        ):
            run(str(folder), AddInputs(), out=out)
    with pytest.raises(DataError, match=r"^data add: .*nope does not exist; give a folder of images\.$"):
        run(str(tmp_path / "nope"), AddInputs(), out=tmp_path / "new")


def test_the_command(folder: Path, known: Path, tmp_path: Path) -> None:
    done = typed("data", "add", folder, "--data", known, "-o", tmp_path / "new", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["added"] == 2
    assert set(found) == set(AddedRecord.__dataclass_fields__)
    labels = tmp_path / "new" / TO_LABEL
    labels.write_text(labels.read_text().replace("png,", "png,rose", 1).replace(",,", ",", 0))
    done = typed(
        "data", "add", tmp_path / "new", "--labels", labels, "--data", known, "-o", tmp_path / "all.csv"
    )
    assert done.returncode == 0, done.stderr
    assert "data.source" in " ".join(done.stdout.split())
    done = typed("data", "add", folder, "-o", tmp_path / "other", "--split", "dev")
    assert done.returncode == 2
    assert "--split: got 'dev', expected train, val, test." in " ".join(done.stderr.split())
