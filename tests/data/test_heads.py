"""Images with a label for each of several heads."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgetl import config
from edgetl.data.index import DataIndex, build_index, load
from edgetl.data.sources import labelling_in
from edgetl.data.suggest import suggest_task
from edgetl.errors import DataError
from edgetl.inputs.spec import PreprocessSpec
from edgetl.tasks.base import Classification, MultiHead, MultiLabel
from edgetl.tasks.labelling import AnyLabels, HeadLabels, OneLabel
from edgetl.train.tasks.all import training_task
from tests.data.images import Recorder

LABELLING = HeadLabels(heads=(("colour", OneLabel(column="Colour")), ("marks", AnyLabels(column="marks"))))
HEADER = "path,Colour,marks,split"
ROWS = (
    "0.png,red,dot|line,train",
    "1.png,blue,,train",
    "2.png,,dot,train",
    "3.png,red,line,val",
    "4.png,blue,dot,val",
)


def table(folder: Path, rows: tuple[str, ...] = ROWS, header: str = HEADER) -> Path:
    rng = np.random.default_rng(0)
    for row in rows:
        pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / row.partition(",")[0])
    path = folder / "parts.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def index_of(path: Path, labelling: HeadLabels = LABELLING) -> DataIndex:
    return build_index(config.parse({"data": {"source": str(path)}}).data, labelling=labelling)


def test_each_head_has_its_column_and_an_empty_cell_is_no_label(tmp_path: Path) -> None:
    index = index_of(table(tmp_path))
    assert index.task == MultiHead(
        heads={"colour": Classification(labels=("blue", "red")), "marks": MultiLabel(labels=("dot", "line"))}
    )
    assert index.labels == ("colour/blue", "colour/red", "marks/dot", "marks/line")
    found = {sample.path.name: sample.label for sample in index.samples}
    assert found == {
        "0.png": (1, (0, 1)),
        "1.png": (0, None),
        "2.png": (None, (0,)),
        "3.png": (1, (1,)),
        "4.png": (0, (0,)),
    }
    assert index.counts()["train"] == {"colour/blue": 1, "colour/red": 1, "marks/dot": 2, "marks/line": 1}
    index.save(tmp_path / "index.json")
    assert load(tmp_path / "index.json") == index


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("path,colour,split", ROWS, r"lacks the column marks.*expected path,Colour,marks"),
        ("path,Colour,marks,colour", ROWS, r"has the column colour more than once"),
        (
            HEADER,
            (*ROWS, "5.png,,,train"),
            r"line 7: no label in any of the columns Colour, marks",
        ),
        (HEADER, (*ROWS, "5.png,green,dot,val"), r"colour/green: 1 images in val, none in train"),
        (
            HEADER,
            ("0.png,red,dot,train", "1.png,red,line,val"),
            r"column Colour of the head colour holds one class only",
        ),
        (HEADER, (*ROWS, "5.png,red,dot|None,train"), r"line 7: marks is 'dot\|None'; none says"),
        (
            HEADER,
            ("0.png,red,,train", "1.png,blue,none,val"),
            r"column marks names no class in any line.*head marks",
        ),
    ],
    ids=[
        "column",
        "column twice",
        "no label",
        "class in one split",
        "one class",
        "none beside a class",
        "empty column",
    ],
)
def test_what_cannot_be_learned_is_named(
    tmp_path: Path, header: str, rows: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DataError, match=rf"(?s){message}"):
        index_of(table(tmp_path, rows, header))


def test_none_is_a_label_where_an_image_may_have_any_number_of_classes(tmp_path: Path) -> None:
    rows = (*ROWS, "5.png,,none,train", "6.png,none,NONE,val", "7.png,none,,train")
    index = index_of(table(tmp_path, rows))
    assert isinstance(index.task, MultiHead)
    assert index.task.heads["colour"].labels == ("blue", "none", "red"), "of one class per image it is a name"
    found = {sample.path.name: sample.label for sample in index.samples}
    assert {name: found[name] for name in ("1.png", "5.png", "6.png", "7.png")} == {
        "1.png": (0, None),
        "5.png": (None, ()),
        "6.png": (1, ()),
        "7.png": (1, None),
    }
    index.save(tmp_path / "index.json")
    assert load(tmp_path / "index.json") == index
    task = training_task(index.task)
    rows_of = dict(zip(found, task.targets(index.samples, PreprocessSpec(size=16)), strict=True))
    assert rows_of["5.png"][3:].tolist() == [0.0, 0.0]
    assert np.isnan(rows_of["7.png"][3:]).all()
    alone = build_index(
        config.parse({"data": {"source": str(tmp_path / "parts.csv")}}).data,
        labelling=AnyLabels(column="marks"),
    )
    assert alone.labels == ("dot", "line")


def test_a_class_that_every_labelled_image_has_is_warned_of(tmp_path: Path) -> None:
    rows = ("0.png,red,dot,train", "1.png,blue,,train", "2.png,red,dot|line,train", "3.png,blue,none,val")
    rows = (*rows, "4.png,red,none,test")
    said = Recorder()
    config_ = config.parse({"data": {"source": str(table(tmp_path, rows))}}).data
    build_index(config_, labelling=LABELLING, progress=said)
    [warning] = [text for text in said.warnings if "every labelled training image has" in text]
    assert "has marks/dot, so that" in warning
    assert warning.endswith("Is none missing where a cell of its column is empty?")
    (tmp_path / "parts.csv").write_text(
        "path,marks,split\n0.png,dot,train\n1.png,none,train\n3.png,dot,val\n"
    )
    said = Recorder()
    build_index(config_, labelling=AnyLabels(column="marks"), progress=said)
    assert not [text for text in said.warnings if "every labelled" in text]


def test_a_folder_cannot_label_heads(tmp_path: Path) -> None:
    for name in ("red", "blue"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (16, 16), name).save(tmp_path / name / "0.png")
    with pytest.raises(DataError, match="cannot label colour and marks; give a CSV"):
        index_of(tmp_path)


def test_init_proposes_a_head_for_each_label_column(tmp_path: Path) -> None:
    rows = tuple(
        f"{at}.png,{'red' if at % 2 else 'blue'},{'dot|line' if at % 3 else 'dot'},{at}" for at in range(8)
    )
    path = table(tmp_path, rows, "path,Colour,images,serial")
    labelling = labelling_in(str(path))
    assert labelling == HeadLabels(
        heads=(("colour", OneLabel(column="colour")), ("images_", AnyLabels(column="images")))
    ), "no head is called images, as the network's input is"
    values = {s.key.partition(".")[2]: s.value for s in suggest_task(labelling)}
    recipe = config.parse({"data": {"source": str(path)}, "task": values})
    assert recipe.task.labelling == labelling
    assert config.parse(tomllib.loads(config.commented(recipe, {}))).task == recipe.task
