"""A device notices that images changed, says what moved, and keeps quiet while they did not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgetl.bundle import drift as references
from edgetl.bundle.archive import open_bundle
from edgetl.bundle.drift import DriftAnswers, DriftReference, DriftSource
from edgetl.errors import BundleError, BundleIntegrityError, ConfigError
from edgetl.inputs.looks import LOOKS
from edgetl.records.gate import Verdict
from edgetl.report.terminal.drift import drift as show
from edgetl.runtime.betting import AT_ONCE
from edgetl.runtime.drift import Drift, Monitor
from edgetl.runtime.inputs import open_source, predict_all, sampled
from edgetl.runtime.session import load
from edgetl.tasks.base import Classification, MultiHead, TaskSpec
from edgetl.tasks.classification.answers import Candidate, Prediction
from tests import squares
from tests.bundles import picture
from tests.cli.typed import edgetl as typed
from tests.report.test_terminal import shown
from tests.runtime.scenes import scene, watched_bundle, write_scenes
from tests.runtime.test_tasks import COLOURS, TASKS, linear_bundle

SOME = Classification(labels=("rose", "daisy", "tulip"))


def answer(index: int, score: float) -> Prediction:
    label = SOME.labels[index]
    return Prediction(
        label=label, index=index, score=score, top=(Candidate(label=label, index=index, score=score),)
    )


def reference(images: int = 200, seed: int = 0) -> DriftReference:
    generator = np.random.default_rng(seed)
    return DriftReference(
        looks=generator.normal(size=(images, len(LOOKS))).astype(np.float32),
        answers=DriftAnswers(
            sureness=generator.uniform(size=images).astype(np.float32),
            named=np.bincount(generator.choice(3, images, p=(0.6, 0.3, 0.1)), minlength=3),
        ),
    )


def feed(
    monitor: Monitor,
    images: int,
    *,
    seed: int,
    shift: float = 0.0,
    shares: tuple[float, ...] = (0.6, 0.3, 0.1),
) -> int:
    """Let images come until an alarm; how many came."""
    generator = np.random.default_rng(seed)
    for number in range(1, images + 1):
        looks = generator.normal(size=len(LOOKS))
        looks[LOOKS.index("sharpness")] += shift
        monitor.add(looks, answer(int(generator.choice(3, p=shares)), float(generator.uniform())))
        if monitor.drifted:
            return number
    return images


def test_quiet_while_nothing_changed() -> None:
    for seed in range(20):
        monitor = Monitor(reference(seed=seed), SOME)
        feed(monitor, 400, seed=100 + seed)
        state = monitor.state()
        assert not state.drifted
        assert (state.verdict, state.moved, state.at) == (Verdict.PASS, (), None)
        assert 0.0 <= state.evidence < 1.0


def test_a_change_is_found_and_named() -> None:
    for seed in range(10):
        monitor = Monitor(reference(seed=seed), SOME)
        feed(monitor, 300, seed=seed + 1)
        assert feed(monitor, 200, seed=seed + 2, shift=-1.5) < 120
        state = monitor.state()
        assert state.verdict is Verdict.FAIL
        assert state.at is not None
        assert state.since is not None
        assert 290 < state.since <= state.at
        [moved] = state.moved
        assert moved.name == "sharpness"
        assert moved.now < moved.before - 0.8
        assert moved.images <= 50
        assert moved.beyond > 0.7
        assert moved.sentence.startswith("less sharp: median sharpness -")
        assert "less sharp" in state.sentence


def test_a_class_that_comes_more_often_is_named() -> None:
    monitor = Monitor(reference(), SOME)
    feed(monitor, 100, seed=1)
    feed(monitor, 200, seed=2, shares=(0.1, 0.1, 0.8))
    state = monitor.state()
    assert state.drifted
    assert state.moved[0].name == "classes"
    assert "tulip is answered more often: in " in state.sentence
    told = next(one for one in state.moved if one.label == "tulip")
    assert told.now > 0.5
    assert told.before < 0.2


def test_what_is_ignored_is_not_watched() -> None:
    monitor = Monitor(reference(), SOME, Drift(ignore=("classes", "sharpness")))
    feed(monitor, 300, seed=2, shift=3.0, shares=(0.0, 0.0, 1.0))
    state = monitor.state()
    assert not state.drifted
    assert state.watched == (
        "brightness",
        "highlights",
        "contrast",
        "saturation",
        "warmth",
        "tint",
        "confidence",
    )


def test_an_alarm_stays_until_it_is_begun_anew() -> None:
    monitor = Monitor(reference(), SOME)
    feed(monitor, 200, seed=1, shift=2.0)
    at = monitor.state().at
    assert at is not None
    for seed in range(3):
        feed(monitor, 100, seed=seed)
    assert monitor.state().at == at
    monitor.reset()
    assert (monitor.state().images, monitor.drifted) == (0, False)


def test_only_images_that_show_the_change_are_kept() -> None:
    monitor = Monitor(reference(), SOME)
    feed(monitor, 200, seed=1, shift=2.0)
    looks = np.zeros(len(LOOKS))
    assert not monitor.add(looks, answer(0, 0.5))
    looks[LOOKS.index("sharpness")] = 3.0
    assert monitor.add(looks, answer(0, 0.5))


def test_few_images_cannot_tell() -> None:
    monitor = Monitor(reference(), SOME)
    feed(monitor, 10, seed=1)
    state = monitor.state()
    assert state.verdict is Verdict.UNSURE
    assert 20 < state.enough < 150
    assert state.sentence.startswith(
        "Cannot tell from 10 images: a change of one number by 1 standard deviation takes"
    )


def test_equal_values_in_the_reference_are_no_change() -> None:
    """Grey cameras have no colour at all, and a sure model is always sure."""
    looks = np.random.default_rng(0).normal(size=(200, len(LOOKS))).astype(np.float32)
    looks[:, 4:] = 0.0
    known = DriftReference(
        looks=looks, answers=DriftAnswers(sureness=np.ones(200, np.float32), named=np.array([200, 0, 0]))
    )
    monitor = Monitor(known, SOME)
    generator = np.random.default_rng(1)
    for _ in range(300):
        monitor.add(np.concatenate([generator.normal(size=4), np.zeros(3)]), answer(0, 1.0))
    assert not monitor.drifted
    for _ in range(40):
        monitor.add(np.concatenate([generator.normal(size=4), np.full(3, 0.2)]), answer(0, 1.0))
    assert {one.name for one in monitor.state().moved} == {"saturation", "warmth", "tint"}


def test_an_answer_that_is_no_number_is_unsure() -> None:
    monitor = Monitor(reference(), SOME)
    for _ in range(60):
        monitor.add(np.zeros(len(LOOKS)), answer(0, float("nan")))
    assert "less sure answers" in monitor.state().sentence


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"rate": 0.0}, r"^drift: the rate is 0, expected a chance above 0 and below 1, as 0\.01\.$"),
        ({"rate": 1.0}, r"^drift: the rate is 1,"),
        ({"every": 0}, r"^drift: every is 0, expected at least 1\.$"),
        ({"window": 0}, r"^drift: the window is 0, expected at least 1 image\.$"),
        ({"ignore": ("light",)}, r"^drift: ignore has 'light', expected some of brightness, highlights,"),
        ({"ignore": (*LOOKS, "confidence", "classes")}, r"^drift: all is ignored,"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Drift(**wrong)  # type: ignore[arg-type]


def test_a_tiny_reference_is_refused() -> None:
    with pytest.raises(BundleError, match=r"has 3 validation images, too few to tell a change from chance"):
        Monitor(reference(3), SOME)


def test_without_answers_the_pixels_are_watched() -> None:
    looks = reference().looks
    monitor = Monitor(DriftReference(looks=looks, answers=None), SOME)
    state = monitor.state()
    assert state.watched == LOOKS
    assert "Confidence and classes: the bundle does not know" in state.unwatched[0]
    with pytest.raises(ConfigError, match="all else is ignored"):
        Monitor(DriftReference(looks=looks, answers=None), SOME, Drift(ignore=LOOKS))


# --- in a session -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return watched_bundle(tmp_path_factory.mktemp("drift"))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_every_way_to_predict_is_watched(task: TaskSpec, tmp_path: Path) -> None:
    path = watched_bundle(tmp_path, task, images=120)
    files = write_scenes(tmp_path / "dark", 40, light=0.4)
    arrays = [scene(at, light=0.4) for at in range(40)]
    with load(path, threads=1, drift=True) as session:
        for one in arrays:
            session.predict(one)
        single = session.drift
    with load(path, threads=2, drift=Drift()) as session:
        session.predict(arrays)
        many = session.drift
        session.run(np.stack([session.pixels(one) for one in arrays]))
        assert session.drift.images == 40, "raw outputs are no answers"
    with load(path, threads=2, drift=True) as session:
        results = list(predict_all(session, open_source([str(files)])))
        assert session.drift == many == single
    assert single.drifted
    assert "darker" in single.sentence
    told = [at for at, result in enumerate(results, start=1) if result.drift]
    assert single.at is not None
    assert len(told) == 1
    assert 0 <= told[0] - single.at < AT_ONCE, "it is noticed a few images later"
    if isinstance(task, MultiHead):
        assert all("/" in one.label for one in single.moved if one.label)


def test_every_third_image_is_enough(bundle: Path) -> None:
    with load(bundle, threads=1, drift=Drift(every=3)) as session:
        session.predict([scene(at) for at in range(10)])
        assert session.drift.images == 4


def test_explained_answers_are_watched_too(tmp_path: Path) -> None:
    path = watched_bundle(tmp_path)
    with load(path, threads=1, drift=True) as session:
        session.predict(scene(1))
        session.predict([scene(2), scene(3)], explain=True)
        assert session.drift.images == 3


def test_the_command_says_what_moved(bundle: Path, tmp_path: Path) -> None:
    same, dark = write_scenes(tmp_path / "same", 90), write_scenes(tmp_path / "dark", 60, light=0.4)
    done = typed("drift", bundle, same)
    assert done.returncode == 0, done.stderr
    assert "No drift in 90 images" in done.stdout
    done = typed("drift", bundle, dark, "--json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert found["verdict"] == "fail"
    assert found["moved"][0]["name"] in ("brightness", "highlights", "contrast")
    assert "darker" in found["sentence"]
    done = typed("drift", bundle, dark)
    assert done.returncode == 1
    assert "brightness" in done.stdout
    done = typed("drift", bundle, same, "--limit", "5")
    assert done.returncode == 3
    assert "Cannot tell from 5 images" in done.stdout


def test_files_in_order_say_where_it_began(bundle: Path, tmp_path: Path) -> None:
    folder = write_scenes(tmp_path / "day", 60)
    write_scenes(folder, 60, light=0.4, first=60)
    done = typed("drift", bundle, folder, "--in-order", "--json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert 55 <= found["since"] <= 64
    source = open_source([str(folder)])
    names = [item.name for item in sampled(open_source([str(folder)])).items]
    assert sorted(names) == [item.name for item in source.items] != names
    assert len(list(sampled(open_source([str(folder)]), limit=7).items)) == 7


def test_predict_says_it_once(bundle: Path, tmp_path: Path) -> None:
    dark = write_scenes(tmp_path / "dark", 40, light=0.4)
    done = typed("predict", bundle, dark, "--drift", "--json-lines")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(text) for text in done.stdout.splitlines()]
    assert sum("drift" in one for one in lines) == 1
    assert done.stderr.count("Drift, seen at image") == 1
    quiet = typed("predict", bundle, write_scenes(tmp_path / "same", 3), "--drift", "--json")
    assert "Cannot tell from 3 images" in quiet.stderr


def test_tables_show_what_moved(bundle: Path) -> None:
    with load(bundle, threads=1, drift=True) as session:
        session.predict([scene(at, light=0.4) for at in range(60)])
        text = shown(show, session.drift)
    assert "since image" in text
    assert "200 validation images, with a chance of a false alarm of at most 1.0%" in text


def test_an_older_bundle_says_how_to_watch(tmp_path: Path) -> None:
    path = linear_bundle(tmp_path, COLOURS)
    with pytest.raises(
        BundleError, match=r"^drift: .*b\.edgetl was made before .*; make it again with: edgetl run RECIPE$"
    ):
        load(path, threads=1, drift=True)
    (tmp_path / "one.png").write_bytes(picture())
    done = typed("drift", path, tmp_path / "one.png")
    assert done.returncode == 2
    assert "made before bundles knew what their images were like" in done.stderr
    with load(path, threads=1) as session, pytest.raises(ConfigError, match=r"load it with drift=True\.$"):
        _ = session.drift


def test_wrong_options_are_one_sentence(bundle: Path, tmp_path: Path) -> None:
    images = write_scenes(tmp_path / "same", 1)
    for words, sentence in (
        (("--rate", "2"), "drift: the rate is 2, expected a chance above 0 and below 1"),
        (("--ignore", "light"), "drift: ignore has 'light', expected some of brightness"),
    ):
        done = typed("drift", bundle, images, *words)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False)
        assert sentence in " ".join(done.stderr.split())


def test_boxes_are_watched(tmp_path: Path) -> None:
    squares.write_bundle(tmp_path / "b.edgetl")
    with pytest.raises(BundleError, match="made before"):
        load(tmp_path / "b.edgetl", threads=1, drift=True)


def test_a_reference_comes_back_as_it_was(bundle: Path, tmp_path: Path) -> None:
    opened = open_bundle(bundle)
    member = opened.manifest.drift
    assert member is not None
    found = references.reference(opened, opened.variant())
    assert found.answers is not None
    assert found.looks.shape == (200, len(LOOKS))
    assert int(found.answers.named.sum()) == len(found.answers.sureness) == 200
    content = references.encode(DriftSource(looks=found.looks, answers={"fp32": found.answers}))
    assert content == opened.read(member)
    other = replace(opened.variant(), name="added")
    assert references.reference(opened, other).answers is None
    short = DriftAnswers(sureness=found.answers.sureness[:5], named=found.answers.named)
    path = linear_bundle(tmp_path, COLOURS, drift=DriftSource(looks=found.looks, answers={"fp32": short}))
    again = open_bundle(path)
    with pytest.raises(BundleIntegrityError, match="fp32 has 5 answers that name 3 classes, expected 200"):
        references.reference(again, again.variant())
    empty = linear_bundle(tmp_path, COLOURS, drift=DriftSource(looks=found.looks[:0], answers={}))
    with pytest.raises(BundleIntegrityError, match="is of no images"):
        references.reference(open_bundle(empty), again.variant())


def test_a_reference_is_spread_over_the_split() -> None:
    assert references.places(3).tolist() == [0, 1, 2]
    found = references.places(2500)
    assert len(found) == references.MOST
    assert (np.diff(found) >= 2).all()
    assert found[-1] >= 2497
