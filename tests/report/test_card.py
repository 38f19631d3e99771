"""The model card: what it says of a run, of a bundle alone, and of every task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgetl.bundle.archive import Bundle, open_bundle
from edgetl.bundle.pack import pack
from edgetl.inputs.spec import SoundSpec
from edgetl.records.lineage import LineageStep
from edgetl.records.measured import Machine
from edgetl.records.origin import WeightsOrigin
from edgetl.report.card import CARD_NAME, card, write_card
from edgetl.report.run import RunReport
from edgetl.tasks.base import TaskSpec
from tests.bench_stage.bundles import evaluation
from tests.bundles import contents
from tests.cli.typed import edgetl
from tests.report.conftest import latency
from tests.runtime.test_tasks import COLOURS, MARKS, TASKS, linear_bundle

MACHINE = Machine(cpu="A CPU", cores=2, memory_bytes=2**33, system="Linux x86_64", python="3.11")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("card")
    parts = contents(folder)
    made = replace(
        parts.provenance,
        lineage=(LineageStep(kind="train", name="a|b", images=40, classes=("rose", "daisy")),),
        weights=(
            WeightsOrigin(
                network="convnextv2_tiny", source="a hub", licence="CC-BY-NC-4.0", stated_by="timm of it"
            ),
        ),
    )
    variants = [
        replace(one, val=evaluation(80), test=evaluation(30, 30), latency=latency(2.0), machine=MACHINE)
        for one in parts.variants
    ]
    splits = {"train": ["1" * 64, "2" * 64], "val": ["3" * 64], "test": []}
    pack(replace(parts, provenance=made, variants=variants, splits=splits), folder / "photos.edgetl")
    return open_bundle(folder / "photos.edgetl")


def test_a_bundle_alone_says_what_it_knows(bundle: Bundle) -> None:
    text = card(bundle)
    heads = [line for line in text.splitlines() if line.startswith("#")]
    assert heads == [
        "# flowers",
        "## What it is",
        "## Limits",
        "## Figures",
        "## Latency and size",
        "## Data",
        "## Licences",
        "## Provenance",
    ]
    assert "| answers | one of 3 classes for a picture |" in text
    assert "| top-1 | 88.9% (80.7 to 93.9%) | 100.0% (88.6 to 100.0%) |" in text
    assert "on A CPU x2, Linux x86_64, 8.00 GiB. Elsewhere it takes another time." in text
    assert "| **fp32** | fp32 | any |" in text
    assert "Different images: 2 training, 1 validation, 0 test." in text
    assert r"in order: 40 images of 2 classes (a\|b)." in text
    assert "Its figures are of few images (30 in the smaller split)" in text
    assert "| numpy |" in text
    assert f"| SHA-256 of the bundle | {bundle.sha256()} |" in text


def test_weights_that_may_not_be_sold_are_a_limit(bundle: Bundle) -> None:
    text = card(bundle)
    assert (
        "- convnextv2_tiny: its first weights are under CC-BY-NC-4.0, which forbids commercial use." in text
    )
    assert "| convnextv2_tiny | a hub | CC-BY-NC-4.0 | timm of it |" in text


def test_with_its_run_it_says_more(bundle: Bundle, report: RunReport, tmp_path: Path) -> None:
    near = replace(report, data=replace(report.data, near_copies=3), warnings=("Mind\nthe gap.",))
    text = card(bundle, near)
    assert "| teacher | efficientnet\\_lite0 |" not in text
    assert f"| teacher | {report.teacher.backbone} |" in text
    assert "the teacher on test" in text
    assert "| rose |" in text
    assert "3 images of validation and test have a near-copy in another split" in text
    assert "- Mind the gap." in text
    failed = replace(near, measure=replace(near.measure, floor_met=False))
    assert "No variant kept the accuracy floor of its run" in card(bundle, failed)
    write_card(bundle, near, tmp_path / CARD_NAME)
    assert (tmp_path / CARD_NAME).read_text() == text


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_every_task_has_a_card(task: TaskSpec, tmp_path: Path) -> None:
    text = card(open_bundle(linear_bundle(tmp_path, task)))
    asked = {
        "classification": "one of 3 classes for a picture",
        "multilabel": "any number of 2 classes for a picture",
        "multihead": (
            "several questions: colour: one of 3 classes for a picture; marks: any number of 2 classes for a picture"
        ),
    }
    assert f"| answers | {asked[task.kind]} |" in text
    assert ("red, green, blue" in text) == (task in (COLOURS, TASKS[2]))
    assert ("dry, cut" in text) == (task in (MARKS, TASKS[2]))
    assert "Nothing was measured." in text
    assert "The bundle does not say where its first weights come from." in text


def test_the_command_prints_or_writes_it(bundle: Bundle, tmp_path: Path) -> None:
    done = edgetl("card", bundle.path)
    assert done.stdout == card(bundle)
    done = edgetl("card", bundle.path, "-o", tmp_path / "card.md")
    assert (done.returncode, done.stdout) == (0, "")
    assert (tmp_path / "card.md").read_text() == card(bundle)
    done = edgetl("card", tmp_path)
    assert done.returncode == 2
    assert "holds no finished run" in done.stderr


def test_of_sounds_it_speaks_of_recordings(tmp_path: Path) -> None:
    parts = contents(tmp_path)
    heard = replace(parts.preprocess, sound=SoundSpec(rate=16_000, seconds=2.0, high_hz=8000.0))
    pack(replace(parts, preprocess=heard), tmp_path / "sounds.edgetl")
    text = card(open_bundle(tmp_path / "sounds.edgetl"))
    assert "| answers | one of 3 classes for a recording |" in text
    assert "| takes | recordings, 2 s of each at 16000 Hz, as 32 x 32 pixels" in text
    assert "picture" not in text
