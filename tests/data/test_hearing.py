from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgetl.data import other_classes
from edgetl.data.hearing import listen, suggest_sound
from edgetl.data.index import build_index, load
from edgetl.data.sources import find, grouped, kind_in
from edgetl.errors import DataError
from edgetl.inputs.spec import InputKind
from edgetl.inputs.wave import wave_file
from edgetl.tasks.base import MultiLabel
from edgetl.tasks.labelling import AnyLabels
from tests.data.images import Recorder, Settings, fill
from tests.sounds import RATE, SPEC, as_bits, riff, tone, write_tones


def _chosen(root: Path) -> dict[str, object]:
    found = find(str(root), kind=InputKind.SOUND)
    return {item.key: item.value for item in suggest_sound(listen(found))}


def test_a_folder_of_recordings_is_told_from_one_of_images(tmp_path: Path) -> None:
    sounds, images = write_tones(tmp_path / "s", {"": 3}), fill(tmp_path / "i", {"a": 3, "b": 3})
    assert kind_in(str(sounds)) is InputKind.SOUND
    assert kind_in(str(images)) is InputKind.IMAGE
    (images / "a" / "note.wav").write_bytes(b"")
    assert kind_in(str(images)) is InputKind.IMAGE
    table = tmp_path / "s.csv"
    table.write_text("path,label\ns/high/voice0_0.wav,high\ns/low/voice0_0.wav,low\n")
    assert kind_in(str(table)) is InputKind.SOUND
    assert kind_in("digits") is InputKind.IMAGE


def test_settings_fit_what_was_heard(tmp_path: Path) -> None:
    root = write_tones(tmp_path, {"": 12})
    chosen = _chosen(root)
    assert chosen["data.input"] == "sound"
    assert chosen["data.group_pattern"] == r"([^/]+)[_-]\d+\.[^./]+$"
    assert (chosen["sound.rate"], chosen["sound.seconds"], chosen["sound.frames"]) == (RATE, 0.3, 96)
    assert (chosen["preprocess.size"], chosen["preprocess.resize"]) == (96, "squash")
    assert "sound.channel" not in chosen


def test_long_recordings_of_a_high_rate_with_a_dead_channel(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for at in range(2):
            samples = tone(300.0, 12.0, seed=at, rate=44100)
            both = np.stack([0 * samples, samples], axis=1).reshape(-1)
            content = riff(as_bits(both, 16), channels=2, rate=44100)
            (tmp_path / name / f"{at}.wav").write_bytes(content)
    chosen = _chosen(tmp_path)
    assert (chosen["sound.rate"], chosen["sound.seconds"], chosen["sound.frames"]) == (16000, 10.0, 160)
    assert chosen["sound.channel"] == 2
    assert "data.group_pattern" not in chosen


def test_where_nothing_can_be_read_it_says_why(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.wav").write_bytes(b"ID3")
    with pytest.raises(DataError, match=r"None of the recordings .* is an MP3"):
        _chosen(tmp_path)


def test_an_index_of_recordings_keeps_groups_together_and_comes_back(tmp_path: Path) -> None:
    root = write_tones(tmp_path / "set", {"": 12})
    index = build_index(Settings(source=str(root), group_pattern=r"(voice\d+)_"), sound=SPEC)
    splits = {split: {sample.group for sample in index.split(split)} for split in ("train", "val", "test")}
    assert all(splits.values())
    assert sum(map(len, splits.values())) == len(set().union(*splits.values())) == 6
    assert {sample.label for sample in index.split("val")} == {0, 1, 2}
    index.save(tmp_path / "index.json")
    assert load(tmp_path / "index.json") == index
    assert load(tmp_path / "index.json").sound == SPEC


def test_a_bad_recording_is_named_or_left_out(tmp_path: Path) -> None:
    root = write_tones(tmp_path, {"": 6})
    (root / "low" / "x.wav").write_bytes(wave_file(np.zeros(4000, np.float32), RATE))
    (root / "low" / "cover.png").write_bytes(b"")
    (root / "low" / "song.mp3").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 of 19 recordings in .*\n  .*x\.wav: is silent"):
        build_index(Settings(source=str(root)), sound=SPEC)
    said = Recorder()
    index = build_index(Settings(source=str(root), bad_images="skip"), sound=SPEC, progress=said)
    assert [name for name, _ in index.skipped] == ["low/x.wav"]
    assert any(
        "besides the recordings, 1 .mp3 file, 1 .png file are not read" in text for text in said.warnings
    )


def test_groups_that_a_pattern_does_not_find_are_named(tmp_path: Path) -> None:
    root = write_tones(tmp_path, {"": 2})
    found = find(str(root), kind=InputKind.SOUND)
    assert {entry.group for entry in grouped(found, r"voice\d").entries} == {"voice0", "voice1"}
    assert {entry.group for entry in grouped(found, r"(\w)oice(\d)").entries} == {"v/0", "v/1"}
    with pytest.raises(DataError, match=r"finds no group in 6 of 6 paths:\n  high/voice0_0\.wav"):
        grouped(found, "speaker")
    with pytest.raises(DataError, match="has a column group already"):
        grouped(grouped(found, "voice"), "voice")


def test_a_csv_gives_recordings_several_classes_and_groups(tmp_path: Path) -> None:
    write_tones(tmp_path, {"": 6})
    rows = ["path,labels,group"]
    for at, path in enumerate(sorted(tmp_path.rglob("*.wav"))):
        name = path.parent.name
        rows.append(
            f"{path.relative_to(tmp_path)},{name}|loud,{at % 6}"
            if at % 2
            else f"{path.relative_to(tmp_path)},,{at % 6}"
        )
    (tmp_path / "s.csv").write_text("\n".join(rows) + "\n")
    index = build_index(Settings(source=str(tmp_path / "s.csv")), labelling=AnyLabels(), sound=SPEC)
    assert index.task == MultiLabel(labels=("high", "loud", "low", "middle"))
    groups = [{sample.group for sample in index.split(split)} for split in ("train", "val", "test")]
    assert sum(map(len, groups)) == 6


def test_what_is_learned_first_may_be_sounds_and_leaves_out_those_that_are_scored(tmp_path: Path) -> None:
    counts = {"train": 4, "val": 2, "test": 2}
    own = build_index(Settings(source=str(write_tones(tmp_path / "own", counts))), sound=SPEC)
    other = write_tones(tmp_path / "other", {"": 12})
    (other / "low" / "copy.wav").write_bytes(own.split("val")[0].path.read_bytes())
    record = other_classes.run(
        Settings(source=str(other)), other_classes.OtherInputs(index=own, seed=0), out=tmp_path / "out"
    )
    found = load(tmp_path / record.index)
    assert (found.sound, record.held_out) == (SPEC, 1)
    assert record.images == len(found.split("train")) > 20
