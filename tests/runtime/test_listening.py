from __future__ import annotations

import io
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgetl.errors import ConfigError, DataError, MissingDependencyError, SoundError, SourceError
from edgetl.inputs.spec import PreprocessSpec
from edgetl.inputs.wave import wave_file
from edgetl.runtime import listening
from edgetl.runtime.inputs import open_source
from edgetl.runtime.listening import Listening, windows
from edgetl.runtime.video import Live
from tests.sounds import PREPROCESS, RATE, SPEC, as_bits, tone

HOP = 0.125
HOW = Listening(spec=SPEC, hop=HOP)
QUIET = Live(clock=lambda: 0.0, wall=lambda: 0.0, sleep=lambda _: None)


def _ramp(count: int) -> np.ndarray:
    return (np.arange(count) / 32768).astype(np.float32)


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
@pytest.mark.parametrize("total", [3, 16, 17, 20, 64, 66])
def test_windows_hold_every_sample_and_do_not_depend_on_how_these_came(chunk: int, total: int) -> None:
    samples = np.arange(1, total + 1, dtype=np.float32)
    chunks = [samples[at : at + chunk] for at in range(0, total, chunk)]
    found = list(windows(chunks, 16, 4))
    assert [start for start, _ in found] == list(range(0, 4 * len(found), 4))
    assert {len(window) for _, window in found} == {16}
    for start, window in found:
        part = samples[start : start + 16]
        np.testing.assert_array_equal(window[: len(part)], part)
        assert not window[len(part) :].any()
    assert found[-1][0] + 16 >= total
    assert len(found) == max(1, 1 + -(-(total - 16) // 4))


def test_a_recording_is_one_item_or_its_windows(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wave_file(_ramp(2 * SPEC.samples), RATE))
    (whole,) = listening.of_recording(path, "a.wav", Listening(spec=SPEC))
    assert (whole.sound, whole.seconds) == (path, None)
    found = list(listening.of_recording(path, "a.wav", HOW))
    assert [one.name for one in found] == [f"a.wav#{at}" for at in range(5)]
    assert [one.seconds for one in found] == [0.0, 0.125, 0.25, 0.375, 0.5]
    np.testing.assert_array_equal(found[-1].sound, _ramp(2 * SPEC.samples)[SPEC.samples :])


def _pipe(samples: np.ndarray, how: Listening) -> list[listening.Heard]:
    return list(listening.of_standard_input(io.BytesIO(as_bits(samples, 16)), how, QUIET))


def test_raw_samples_are_heard_as_the_same_ones_in_a_file() -> None:
    samples = tone(440.0, 1.0)
    raw = Listening(spec=SPEC, hop=HOP, pcm=RATE)
    content = wave_file(samples, RATE)
    (piped, filed) = (
        _pipe(samples, raw),
        list(listening.of_standard_input(io.BytesIO(content), HOW, QUIET)),
    )
    assert [one.seconds for one in piped] == [one.seconds for one in filed] == [0.0, 0.125, 0.25, 0.375, 0.5]
    assert piped[0].name == "sound#0"
    assert piped[0].time == "1970-01-01T00:00:00.000Z"
    for one, other in zip(piped, filed, strict=True):
        np.testing.assert_allclose(one.sound, other.sound, atol=1e-4)


def test_raw_samples_of_another_rate_are_resampled() -> None:
    found = _pipe(tone(440.0, 1.0, rate=16000), Listening(spec=SPEC, hop=HOP, pcm=16000))
    assert len(found) == 5
    assert {one.sound.shape for one in found} == {(SPEC.samples,)}


def test_without_a_hop_what_has_no_end_is_heard_every_half_window() -> None:
    found = _pipe(_ramp(2 * SPEC.samples), Listening(spec=SPEC, pcm=RATE))
    assert [one.seconds for one in found] == [0.0, 0.25, 0.5]


def test_a_window_comes_as_soon_as_its_last_hop_was_heard_and_memory_stays_flat() -> None:
    class Endless(io.RawIOBase):
        given = 0

        def read(self, size: int = -1) -> bytes:
            self.given += size
            return bytes(size)

    pipe = Endless()
    heard = listening.of_standard_input(pipe, Listening(spec=SPEC, hop=HOP, pcm=RATE), QUIET)
    hop = round(HOP * RATE)
    for number in range(4):
        next(heard)
        assert pipe.given == 2 * (SPEC.samples + number * hop)
    tracemalloc.start()
    try:
        for _ in range(50):
            next(heard)
        tracemalloc.reset_peak()
        for _ in range(400):
            next(heard)
        assert tracemalloc.get_traced_memory()[1] < 40 * SPEC.samples
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "ended before the first sample"),
        (bytes(2001), r"ended within a sample; are they of 16 bits\?"),
        (wave_file(tone(440.0), RATE), r"is a \.wav file, not raw samples; leave --pcm out"),
    ],
)
def test_raw_samples_that_are_none_are_told(content: bytes, sentence: str) -> None:
    how = Listening(spec=SPEC, hop=HOP, pcm=RATE)
    *_, last = listening.of_standard_input(io.BytesIO(content), how, QUIET)
    assert isinstance(last.sound, SoundError)
    with pytest.raises(SoundError, match=sentence):
        raise last.sound


class Lost(Exception):
    pass


@dataclass
class Device:
    """Plays `sounddevice`: gives a ramp, so many samples at a time, and fails after some."""

    reads: int = 9
    stops: bool = False
    opens: bool = True
    closed: list[str] = field(default_factory=list)
    PortAudioError: type[Exception] = Lost

    def RawInputStream(self, **asked: Any) -> Any:  # noqa: N802
        if not self.opens:
            raise Lost("Invalid sample rate")
        self.asked, at = asked, 0

        def read(count: int) -> tuple[bytes, bool]:
            nonlocal at
            if at == self.reads:
                raise Lost("Device unavailable")
            at += 1
            return as_bits(np.full(count, at / 100, np.float32), 16), at == 6

        return SimpleNamespace(
            start=lambda: None,
            read=read,
            read_available=0 if self.stops else 10**6,
            abort=lambda ignore_errors: self.closed.append("abort"),
            close=lambda ignore_errors: self.closed.append("close"),
        )


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    fake = Device()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    return fake


def test_a_microphone_is_heard_until_it_goes_away(device: Device) -> None:
    *found, last = listening.of_microphone("microphone:3", HOW, QUIET)
    assert device.asked == {"device": 3, "samplerate": RATE, "channels": 1, "dtype": "int16"}
    assert [one.name for one in found] == [f"microphone:3#{at}" for at in range(6)]
    assert [one.dropped for one in found] == [0, 0, 1, 0, 0, 0]
    assert found[0].sound[0] == pytest.approx(0.01, abs=1e-4)
    assert isinstance(last.sound, SourceError)
    assert (
        str(last.sound) == "microphone:3 went away (Device unavailable); look at its plug, and start again."
    )
    assert device.closed == ["abort", "close"]


def test_a_microphone_that_falls_silent_or_cannot_be_opened_is_told(device: Device) -> None:
    device.stops = True
    times = iter(range(100))
    live = Live(timeout=5.0, clock=lambda: float(next(times)), wall=lambda: 0.0, sleep=lambda _: None)
    (gone,) = listening.of_microphone("microphone:0", HOW, live)
    assert str(gone.sound).startswith("microphone:0 gave nothing for 5 s")
    device.opens = False
    (gone,) = listening.of_microphone("microphone:0", HOW, QUIET)
    assert str(gone.sound).startswith(
        "microphone:0 cannot be opened for 1 channel of 8000 samples per second (Invalid"
    )


def test_without_sounddevice_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(MissingDependencyError, match=r"pip install sounddevice$"):
        list(listening.of_microphone("microphone:0", HOW, QUIET))


def test_a_source_of_sounds_is_recordings_or_windows(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.wav").write_bytes(wave_file(_ramp(SPEC.samples), RATE))
    (tmp_path / "cover.png").write_bytes(b"")
    whole = open_source([str(tmp_path)], sounds=Listening(spec=SPEC))
    assert (whole.count, whole.live) == (2, False)
    assert [Path(item.name).name for item in whole.items] == ["a.wav", "b.wav"]
    parts = open_source([str(tmp_path)], sounds=HOW)
    assert [Path(item.name).name for item in parts.items] == ["a.wav#0", "b.wav#0"]
    piped = Listening(spec=SPEC, hop=HOP, pcm=RATE)
    assert open_source(["-"], stdin=io.BytesIO(), sounds=piped).live
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no recordings"):
        open_source([str(tmp_path / "empty")], sounds=Listening(spec=SPEC))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: listening.listening(PREPROCESS, ["a.wav"], hop=0.0),
            r"--hop: got 0, expected seconds above 0",
        ),
        (lambda: listening.listening(PREPROCESS, ["a.wav"], hop=2.0), r"--hop: got 2, .* at most 0\.5"),
        (lambda: listening.listening(PREPROCESS, ["-"], pcm=5), "--pcm: got 5, expected 1000 to 384000"),
        (lambda: listening.listening(PREPROCESS, ["a.wav"], pcm=RATE), "name - as the recording"),
        (lambda: listening.listening(PreprocessSpec(size=8), ["a.png"], hop=1.0), "--hop is for sounds"),
        (lambda: listening.listening(PreprocessSpec(size=8), ["-"], pcm=RATE), "--pcm is for sounds"),
        (lambda: listening.listening(PreprocessSpec(size=8), ["microphone:0"]), "microphone:0 is for sounds"),
        (lambda: open_source(["camera:0"], sounds=HOW), "camera:0 is a video, camera or stream"),
    ],
)
def test_what_cannot_be_asked_is_refused(call: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        call()


def test_a_bundle_for_images_listens_to_nothing() -> None:
    assert listening.listening(PreprocessSpec(size=8), ["a.png"]) is None
    assert listening.listening(PREPROCESS, ["-"], hop=0.25, pcm=16000) == Listening(
        spec=SPEC, hop=0.25, pcm=16000
    )
