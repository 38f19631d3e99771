"""Trees and graphs of classes as files: what they may hold, and one clear sentence for what they may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgetl.config import LabelsConfig
from edgetl.data.index import DataIndex, Sample
from edgetl.data.relations import read_relation, related
from edgetl.errors import ConfigError
from edgetl.tasks.base import Classification, MultiLabel
from edgetl.tasks.relations import Graph, Tree

LABELS = ("crack", "fray", "free")
PARENTS = {"crack": "defect", "fray": "defect", "defect": "part", "free": "part"}
GOOD = 'defect = ["fray", "crack"]\npart = ["defect", "free"]\n'


def index(labels: tuple[str, ...] = LABELS) -> DataIndex:
    return DataIndex(Path("/set"), labels, (Sample(Path("/set/x.png"), 0, "train", "ab"),))


def settings(folder: Path, name: str, content: str | bytes) -> LabelsConfig:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return LabelsConfig(**{"graph" if name.startswith("graph") else "tree": str(path)})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tree.toml", GOOD),
        ("tree.csv", "parent,child\ndefect,crack\npart, free\n\ndefect,fray\npart,defect\n"),
        ("tree.csv", "Child;note;Parent\ncrack;;defect\nfray;;defect\nfree;x;part\ndefect;;part\n"),
    ],
)
def test_a_tree_is_read_in_any_order(name: str, content: str, tmp_path: Path) -> None:
    config = settings(tmp_path, name, content)
    assert read_relation(config) == Tree(parents=PARENTS)
    found = related(index(), config)
    assert found.task == Classification(labels=LABELS, relation=Tree(parents=PARENTS))
    assert found.sha256 != index().sha256, "what is trained by it depends on it"


def test_a_graph_is_read(tmp_path: Path) -> None:
    config = settings(tmp_path, "graph.csv", "a,b,weight\nfray,crack,1\nfray,free,2.5\n")
    assert read_relation(config) == Graph(edges=(("crack", "fray", 1.0), ("fray", "free", 2.5)))


def test_an_index_without_a_relation_stays_as_it_is() -> None:
    plain = index()
    assert related(plain, LabelsConfig()) is plain


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "tree.toml",
            'a = ["crack", "b"]\nb = ["a"]\n',
            "the tree goes round in a circle: a is in b is in a.",
        ),
        (
            "tree.toml",
            GOOD.replace("fray", "frey"),
            "frey is no class of the data (did you mean fray?).",
        ),
        (
            "tree.toml",
            'part = ["crack", "fray"]\n',
            "the tree lacks free of the data's classes; add what is missing.",
        ),
        (
            "tree.toml",
            GOOD + 'other = ["crack"]\n',
            "crack is in defect and in other; each name has one place in a tree, remove the other.",
        ),
        ("tree.csv", "parent,child\na,crack\na,crack\n", "crack is in a twice; each name has one place"),
        ("tree.toml", "defect = [\n", "it is not valid TOML: "),
        ("tree.toml", b"a = ['\xff']\n", "it is not text in UTF-8 (invalid start byte); save it as UTF-8."),
        (
            "tree.toml",
            "defect.kind = ['crack']\n",
            "defect is {'kind': ['crack']}, expected a list of names, as in defect = [\"a\", \"b\"]",
        ),
        ("tree.toml", "digits = [1, 2]\n", "digits is [1, 2], expected a list of names"),
        ("tree.toml", 'a = [""]\n', "the name '' is empty."),
        ("tree.toml", "", "the tree is empty."),
        (
            "tree.txt",
            "",
            'expected a .toml with parent = ["child", ...], or a .csv with the columns parent, child.',
        ),
        ("tree.csv", "up,down\na,b\n", "its first line is up, down, expected the columns parent, child"),
        ("tree.csv", b"parent,child\na,\xff\n", "is not UTF-8 text"),
        ("graph.toml", "", "expected a .csv with the columns a, b, weight."),
        (
            "graph.csv",
            "a,b,weight\ncrack,fray,-1\nfray,free,1\n",
            "the edge of crack and fray weighs -1, expected a number above 0.",
        ),
        ("graph.csv", "a,b,weight\ncrack,fray,far\n", "line 2: weight is 'far', expected a number above 0."),
        ("graph.csv", "a,b,weight\ncrack,crack,1\n", "line 2: crack is joined to itself; remove the line."),
        (
            "graph.csv",
            "a,b,weight\ncrack,fray,1\nfray,crack,2\n",
            "line 3: fray and crack are joined twice; keep one of the lines.",
        ),
        (
            "graph.csv",
            "a,b,weight\ncrack,fray,1\nfree,x,1\nx,y,1\ny,free,1\n",
            "the graph is not connected: no edges lead from crack to free; add one between their parts.",
        ),
        ("graph.csv", "a,b,weight\n", "the graph has no edges."),
    ],
)
def test_what_is_wrong_is_one_sentence(name: str, content: str | bytes, message: str, tmp_path: Path) -> None:
    config = settings(tmp_path, name, content)
    with pytest.raises(ConfigError) as caught:
        related(index(), config)
    [problem] = caught.value.problems
    kind = name.partition(".")[0]
    assert problem.startswith(f"labels.{kind} = {tmp_path / name}: ")
    assert message in problem
    assert "\n" not in problem


@pytest.mark.parametrize("setting", ["tree", "graph"])
def test_a_file_that_cannot_be_read(setting: str, tmp_path: Path) -> None:
    for path in (tmp_path / "gone.csv", tmp_path):
        with pytest.raises(
            ConfigError, match=f"^labels.{setting} = {path}: (it cannot be read: .*path|expected)"
        ):
            read_relation(LabelsConfig(**{setting: str(path)}))
    with pytest.raises(ConfigError, match=r"gone\.toml: it cannot be read: no such file or folder\. Check"):
        read_relation(LabelsConfig(tree=str(tmp_path / "gone.toml")))


def test_a_relation_is_of_one_class_per_image(tmp_path: Path) -> None:
    several = DataIndex(Path("/set"), LABELS, (), asked=MultiLabel(labels=LABELS))
    with pytest.raises(ConfigError, match=r"of the task multilabel; leave labels\.tree out"):
        related(several, settings(tmp_path, "tree.toml", GOOD))
