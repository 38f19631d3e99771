"""Two runs or bundles beside each other, of every task."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgetl.comparison.record import Comparison
from edgetl.comparison.stage import ComparisonConfig, page_name, run
from edgetl.data.build import index_of
from edgetl.data.index import Sample
from edgetl.errors import BundleError, ConfigError, DataError
from edgetl.records.codec import from_json, to_json
from edgetl.report.page.comparison import render
from edgetl.report.terminal.comparison import comparison
from edgetl.statistics import paired_interval
from edgetl.tasks.base import Classification, MultiHead, MultiLabel
from tests import squares
from tests.bench_stage.bundles import LABELS, colour_png, write_bundle
from tests.bundles import picture
from tests.cli.typed import edgetl
from tests.comparison.runs import write_run
from tests.report.test_terminal import shown
from tests.runtime.test_tasks import COLOURS, MARKS, linear_bundle

TASK = Classification(labels=LABELS)
CONFUSED = np.array([[1, 0, 0], [0, 0, 1], [0, 1, 0]])
RECIPE = 'name = "one"\nseed = 0\n[train]\nbackbone = "lite0"\nepochs = 8\n'
OTHER = (
    'name = "two"\nseed = 0\n[train]\nbackbone = "lite1"\n[prune]\ntarget = {kind = "latency", ms = 5.0}\n'
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles good and wrong (green for blue and back); runs of them whose validation images overlap."""
    home = tmp_path_factory.mktemp("comparison")
    write_bundle(home / "good.edgetl", data_sha256="d" * 64)
    write_bundle(home / "wrong.edgetl", weights=CONFUSED, layers=3, data_sha256="e" * 64)
    photos = []
    (home / "photos").mkdir()
    for at in range(12):
        path = home / "photos" / f"{at:02}.png"
        path.write_bytes(colour_png(at % 3, noise=at))
        photos.append((path, at % 3))
    write_run(home / "one", home / "good.edgetl", TASK, photos[:10], recipe=RECIPE)
    write_run(home / "two", home / "wrong.edgetl", TASK, photos[2:], recipe=OTHER, median_ms=1.0)
    return home


@pytest.fixture(scope="module")
def compared(home: Path) -> Comparison:
    return run(home / "one", home / "two", ComparisonConfig(threads=1))


def test_runs_are_compared_on_the_images_that_both_were_validated_with(compared: Comparison) -> None:
    images = compared.images
    assert (images.images, images.only_first, images.only_second, images.relabelled) == (8, 2, 2, 0)
    # Of images 2 to 9 the classes are 2, 0, 1, 2, 0, 1, 2, 0: five are green or blue.
    assert (compared.right.only_first, compared.right.only_second, compared.both_right) == (5, 0, 3)
    assert compared.right.interval == paired_interval(5, 0, 8)
    [accuracy, *_] = compared.checks
    assert (accuracy.baseline, accuracy.current) == (1.0, 0.375)
    assert compared.flips is not None
    assert (compared.flips.lost, compared.flips.won) == (5, 0)
    assert compared.flips.images[0].path == "02.png"
    assert (compared.flips.images[0].before, compared.flips.images[0].after) == ("blue", "green")
    assert from_json(Comparison, json.loads(json.dumps(to_json(compared)))) == compared


def test_settings_and_origins_that_differ_are_told(compared: Comparison) -> None:
    assert compared.settings is not None
    assert {one.key: (one.first, one.second) for one in compared.settings} == {
        "train.backbone": ("lite0", "lite1"),
        "train.epochs": ("8", "unset"),
        "prune.target.kind": ("unset", "latency"),
        "prune.target.ms": ("unset", "5.0"),
    }
    assert [one.key for one in compared.origins] == ["data.sha256"]


def test_latency_and_size_stand_side_by_side_with_what_to_mind(compared: Comparison) -> None:
    first, second = compared.first, compared.second
    assert first.latency is not None
    assert second.latency is not None
    assert (round(first.latency.p50_ms), round(second.latency.p50_ms)) == (2, 1)
    assert second.size_bytes > first.size_bytes
    assert compared.notes == (
        "The splits differ: 2 images only in one's, 2 only in two's; all figures are of the 8 in both.",
        "Epochs, cuts and variants were chosen by validation images, so both scores are better than on new ones.",
        "So few images (8) tell only large differences.",
        "The latencies were measured at other times, between which a machine differs from itself; time both in turn"
        " with --seconds 20.",
    )


def test_the_terminal_says_who_is_better(compared: Comparison) -> None:
    text = shown(comparison, compared, width=200)
    assert "On 8 validation images: 5 right in one alone, 0 in two alone; -62.5 points" in text
    assert "chance alone may explain the difference." in text  # five flips, all one way: p = 0.06
    assert "4 settings differ" in text
    assert "train.epochs" in text
    assert "02.png" in text
    assert "latency p50" in text


def test_the_page_shows_the_flipped_pictures_and_both_distributions(compared: Comparison) -> None:
    page = render(compared)
    assert page.count("data:image/jpeg;base64,") == 5
    assert "Right in one, wrong in two: 5 images" in page
    assert page.count("Cumulative distribution of latency") == 2  # for wide and for small screens
    assert "train.backbone" in page
    assert "<script" not in page
    assert page_name(compared) == "compare-one-two.html"


def test_without_a_common_image_two_runs_are_refused(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.png"
    path.write_bytes(colour_png(1, noise=99))
    write_run(tmp_path / "far", home / "good.edgetl", TASK, [(path, 1)])
    with pytest.raises(DataError) as met:
        run(home / "one", tmp_path / "far", ComparisonConfig())
    assert str(met.value) == (
        f"{home}/one (10 validation images) and {tmp_path}/far (1) have no validation image in common. Compare both on"
        " one labelled set that neither learned from, with --data."
    )
    with pytest.raises(DataError, match=r"\(0 test images\).* no test image in common"):
        run(home / "one", home / "two", ComparisonConfig(split="test"))


def test_images_that_were_labelled_anew_are_left_out(home: Path, tmp_path: Path) -> None:
    photos = [(home / "photos" / f"{at:02}.png", at % 3 if at else 2) for at in range(10)]
    write_run(tmp_path / "again", home / "good.edgetl", TASK, photos)
    found = run(home / "one", tmp_path / "again", ComparisonConfig(threads=1))
    assert (found.images.images, found.images.relabelled) == (9, 1)
    assert "since the two label them differently: 1 image." in " ".join(found.notes)
    every = [(path, (label + 1) % 3) for path, label in photos]
    write_run(tmp_path / "none", home / "good.edgetl", TASK, every)
    with pytest.raises(
        DataError, match=r"The 10 validation images .* are all labelled differently; .* with --data"
    ):
        run(tmp_path / "again", tmp_path / "none", ComparisonConfig())


def test_images_that_have_moved_are_read_where_the_other_run_has_them(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "photos", tmp_path / "copy")
    moved = [(tmp_path / "copy" / f"{at:02}.png", at % 3) for at in range(10)]
    write_run(tmp_path / "moved", home / "good.edgetl", TASK, moved)
    for path, _ in moved:
        path.unlink()
    found = run(tmp_path / "moved", home / "one", ComparisonConfig(threads=1))
    assert found.images.root == str((home / "photos").resolve())
    with pytest.raises(DataError, match=r"00\.png is no longer there, .* Bring the images back"):
        run(tmp_path / "moved", tmp_path / "moved", ComparisonConfig())


def test_bundles_are_compared_on_a_named_set(home: Path, tmp_path: Path) -> None:
    for at in range(9):
        folder = tmp_path / "set" / LABELS[at % 3]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{at}.png").write_bytes(colour_png(at % 3, noise=50 + at))
    good, wrong = home / "good.edgetl", home / "wrong.edgetl"
    with pytest.raises(
        ConfigError, match=r"good\.edgetl: a bundle does not hold .* Name labelled images with --data"
    ):
        run(good, home / "one", ComparisonConfig())
    found = run(wrong, good, ComparisonConfig(data=tmp_path / "set", threads=1, seconds=0.2))
    assert (found.right.only_first, found.right.only_second) == (0, 6)
    assert found.settings is None
    assert found.trial is not None
    assert "Timed in turn in one process" in (page := render(found))
    assert "A bundle does not hold its recipe" in page
    assert page.count("Cumulative distribution of latency") == 2


def test_what_cannot_be_compared_is_refused_in_a_sentence(home: Path, tmp_path: Path) -> None:
    write_bundle(tmp_path / "violet.edgetl", labels=("red", "green", "violet"))
    write_bundle(tmp_path / "order.edgetl", labels=("green", "red", "blue"))
    marks = linear_bundle(tmp_path, MARKS)
    for other, said in (
        (
            tmp_path / "violet.edgetl",
            r"\(.*good\.edgetl alone knows blue; .*violet\.edgetl alone knows violet\)\. Compare",
        ),
        (
            tmp_path / "order.edgetl",
            r"\(they have them in another order\)\. Compare runs of the same classes",
        ),
        (
            marks,
            r"of the task classification, .* of multilabel: they answer other questions\. Compare runs of one task",
        ),
    ):
        with pytest.raises(ConfigError, match=said):
            run(home / "good.edgetl", other, ComparisonConfig())
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        BundleError, match=r"empty holds no finished run: .* Finish it with: edgetl run recipe\.toml --out"
    ):
        run(tmp_path / "empty", home / "one", ComparisonConfig())
    shutil.copytree(home / "one", tmp_path / "broken")
    (tmp_path / "broken" / "report.json").write_text("{}")
    with pytest.raises(
        BundleError, match=r"a run that cannot be read .* Run it again, or compare the bundles with"
    ):
        run(tmp_path / "broken", home / "one", ComparisonConfig())


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        (MARKS, ((0,), (), (0, 1), (1,))),
        (MultiHead(heads={"colour": COLOURS, "marks": MARKS}), ((1, (0,)), (0, None), (None, ()), (2, (1,)))),
    ],
    ids=["multilabel", "multihead"],
)
def test_every_task_is_compared_by_its_own_metrics(
    task: MultiLabel | MultiHead, labels: tuple[object, ...], tmp_path: Path
) -> None:
    images = []
    for at, label in enumerate(labels):
        path = tmp_path / f"{at}.png"
        path.write_bytes(picture(at))
        images.append((path, label))
    for name, seed in (("one", 0), ("two", 1)):
        (tmp_path / f"made-{name}").mkdir()
        write_run(tmp_path / name, linear_bundle(tmp_path / f"made-{name}", task, seed=seed), task, images)
    found = run(tmp_path / "one", tmp_path / "two", ComparisonConfig(threads=1))
    names = [check.name for check in found.checks]
    assert names == (
        ["macro-F1", "recall", "false alarms"]
        if isinstance(task, MultiLabel)
        else [
            "colour accuracy",
            "colour macro-F1",
            "colour recall",
            "marks macro-F1",
            "marks recall",
            "marks false alarms",
        ]
    )
    assert found.right.images == 4
    assert "wholly right" in shown(comparison, found)
    assert "wholly right" in render(found)


def test_detectors_are_compared_by_map_and_by_their_boxes(tmp_path: Path) -> None:
    from edgetl import config

    source = squares.write_set(tmp_path / "set", 5)
    index = index_of(config.parse({"data": {"source": str(source)}}).data, labelling=None, seed=0)
    samples: list[Sample] = [replace(sample, split="val") for sample in index.samples]
    for name, model in (("sound", squares.model()), ("blind", squares.model(blind=1))):
        bundle = squares.write_bundle(tmp_path / f"{name}.edgetl", {"fp32": model})
        write_run(tmp_path / name, bundle, squares.TASK, [], samples=samples)
    found = run(tmp_path / "sound", tmp_path / "blind", ComparisonConfig(threads=1))
    assert [check.name for check in found.checks] == ["mAP", "class AP"]
    assert found.flips is None
    assert found.boxes is not None
    assert found.boxes.lost > 0
    assert found.boxes.won == 0
    assert found.right.only_first > 0
    assert "Boxes that changed" in render(found)
    assert "lost" in shown(comparison, found)


def test_the_command_writes_a_page_and_json(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = edgetl("report", home / "one", home / "two", "--json", "--threads", 1)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["right"]["only_first"] == 5
    assert (tmp_path / "compare-one-two.html").read_text().startswith("<!doctype html>")
    done = edgetl("report", home / "one", home / "good.edgetl")
    assert done.returncode == 2
    assert "Name labelled images with --data, or compare run folders." in done.stderr
    done = edgetl("report", tmp_path)
    assert done.returncode == 2
    assert (
        "holds no finished run: there is no report.json. Finish it with: edgetl run recipe.toml --out"
        in done.stderr
    )
