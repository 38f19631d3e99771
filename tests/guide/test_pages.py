"""The front page and the manual are true: their links, recipes, programs, figures and lists."""

from __future__ import annotations

import dataclasses
import inspect
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from edgetl import config, guide, pipeline
from edgetl._version import BUNDLE_SCHEMA, __version__
from edgetl.bundle import golden, manifest, pack
from edgetl.bundle.confidence import ConfidenceSource
from edgetl.data.relations import read_relation
from edgetl.data.sources import find
from edgetl.deploy.fleet.config import parse as parse_fleet
from edgetl.inputs.spec import PreprocessSpec, SoundSpec
from edgetl.records.measured import Latency
from edgetl.runtime.targets import EngineName
from edgetl.tasks.base import LOGITS
from edgetl.tasks.conformal import Conformity
from edgetl.tasks.relations import Tree
from tests import bench as benches
from tests.bench.__main__ import families
from tests.bundles import contents, picture
from tests.guide.pages import FOLDER, FRONT, ROOT, Block, anchors, blocks, links, pages, prose, spans
from tests.sounds import SPEC as SOUND

FIGURE = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?:x\b|%| ?ms\b| MB\b)")


def test_the_index_lists_every_page_and_each_says_first_what_the_index_says() -> None:
    listed = {topic.name: topic.summary for topic in guide.topics()}
    assert set(listed) == {page.stem for page in pages()[1:]} - {guide.INDEX}
    assert len(listed) > 20
    for name, summary in listed.items():
        if name in ("commands", "settings", "python"):  # These begin with a sentence of their own.
            continue
        lines = (FOLDER / f"{name}.md").read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith("# "), name
        assert (lines[2], lines[3]) == (summary, ""), name


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        if link.startswith("http"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link}"


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_pages_are_plain_text_of_readable_width(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.isascii()
    assert text.endswith("\n")
    if page.stem not in ("commands", "settings", "python"):
        long = [line for line in text.splitlines() if len(line) > 120 and not line.startswith("|")]
        assert long == []


def test_every_block_has_a_language_that_a_test_knows() -> None:
    known = {"sh", "python", "py", "toml", "yaml", "text", "mermaid"}
    assert {block.language for block in blocks()} <= known
    assert {block.page.stem for block in blocks("py")} == {"python"}


@pytest.mark.parametrize("block", blocks("toml"), ids=lambda block: block.page.stem)
def test_every_recipe_and_file_of_devices_is_one(block: Block) -> None:
    values = tomllib.loads(block.text)
    if block.page.stem == "fleet":
        assert parse_fleet(values, block.page).devices
    else:
        config.parse(values)


def test_the_trees_and_tables_that_pages_show_are_read(tmp_path: Path) -> None:
    (tree,) = [block for block in blocks("text") if block.page.stem == "tasks"]
    (tmp_path / "tree.toml").write_text(tree.text)
    relation = read_relation(config.LabelsConfig(tree=str(tmp_path / "tree.toml")))
    assert isinstance(relation, Tree)
    assert (set(relation.tops), relation.parents["fray"]) == ({"defect", "sound"}, "defect")
    (table,) = [block for block in blocks("text") if block.page.stem == "cookbook"]
    for row in table.text.splitlines()[1:]:
        (tmp_path / row.partition(",")[0]).parent.mkdir(exist_ok=True)
        (tmp_path / row.partition(",")[0]).touch()
    (tmp_path / "photos.csv").write_text(table.text)
    groups = [entry.group for entry in find(str(tmp_path / "photos.csv")).entries]
    assert groups == ["part-17", "part-17", "part-18"]


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda block: block.page.stem)
def test_every_workflow_has_jobs_of_steps(block: Block) -> None:
    jobs = yaml.safe_load(block.text)["jobs"]
    assert all({"uses", "run"} & set(step) for job in jobs.values() for step in job["steps"])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the programs of the pages name."""
    folder = tmp_path_factory.mktemp("place")
    parts = contents(folder)
    ranked = np.linspace(1.0, 0.1, 40, dtype=np.float32)
    confidence = ConfidenceSource(
        temperatures={LOGITS: 1.5}, conformities={LOGITS: Conformity(images=40, ranked=ranked)}
    )
    variants = [dataclasses.replace(source, confidence=confidence) for source in parts.variants]
    for name in ("photos", "model", "good"):
        pack.pack(dataclasses.replace(parts, variants=variants), folder / f"{name}.edgetl")
    listening = dataclasses.replace(parts.preprocess, sound=SOUND)
    pack.pack(dataclasses.replace(parts, variants=variants, preprocess=listening), folder / "words.edgetl")
    (folder / "photo.jpg").write_bytes(picture(1, kind="JPEG"))
    (folder / "other.jpg").write_bytes(picture(2, kind="JPEG"))
    (folder / "recipe.toml").write_text("[data]\nsource = 'digits'\n")
    return folder


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.page.stem)
def test_every_program_runs(
    block: Block, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*given: Any, **named: Any) -> pipeline.Outcome:
        """As `pipeline.run`, without the hours."""
        inspect.signature(real).bind(*given, **named)
        return pipeline.Outcome(run_dir=place, records={}, cached=(), report=None)

    real = pipeline.run
    monkeypatch.setattr(pipeline, "run", run)
    monkeypatch.chdir(place)
    exec(compile(block.text, str(block.page), "exec"), {"__name__": "__page__"})
    if re.search(r"\bprint\(", block.text):
        assert capsys.readouterr().out.strip()


def test_the_program_of_the_format_finds_a_change(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    (block,) = [block for block in blocks("python") if block.page.stem == "bundle"]
    space: dict[str, Any] = {}
    exec(block.text, space)
    whole = (place / "photos.edgetl").read_bytes()
    for at in range(0, len(whole), len(whole) // 40):
        altered = place / "altered.edgetl"
        altered.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(Exception):  # noqa: B017  Whatever zipfile or the program says.
            space["check"](altered)


def test_the_page_of_the_format_names_every_field_and_tolerance() -> None:
    text = (FOLDER / "bundle.md").read_text(encoding="utf-8")
    records = (
        *(manifest.Manifest, manifest.Variant, manifest.EngineFile, manifest.Golden),
        *(
            manifest.Provenance,
            manifest.Confidence,
            manifest.Unknown,
            manifest.Member,
            PreprocessSpec,
            SoundSpec,
        ),
    )
    for record in records:
        for field in dataclasses.fields(record):
            assert f"`{field.name}`" in text, f"{record.__name__}.{field.name}"
    values = (manifest.Precision, manifest.ModelFormat, manifest.InputForm)
    assert [v for kind in values for v in kind if f"`{v}" not in text] == []
    for precision, tolerance in golden.TOLERANCE.items():
        assert f"| `{precision}` | {tolerance:g} |" in text
    assert f"| `schema_version` | {manifest.SCHEMA_VERSION};" in text


def test_the_changelog_has_this_version_and_its_schema() -> None:
    text = (FOLDER / "changelog.md").read_text(encoding="utf-8")
    entry = text.partition(f"## {__version__}\n")[2].partition("\n## ")[0]
    assert f"schema {BUNDLE_SCHEMA}." in entry, f"say what version {__version__} changed"
    rows = re.findall(r"^\| (\d+) \|", text, re.MULTILINE)
    assert [int(row) for row in rows] == list(range(1, BUNDLE_SCHEMA + 1))
    for name in ("confidence", "splits", "lineage", "relation", "format", "window"):
        assert name in text


def test_every_figure_that_a_page_quotes_stands_on_the_page_of_figures() -> None:
    known = (FOLDER / "figures.md").read_text(encoding="utf-8")
    plain = re.sub(r"`[^`\n]*`", "", known)
    figures = {figure.replace(" ", "") for figure in FIGURE.findall(plain)}
    assert len(figures) > 80
    quoted = 0
    for page in (
        FRONT,
        *(FOLDER / f"{name}.md" for name in ("start", "train", "prune", "distill", "device")),
    ):
        text = re.sub(r"`[^`\n]*`", "", prose(page))
        text += "".join(block.text for block in blocks("text") + blocks("mermaid") if block.page == page)
        wanted = [figure.replace(" ", "") for figure in FIGURE.findall(text)]
        allowed = {"95%", "5%", "93.1%", "1%"}  # What is asked for, or the form of an answer.
        assert [figure for figure in wanted if figure not in figures | allowed] == [], page.name
        quoted += len(wanted)
    assert quoted > 10


def test_every_benchmark_and_test_that_a_page_names_exists() -> None:
    named = 0
    for page in pages():
        text = page.read_text(encoding="utf-8")
        for family in re.findall(r"make bench ONLY=([a-z-]+)", text):
            assert family in families(), f"{page.name}: {family}"
            named += 1
        for path in re.findall(r"`(tests/[\w/.]+\.py)`", text):
            assert (ROOT / path).is_file(), f"{page.name}: {path}"
    assert named > 15
    assert benches.__name__ == "tests.bench"


def test_the_glossary_s_settings_exist() -> None:
    text = (FOLDER / "glossary.md").read_text(encoding="utf-8")
    terms = re.findall(r"^- \*\*(.+?)\*\*: ", text, re.MULTILINE)
    settings = [name for term in terms for name in re.findall(r"`([a-z]+\.[a-z_]+)", term)]
    assert len(settings) > 12
    assert [name for name in settings if name not in config.dotted_names() and ".toml" not in name] == []
    assert all(text.count(peer) > 10 for peer in ("Ultralytics", "timm", "TAO", "OTX"))


def test_the_page_of_devices_names_every_engine() -> None:
    named = spans(FOLDER / "device.md")
    assert [name for name in EngineName if name not in named and name is not EngineName.AUTO] == []
    assert "samples_ms" in {field.name for field in dataclasses.fields(Latency)}


def test_the_front_page_is_one_page() -> None:
    text = FRONT.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 130
    first = "\n".join(text.splitlines()[:30])
    assert "make demo" in first
    assert "make test" in first
