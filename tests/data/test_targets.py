from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgetl.data import calibration
from edgetl.data import index as indexes
from edgetl.data.audit import audit
from edgetl.data.index import DataIndex, build_index
from edgetl.data.sources import find, labelling_in
from edgetl.data.suggest import look, suggest, suggest_task
from edgetl.data.targets import first_class, order, positions, strata
from edgetl.errors import DataError
from edgetl.tasks.base import Classification, MultiHead, MultiLabel, TaskSpec
from edgetl.tasks.labelling import AnyLabels, HeadLabels, OneLabel, labelling_of
from edgetl.train.folds import split
from tests.data.images import Settings, write

KIND, MARKS = Classification(labels=("a", "b")), MultiLabel(labels=("x", "y", "z"))
HEADS = MultiHead(heads={"kind": KIND, "marks": MARKS})


@pytest.mark.parametrize(
    ("task", "targets", "flat", "groups"),
    [
        (KIND, [1, 0], [(1,), (0,)], [1, 0]),
        (MARKS, [(0, 1), (0,), (), (2, 0)], [(0, 1), (0,), (), (2, 0)], [1, 0, -1, 2]),
        (HEADS, [(1, (0,)), (None, (0, 2)), (None, None)], [(1, 2), (2, 4), ()], [1, 2, -1]),
    ],
)
def test_every_task_has_places_and_groups(
    task: TaskSpec, targets: list[Any], flat: list[tuple[int, ...]], groups: list[int]
) -> None:
    assert [positions(task, target) for target in targets] == flat
    assert strata(task, targets) == groups
    assert sorted(targets, key=order) == sorted(targets, key=order, reverse=True)[::-1]
    assert type(labelling_of(task)).__name__ == {"classification": "OneLabel", "multilabel": "AnyLabels"}.get(
        task.kind, "HeadLabels"
    )


def listed(tmp_path: Path, lines: list[str], *, pictures: int = 0) -> str:
    for number in range(pictures):
        write(tmp_path / f"{number}.png", number)
    path = tmp_path / "set.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_names_and_columns_of_0_and_1_say_the_same(tmp_path: Path) -> None:
    named = find(
        listed(tmp_path, ["path,labels", "a.png,dent | crack|dent", "b.png,", "c.png,crack"]), AnyLabels()
    )
    assert [entry.label for entry in named.entries] == [("crack", "dent"), (), ("crack",)]
    flags = ["path;Dent;note;crack", "a.png;1;x;1", "b.png;0;1;0", "c.png;0;y;1"]
    source = listed(tmp_path, flags)
    found = find(source, AnyLabels())
    assert [entry.label for entry in found.entries] == [("Dent", "crack"), (), ("crack",)]
    assert found.named == ("Dent", "crack")
    assert labelling_in(source) == AnyLabels()


def test_a_class_may_be_called_domain_where_each_has_a_column(tmp_path: Path) -> None:
    source = listed(tmp_path, ["path,domain,crack", "a.png,1,0", "b.png,0,1"])
    found = find(source, AnyLabels())
    assert [(entry.label, entry.domain) for entry in found.entries] == [(("domain",), ""), (("crack",), "")]
    place = listed(tmp_path, ["path,crack,domain", "a.png,1,old", "b.png,0,new"])
    assert [entry.domain for entry in find(place, AnyLabels()).entries] == ["old", "new"]
    kind = listed(
        tmp_path, ["path,kind,size,domain", *(f"{n}.png,x{n % 2},y{n % 2},{n % 2}" for n in range(8))]
    )
    assert isinstance(labelling_in(kind), HeadLabels)


@pytest.mark.parametrize(
    ("header", "labelling"),
    [("path,label", OneLabel()), ("path,labels", AnyLabels()), ("path,label,labels", OneLabel())],
)
def test_a_csv_shows_how_it_labels(header: str, labelling: object, tmp_path: Path) -> None:
    assert labelling_in(listed(tmp_path, [header, "a.png,x,x"])) == labelling
    assert labelling_in(str(tmp_path)) == OneLabel()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["path,note", "a.png,x"],
            r"lacks the column labels; its first line is path, note, expected path,labels",
        ),
        (["path,label", "a.png,x"], r'set task.kind = "classification"'),
        (["path,dent,crack", "a.png,1,0", "b.png,1,", "c.png,0,1"], r"line 3: crack is ''; expected 0 or 1"),
        (["path,dent,crack,dent", "a.png,1,0,0"], r"has the column dent more than once"),
        (["path,labels", "0.png,", "1.png,none"], r"names no class in any line of its column labels"),
        (["path,dent,crack", "0.png,1,0", "1.png,0,0", "2.png,1,0"], r"crack: no image has it"),
        (
            ["path,labels,split", "0.png,dent,train", "1.png,dent,train", "2.png,dent|dents,val"],
            r"dents: 1 images in val, none in train. Did you mean dent\?",
        ),
    ],
)
def test_what_is_wrong_with_labels_is_said(lines: list[str], message: str, tmp_path: Path) -> None:
    source = listed(tmp_path, lines, pictures=3)
    with pytest.raises(DataError, match=message):
        build_index(Settings(source=source), labelling=AnyLabels())


def test_one_class_per_image_names_the_other_task(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'lacks the column label;.* set task.kind = "multilabel"'):
        build_index(Settings(source=listed(tmp_path, ["path,labels", "a.png,x"])))


@pytest.fixture
def several(tmp_path: Path) -> DataIndex:
    """60 images: every second has x, every third y, every tenth z."""
    marks = [[m for m, step in (("x", 2), ("y", 3), ("z", 10)) if not at % step] for at in range(60)]
    lines = ["path,labels", *(f"{at}.png,{'|'.join(own)}" for at, own in enumerate(marks))]
    return build_index(Settings(source=listed(tmp_path, lines, pictures=60)), labelling=AnyLabels())


def test_every_split_has_every_class_and_some_of_none(several: DataIndex, tmp_path: Path) -> None:
    assert several.task == MARKS
    assert all(count for classes in several.counts().values() for count in classes.values())
    assert sum(several.sizes().values()) == 60
    assert {several.strata(several.samples).count(group) > 0 for group in (-1, 0, 1, 2)} == {True}
    several.save(tmp_path / "index.json")
    again = indexes.load(tmp_path / "index.json")
    assert again == several
    assert again.sha256 == several.sha256


def test_draws_folds_and_the_audit_take_any_number_of_classes(several: DataIndex) -> None:
    drawn = calibration.draw(several, 12, seed=0)
    assert len(drawn.samples) == 12
    assert len({image.label for image in drawn.samples}) > 3
    report = audit(several)
    assert report.sizes == several.sizes()
    parts = split(several, 3, seed=0)
    held = [len(part.split("val")) for part in parts]
    assert sum(held) == 60 - several.sizes()["test"]
    assert max(held) - min(held) <= 4
    assert all(part.counts()["val"][name] for part in parts for name in several.labels)


def test_a_subset_keeps_every_class(several: DataIndex, tmp_path: Path) -> None:
    config = Settings(source=str(tmp_path / "set.csv"), max_train_images=12)
    subset = build_index(config, labelling=AnyLabels())
    assert subset.sizes()["train"] == 12
    assert all(subset.counts()["train"].values())


def test_a_recipe_is_proposed_by_the_columns(several: DataIndex, tmp_path: Path) -> None:
    proposed = suggest_task(labelling_in(str(tmp_path / "set.csv")))
    assert [(one.key, one.value) for one in proposed] == [("task.kind", "multilabel")]
    assert suggest_task(OneLabel()) == ()
    keys = {one.key for one in suggest(look(several))}
    assert not keys & {
        "train.imbalance",
        "bundle.metric",
    }  # x is on three times the images of z, as it may be


def test_one_class_is_the_first_of_the_first_head() -> None:
    assert [first_class(KIND, at) for at in (1, 0)] == [1, 0]
    assert [first_class(MARKS, at) for at in ((0, 2), (2,), ())] == [0, 2, -1]
    assert [first_class(HEADS, at) for at in ((1, (0,)), (None, (0,)))] == [1, -1]
