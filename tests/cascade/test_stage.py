"""A cascade from two bundles to one that answers, checks itself and says what it was worth."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edgetl
from edgetl.bundle.archive import open_bundle
from edgetl.bundle.pack import pack
from edgetl.cascade import stage
from edgetl.cascade.stage import CascadeConfig
from edgetl.errors import BundleError, ConfigError, DataError, EdgetlError
from edgetl.inputs.spec import Resize
from edgetl.records.cascade import CascadeRecord
from edgetl.runtime.evaluate import evaluate_folder
from edgetl.tasks.base import MultiLabel
from tests.bundles import contents
from tests.cascade.bundles import LARGE, SMALL, bundle, config, pictures
from tests.cli.typed import edgetl as typed


def test_a_cascade_is_faster_and_not_worse(made: CascadeRecord) -> None:
    found = made.cascade
    assert made.holds, made.reason
    assert made.reason.startswith("no worse than the larger model on 60 images, and faster: 0.")
    assert (found.chosen_on, found.judged_on, made.left_out) == (60, 60, 0)
    assert 0 < found.handed_on < 0.8
    assert made.latency.mean_ms < found.large_latency.mean_ms
    assert made.latency.p99_ms >= made.latency.mean_ms
    assert found.small.top1.value < found.top1.value
    assert found.large.top1.value * 60 - found.lost + found.won == pytest.approx(found.top1.value * 60)


def test_its_bundle_is_a_bundle_like_any_other(place: Path, made: CascadeRecord) -> None:
    path = Path(made.path)
    with edgetl.load(path, threads=1) as session:
        assert session.variant.cascade == made.cascade
        assert session.verify().passed
        assert session.predict(place / "set" / "test" / "green" / "000.png").label == "green"
        [covered] = evaluate_folder(session, place / "set", coverage=0.9).coverage
        assert covered.held.value > 0.6
        with pytest.raises(EdgetlError, match="pooling"):
            session.predict(place / "set" / "test" / "green" / "000.png", explain=True)
        with pytest.raises(
            BundleError, match="is a cascade of two models, which judges no unknown images; ask"
        ):
            session.predict(place / "set" / "test" / "green" / "000.png", unknown=0.1)
    assert open_bundle(path).splits() is not None
    for words in (("info",), ("verify",), ("eval", place / "set")):
        done = typed(words[0], path, *words[1:])
        assert done.returncode == 0, done.stderr
    assert "hands on" in typed("info", path).stdout


def test_golden_images_are_of_both_kinds(made: CascadeRecord) -> None:
    opened = open_bundle(Path(made.path))
    with edgetl.load(opened.path, threads=1) as session:
        pixels = np.stack([session.pixels(image) for image in opened.golden_images()])
        handed = session.backend.run(np.stack([_normalised(session, one) for one in pixels]))["handed_on"]
    assert len(pixels) == stage.GOLDEN_IMAGES
    share = float(handed.mean())
    assert share == pytest.approx(made.cascade.handed_on, abs=0.07)


def _normalised(session: edgetl.Session, pixels: np.ndarray) -> np.ndarray:
    from edgetl.inputs.spec import normalise

    return normalise(pixels[None], session.manifest.preprocess)[0]


def test_the_command_writes_and_says_the_same(place: Path) -> None:
    words = ("cascade", "small.edgetl", "large.edgetl", "set")
    paths = [place / word if "." in word or word == "set" else word for word in words]
    done = typed(*paths, "-o", place / "typed.edgetl", "--threads", "1", "--runs", "100", "--json")
    assert done.returncode == 0, done.stderr
    stated = json.loads(done.stdout)
    assert stated["holds"] is True
    assert stated["cascade"]["judged_on"] == 60
    again = typed(*paths, "-o", place / "typed.edgetl")
    assert again.returncode == 2
    assert again.stderr.endswith("typed.edgetl is there already; choose another name with -o.\n")


def test_images_that_a_model_was_trained_on_are_left_out(place: Path, tmp_path: Path) -> None:
    learned = sorted((place / "set" / "val").glob("*/00*.png"))
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in learned]
    small = bundle(tmp_path / "small.edgetl", SMALL, 15, splits={"train": hashes})
    record = stage.run(config(place, tmp_path / "both.edgetl", small=small, runs=30))
    assert record.left_out == len(learned) == 30
    assert record.cascade.chosen_on + record.cascade.judged_on == 90
    splits = open_bundle(Path(record.path)).splits()
    assert splits is not None
    assert (splits.count("train"), splits.count("val")) == (30, 90)


def _refused(asked: CascadeConfig, kind: type[EdgetlError], words: str) -> None:
    with pytest.raises(kind, match=words):
        stage.run(asked)
    assert not asked.out.exists()


def test_what_makes_no_cascade_is_refused(place: Path, tmp_path: Path, made: CascadeRecord) -> None:
    out = tmp_path / "out.edgetl"
    other = bundle(tmp_path / "other.edgetl", SMALL, 15, labels=("red", "green", "cyan"))
    _refused(config(place, out, small=other), BundleError, r"different labels \('blue' is in one alone\)")
    turned = bundle(tmp_path / "turned.edgetl", SMALL, 15, labels=("green", "red", "blue"))
    _refused(config(place, out, small=turned), BundleError, r"\(they stand in another order\)")
    padded = bundle(tmp_path / "padded.edgetl", replace(SMALL, resize=Resize.PAD), 15)
    _refused(config(place, out, small=padded), BundleError, r"prepare pictures differently \(resize\)")
    unsure = bundle(tmp_path / "unsure.edgetl", SMALL, 15, sure=False)
    _refused(
        config(place, out, small=unsure), BundleError, "does not know how sure its variant fp32 is, since"
    )
    _refused(config(place, out, small=Path(made.path)), BundleError, "is a cascade itself; make one of the")
    arm, x86 = (
        bundle(tmp_path / f"{name}.edgetl", spec, 15, target=name)
        for name, spec in (("cpu-arm", SMALL), ("cpu-x86", LARGE))
    )
    asked = {"small_variant": "fp32", "large_variant": "fp32"}
    _refused(config(place, out, small=arm, large=x86, **asked), BundleError, "made for different machines")


def test_another_task_is_refused(place: Path, tmp_path: Path) -> None:
    labels = MultiLabel(labels=("rose", "daisy", "tulip"))
    pack(replace(contents(tmp_path), task=labels), tmp_path / "tags.edgetl")
    asked = config(place, tmp_path / "out.edgetl", large=tmp_path / "tags.edgetl")
    _refused(asked, BundleError, "is of the task multilabel; a cascade is for one class per image")


def test_a_cascade_is_made_for_the_narrower_of_two_targets(place: Path, tmp_path: Path) -> None:
    small = bundle(tmp_path / "small.edgetl", SMALL, 15, target="cpu-x86")
    large = bundle(tmp_path / "large.edgetl", LARGE, 0.5, slow=True, target="cpu-x86-vnni")
    asked = config(place, tmp_path / "out.edgetl", small=small, large=large, runs=30)
    stage.run(replace(asked, small_variant="fp32", large_variant="fp32"))
    assert open_bundle(asked.out).variant().target == "cpu-x86-vnni"


def test_a_threshold_that_is_of_no_use_is_refused(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.edgetl"
    large = place / "large.edgetl"
    _refused(config(place, out, small=large), BundleError, "A cascade adds nothing: on the 60 images")
    wrong = bundle(tmp_path / "wrong.edgetl", SMALL, -200)
    _refused(config(place, out, small=wrong), BundleError, "A cascade would hand on every image: on the 60")
    rough = bundle(tmp_path / "rough.edgetl", LARGE, 15)
    _refused(
        config(place, out, large=rough, floor=1.0),
        BundleError,
        r"No threshold reaches the floor of 100.0%: on the 60 images .* best cascade of them on \d\d.\d%; ask",
    )
    with pytest.raises(ConfigError, match="floor is 97, expected a top-1 above 0 and at most 1"):
        config(place, out, floor=97.0)


def test_too_few_images_are_refused(place: Path, tmp_path: Path) -> None:
    few = pictures(tmp_path / "few", {"train": 1, "val": 5})
    words = "has 15 labelled images that neither model was trained on, and a cascade needs 40"
    _refused(config(place, tmp_path / "out.edgetl", data=few), DataError, words)


def test_one_that_is_not_faster_is_written_and_said_so(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = {"cascade": [1.1] * 30, "large": [1.0] * 30}
    monkeypatch.setattr(stage, "time_interleaved", lambda calls, **_: samples)
    record = stage.run(config(place, tmp_path / "out.edgetl", runs=30))
    assert not record.holds
    assert "NOT FASTER" in record.reason
    assert Path(record.path).exists()
