"""Recordings go the whole way as images do: a recipe by `init`, one run, a bundle that listens, scores and a gate."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import edgetl
from edgetl import pipeline
from edgetl.bundle.archive import open_bundle
from edgetl.config import Augment, load, parse
from edgetl.data.audit import audit
from edgetl.data.build import index_of
from edgetl.data.sheet import write_sheet
from edgetl.deploy.serving import ServeOptions, write_onnx
from edgetl.errors import ConfigError, EdgetlError, ImageError, ModelError, SoundError
from edgetl.inputs.sound import load_mono, windowed
from edgetl.inputs.spec import InputKind
from edgetl.inputs.wave import wave_file
from edgetl.report.terminal import stages
from edgetl.runtime.evaluate import choose_images, evaluate
from tests.cli.typed import edgetl as typed
from tests.report.test_terminal import shown
from tests.sounds import RATE, as_bits, tone, write_tones
from tests.test_pipeline import tiny_recipe

SOUND = {"rate": RATE, "seconds": 0.5, "mels": 32, "frames": 32}


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tones(tmp_path_factory.mktemp("tones"), {"train": 12, "val": 6, "test": 6})


@pytest.fixture(scope="module")
def finished(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> pipeline.Outcome:
    recipe = tiny_recipe(
        tones,
        data={"input": "sound"},
        sound=SOUND,
        preprocess={"size": 32, "resize": "squash"},
        train={"epochs": 1, "augment": "sound"},
        distill={"epochs": 1, "augment": "sound"},
        prune={"start_epochs": 0},
    )
    return pipeline.run(recipe, tmp_path_factory.mktemp("runs") / "tiny")


def test_a_recipe_of_recordings_becomes_a_bundle_that_listens(
    finished: pipeline.Outcome, tones: Path
) -> None:
    assert finished.bundle is not None
    bundle = open_bundle(finished.bundle)
    spec = bundle.manifest.preprocess
    assert spec.sound is not None
    assert (spec.kind, spec.sound.rate, spec.sound.high_hz) == (InputKind.SOUND, RATE, RATE / 2)
    assert {Path(member.file).suffix for member in bundle.manifest.golden.images} == {".wav"}
    path = tones / "test" / "low" / "voice0_0.wav"
    with edgetl.load(finished.bundle) as session:
        assert session.verify().passed
        by_file, by_bytes = session.predict(path), session.predict(path.read_bytes())
        by_samples = session.predict(load_mono(path, spec.sound))
        assert by_file == by_bytes == by_samples
        scores = evaluate(session, choose_images(tones, [bundle]).samples)
        measured = session.variant.test
        assert measured is not None
        assert scores.scores["top1"].value == pytest.approx(measured.scores["top1"].value)
        with pytest.raises(SoundError, match="is an MP3"):
            session.predict(b"ID3" + bytes(40))


def _edgetl(*words: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "edgetl", *map(str, words)]
    return subprocess.run(command, input=stdin, capture_output=True, check=False)


def test_a_label_comes_for_every_hop_of_raw_samples(finished: pipeline.Outcome) -> None:
    words = [tone(hertz, 0.5, seed=7) for hertz in (300.0, 2600.0)]
    raw = as_bits(np.concatenate(words), 16)
    done = _edgetl("predict", finished.bundle, "-", "--pcm", RATE, "--hop", 0.25, "--json-lines", stdin=raw)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["path"], line["seconds"]) for line in lines] == [
        ("sound#0", 0.0),
        ("sound#1", 0.25),
        ("sound#2", 0.5),
    ]
    assert all(line["time"] for line in lines)
    done = _edgetl("predict", finished.bundle, "-", "--pcm", RATE, stdin=raw)
    assert done.returncode == 2
    assert b"may have no end: give --json-lines, or --limit." in done.stderr


def test_a_model_that_makes_the_picture_itself_answers_as_predict_does(
    finished: pipeline.Outcome, tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime as ort

    out = tmp_path / "m.onnx"
    assert finished.bundle is not None
    with edgetl.load(finished.bundle) as session:
        spec, name = session.manifest.preprocess.sound, session.variant.name
        assert spec is not None
        words = ("onnx", finished.bundle, "-o", out, "--samples", "--softmax", "--variant", name, "--json")
        done = _edgetl(*words)
        assert done.returncode == 0, done.stderr
        record = json.loads(done.stdout)
        made = record["spectrogram"]
        assert made.pop("steps") <= made["limit"]
        recordings = len(session.manifest.golden.images)
        same = {"recordings": recordings, "limit": 1, "same": 1.0, "rate": RATE, "samples": spec.samples}
        assert made == same
        paths = sorted(tones.glob("test/*/*.wav"))[::3]
        windows = np.stack([windowed(load_mono(path, spec), spec.samples) for path in paths])
        model = ort.InferenceSession(out, providers=["CPUExecutionProvider"])
        (shares,) = model.run(None, {"samples": windows})
        assert [session.labels[at] for at in shares.argmax(1)] == [
            one.label for one in session.predict(paths)
        ]
    text = shown(stages.serve, write_onnx(finished.bundle, ServeOptions(samples=True, variant=name), out))
    assert (
        f"one channel of 8,000 samples per second, about -1 to 1; of it a window of {spec.samples:,}" in text
    )
    assert "of 255 from numpy's (allowed 1)" in text
    for options, sentence in (
        (ServeOptions(uint8=True, samples=True), "--uint8 takes pictures, --samples the sounds"),
        (ServeOptions(samples=True, variant="absent"), "has no variant"),
    ):
        with pytest.raises(EdgetlError, match=sentence):
            write_onnx(finished.bundle, options, out)
    monkeypatch.setattr("edgetl.export.spectrogram.most_steps", lambda spec: -1)
    with pytest.raises(
        ModelError, match=r"from the bundle's, allowed -1: its float32 cannot hold 80 dB\. Leave"
    ):
        write_onnx(finished.bundle, ServeOptions(samples=True, variant=name), out)


def test_the_report_shows_what_was_heard(finished: pipeline.Outcome) -> None:
    page = (finished.run_dir / "report.html").read_text(encoding="utf-8")
    if "Surest mistakes" in page:
        assert "no picture" not in page.split("Surest mistakes")[1].split("</ul>")[0]


def test_what_a_device_heard_can_be_kept_and_labelled(
    finished: pipeline.Outcome, tones: Path, tmp_path: Path
) -> None:
    from edgetl.runtime.capture import Capture

    with edgetl.load(finished.bundle, capture=Capture(tmp_path, below=1.0, alike=1.0)) as session:
        session.predict(tone(500.0, 0.5, seed=3))
        session.predict(wave_file(tone(700.0, 0.5, seed=4), RATE))
    kept = sorted(tmp_path.glob("*.wav"))
    assert len(kept) == 2
    with edgetl.load(finished.bundle) as session:
        assert len(session.predict(kept)) == 2
    done = typed("data", "add", tmp_path, "-o", tmp_path / "to_label")
    assert done.returncode == 0, done.stderr
    assert "distill.unlabelled" not in done.stdout
    labels = tmp_path / "to_label" / "labels.csv"
    head, first, _ = labels.read_text().splitlines()
    labels.write_text(f"{head}\n{first.replace(',', ',low', 1)}\n")
    (tmp_path / "to_label" / "silence.wav").write_bytes(wave_file(np.zeros(RATE, np.float32), RATE))
    words = ("--labels", labels, "--data", tones, "-o", tmp_path / "next.csv", "--json")
    done = typed("data", "add", tmp_path / "to_label", *words)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert (record["kind"], record["before"], record["added"], record["near"]) == ("sound", 72, 1, [])
    assert "is silent" in record["unreadable"][0][1]


def test_init_and_data_check_know_recordings(tones: Path, tmp_path: Path) -> None:
    recipe_path = tmp_path / "r.toml"
    done = _edgetl("init", tones, "-o", recipe_path)
    assert done.returncode == 0, done.stderr
    assert b"36 training recordings, 3 classes" in done.stdout
    recipe = load(recipe_path)
    assert (recipe.data.input, recipe.sound.rate, recipe.sound.seconds) == (InputKind.SOUND, RATE, 0.3)
    index = index_of(recipe.data, sound=recipe.sound.spec)
    report = audit(index)
    assert (report.images, report.kind, report.near_duplicates, report.odd_sizes) == (
        72,
        InputKind.SOUND,
        (),
        (),
    )
    write_sheet(index, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 10_000


def test_what_is_usual_of_sounds_is_so_unasked() -> None:
    recipe = parse({"data": {"input": "sound"}})
    assert (recipe.preprocess.resize, recipe.train.augment, recipe.distill.augment) == (
        "squash",
        Augment.SOUND,
        Augment.SOUND,
    )
    assert parse({"data": {"input": "sound"}, "train": {"augment": "none"}}).train.augment is Augment.NONE


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"train": {"augment": "sound"}}, "train.augment = sound is for recordings, and data.input is image"),
        ({"sound": {"rate": 8000}}, r"\[sound\] is for recordings, and data.input is image"),
        (
            {"data": {"input": "sound"}, "preprocess": {"resize": "crop"}},
            "preprocess.resize = crop would cut off",
        ),
        (
            {"data": {"input": "sound"}, "train": {"augment": "basic"}},
            "train.augment = basic is for pictures of things",
        ),
        ({"data": {"input": "sound"}, "task": {"kind": "detection"}}, "task.kind = detection is for images"),
        (
            {"data": {"input": "sound"}, "adapt": {"images": "x"}},
            r"\[adapt\] is for images, and data.input is sound",
        ),
        (
            {"data": {"input": "sound"}, "pretrain": {"images": "x"}},
            "pretrain.images is for images, and data.input is sound",
        ),
        ({"data": {"input": "sound"}, "sound": {"mels": 500}}, "take fewer bands, or a longer window_ms"),
        ({"data": {"group_pattern": "("}}, "data.group_pattern.*it is no regular expression"),
    ],
)
def test_what_does_not_go_together_is_refused(values: dict[str, dict[str, object]], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse(values)


def test_a_bundle_for_sounds_says_so_of_a_picture(finished: pipeline.Outcome, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with (
        edgetl.load(finished.bundle) as session,
        pytest.raises(ImageError, match="is a picture, not a recording"),
    ):
        session.predict(tmp_path / "a.png")
