from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edgetl.errors import SoundError, TensorError
from edgetl.inputs import sound
from edgetl.inputs.image import load_framed, load_pixels, to_pixels
from edgetl.inputs.spec import Level, SoundSpec
from edgetl.inputs.wave import wave_file
from edgetl.records.codec import from_json, to_json
from tests.sounds import PREPROCESS, RATE, SPEC, as_bits, riff, tone

WHOLE = SoundSpec(rate=16000, seconds=1.0, high_hz=8000.0, mels=40, frames=100, window_ms=32.0, low_hz=50.0)
"""Of which a frame begins every 160 samples, so that other programs can be asked for the same."""


def _reference(window: NDArray[np.float32], spec: SoundSpec) -> NDArray[np.float64]:
    """By scipy's Fourier transform and bands that are written down one by one."""
    signal = pytest.importorskip("scipy.signal", reason="scipy is not installed")
    length, step = spec.frame_samples, spec.samples // spec.frames
    before = length // 2 - step // 2
    padded = np.pad(window.astype(np.float64), (before, length))
    taper = signal.get_window("hann", length)
    transform = signal.ShortTimeFFT(
        taper, step, spec.rate, mfft=spec.spectrum, fft_mode="onesided", scale_to=None
    )
    frames = [padded[at * step : at * step + length] for at in range(spec.frames)]
    power = np.stack([np.abs(np.fft.rfft(f * taper, transform.mfft)) ** 2 for f in frames])
    power /= spec.spectrum * (taper**2).sum() / 4
    mel = lambda hz: 2595 * np.log10(1 + hz / 700)  # noqa: E731
    middles = np.linspace(mel(spec.low_hz), mel(spec.high_hz), spec.mels + 2)
    found = np.zeros((spec.mels, spec.frames))
    for band in range(spec.mels):
        left, top, right = (700 * (10 ** (m / 2595) - 1) for m in middles[band : band + 3])
        for line, hz in enumerate(transform.f):
            weight = min((hz - left) / (top - left), (right - hz) / (right - top))
            if weight > 0:
                found[band] += weight * power[:, line]
    return 10 * np.log10(np.maximum(found, 1e-20))


def test_the_spectrogram_is_that_of_another_program() -> None:
    window = np.concatenate([tone(440.0, 0.6, rate=16000), tone(3000.0, 0.4, rate=16000, seed=1)])
    found = sound.log_mel(window, WHOLE)
    np.testing.assert_allclose(found, _reference(window, WHOLE), atol=1e-4)


def test_the_spectrogram_is_that_of_librosa() -> None:
    librosa = pytest.importorskip("librosa", reason="the reference needs: pip install librosa")
    window = np.concatenate([tone(440.0, 0.6, rate=16000), tone(3000.0, 0.4, rate=16000, seed=1)])
    length = WHOLE.frame_samples
    padded = np.pad(window.astype(np.float64), (WHOLE.spectrum // 2 - 80, WHOLE.spectrum))
    power: NDArray[np.float64] = librosa.feature.melspectrogram(
        y=padded,
        sr=WHOLE.rate,
        n_fft=WHOLE.spectrum,
        win_length=length,
        hop_length=160,
        center=False,
        n_mels=WHOLE.mels,
        fmin=WHOLE.low_hz,
        fmax=WHOLE.high_hz,
        htk=True,
        norm=None,
        dtype=np.float64,
    )
    scale = WHOLE.spectrum * (librosa.filters.get_window("hann", length) ** 2).sum() / 4
    wanted = 10 * np.log10(np.maximum(power[:, : WHOLE.frames] / scale, 1e-20))
    np.testing.assert_allclose(sound.log_mel(window, WHOLE), wanted, atol=1e-4)


def test_a_full_scale_sine_is_about_white_of_full_scale() -> None:
    spec = dataclasses.replace(SPEC, level=Level.FULL_SCALE)
    loud = np.sin(2 * np.pi * 1000 * np.arange(spec.samples) / RATE)
    assert 235 <= np.asarray(sound.drawn(loud, spec)).max() <= 255
    assert np.asarray(sound.drawn(loud / 100, spec)).max() == pytest.approx(255 * (1 - 40 / 80), abs=8)
    first, second = (np.asarray(sound.drawn(loud / by, SPEC)) for by in (1, 100))
    np.testing.assert_array_equal(first, second)


def test_time_runs_to_the_right_and_frequency_upwards() -> None:
    samples = np.zeros(SPEC.samples, np.float32)
    samples[: SPEC.samples // 4] = np.sin(2 * np.pi * 3500 * np.arange(SPEC.samples // 4) / RATE)
    picture = np.asarray(sound.drawn(samples, SPEC))[..., 0]
    row, column = np.unravel_index(picture.argmax(), picture.shape)
    assert row < 4
    assert column < 8
    assert picture[:, 16:].max() == 0


def test_silence_is_black_and_its_noise_is_not_blown_up() -> None:
    assert not np.asarray(sound.from_samples(np.zeros(SPEC.samples, np.float32), SPEC)).any()
    noise = np.random.default_rng(0).normal(0, 1e-6, SPEC.samples)
    assert np.asarray(sound.from_samples(noise, SPEC)).max() < 150


@pytest.mark.parametrize(("rate", "wanted"), [(44100, 16000), (48000, 8000), (8000, 16000), (16001, 8000)])
def test_another_rate_gives_the_same_sine(rate: int, wanted: int) -> None:
    hertz = 0.3 * min(rate, wanted)
    found = sound.resampled(
        np.sin(2 * np.pi * hertz * np.arange(rate) / rate).astype(np.float32), rate, wanted
    )
    assert len(found) == wanted
    inner = slice(wanted // 20, -wanted // 20)
    expected = np.sin(2 * np.pi * hertz * np.arange(wanted) / wanted)
    np.testing.assert_allclose(found[inner], expected[inner], atol=2e-3)


def test_what_a_lower_rate_cannot_hold_is_gone() -> None:
    above = np.sin(2 * np.pi * 8500 * np.arange(44100) / 44100).astype(np.float32)
    assert np.abs(sound.resampled(above, 44100, 16000)[800:-800]).max() < 1e-4


def test_of_a_long_recording_the_loudest_part_is_taken_and_a_short_one_stands_in_the_middle() -> None:
    long = np.zeros(5 * SPEC.samples, np.float32)
    word = tone(440.0, 0.2)
    long[12000 : 12000 + len(word)] = word
    window = sound.windowed(long, SPEC.samples)
    start = int(np.flatnonzero(window)[0])
    assert np.count_nonzero(window) == np.count_nonzero(word)
    assert 400 < start < SPEC.samples - len(word) - 400
    short = sound.windowed(word, SPEC.samples)
    assert len(short) == SPEC.samples
    np.testing.assert_array_equal(short[1200 : 1200 + len(word)], word)


def test_files_bytes_and_samples_give_the_same_pixels(tmp_path: Path) -> None:
    content = wave_file(tone(440.0), RATE)
    (tmp_path / "a.wav").write_bytes(content)
    pixels, frame = load_framed(tmp_path / "a.wav", PREPROCESS)
    assert (pixels.shape, pixels.dtype, frame.size) == ((32, 32, 3), np.uint8, (32, 32))
    np.testing.assert_array_equal(load_pixels(content, PREPROCESS), pixels)
    samples = sound.load_mono(content, SPEC)
    np.testing.assert_array_equal(to_pixels(samples, PREPROCESS), pixels)
    whole = np.rint(samples * 32768).astype(np.int16)
    np.testing.assert_array_equal(to_pixels(whole, PREPROCESS), pixels)
    larger = dataclasses.replace(PREPROCESS, size=64)
    assert load_pixels(content, larger).shape == (64, 64, 3)


def test_a_channel_is_chosen_or_all_are_mixed() -> None:
    both = np.stack([tone(440.0), tone(3000.0, seed=1)], axis=1)
    content = riff(as_bits(both.reshape(-1), 16), channels=2)
    np.testing.assert_allclose(sound.load_mono(content, SPEC), both.mean(axis=1), atol=1e-4)
    second = dataclasses.replace(SPEC, channel=2)
    np.testing.assert_allclose(sound.load_mono(content, second), both[:, 1], atol=1e-4)


def _floats(values: NDArray[np.float32], channels: int = 1) -> bytes:
    return riff(values.astype("<f4").tobytes(), code=3, bits=32, channels=channels)


TONE = tone(440.0)
REFUSED = {
    "no samples": (_floats(TONE[:0]), "a.wav: holds no samples; remove it"),
    "not a number": (
        _floats(np.where(np.arange(len(TONE)) == 7, np.nan, TONE)),
        "a.wav: holds values that are not finite",
    ),
    "silence": (_floats(TONE * 1e-6), "a.wav: is silent; remove it, or look at the microphone"),
    "clipping": (_floats((8 * TONE).clip(-1, 1)), "a.wav: is clipped: "),
    "a dead channel": (
        _floats(np.stack([0 * TONE, TONE], axis=1).reshape(-1), 2),
        "a.wav: channel 1 of its 2 is silent, and the mean would halve the level; set sound.channel = 2",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_recording_that_teaches_nothing_is_refused(case: str, tmp_path: Path) -> None:
    content, sentence = REFUSED[case]
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(SoundError) as raised:
        load_pixels(tmp_path / "a.wav", PREPROCESS)
    assert str(raised.value).replace(f"{tmp_path}/", "").startswith(sentence)
    assert str(raised.value).endswith(".")


def test_loud_and_quiet_recordings_of_few_levels_are_not_called_clipped() -> None:
    quiet = np.rint(TONE * 20) / 128
    for samples in (quiet, TONE / np.abs(TONE).max()):
        load_pixels(_floats(samples), PREPROCESS)


def test_the_channel_that_is_asked_for_must_be_there() -> None:
    content = _floats(np.stack([0 * TONE, TONE], axis=1).reshape(-1), 2)
    load_pixels(content, dataclasses.replace(PREPROCESS, sound=dataclasses.replace(SPEC, channel=2)))
    with pytest.raises(SoundError, match=r"has 1 channel, and sound\.channel asks for channel 2"):
        load_pixels(
            _floats(TONE), dataclasses.replace(PREPROCESS, sound=dataclasses.replace(SPEC, channel=2))
        )


@pytest.mark.parametrize(
    ("samples", "error", "sentence"),
    [
        (
            np.zeros((4, 2), np.float32),
            TensorError,
            r"sound is \(4, 2\) float32, expected \(N,\) float32 or int16",
        ),
        (np.zeros(4, np.uint8), TensorError, r"sound is \(4,\) uint8"),
        (np.zeros(0, np.float32), SoundError, "holds no samples"),
        (np.full(9, np.inf, np.float32), SoundError, "not finite"),
    ],
)
def test_samples_of_another_form_are_refused(
    samples: NDArray[np.float32], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        to_pixels(samples, PREPROCESS)


def test_a_picture_is_no_sound() -> None:
    with pytest.raises(TensorError, match=r"sound is a picture of 9x8 pixels, expected samples \(N,\)"):
        to_pixels(Image.new("RGB", (9, 8)), PREPROCESS)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"rate": 10}, "rate is 10, expected 1000 to 384000"),
        ({"seconds": 0.0}, "seconds is 0.0, expected above 0 and at most 60"),
        ({"high_hz": 5000.0}, "low_hz and high_hz are 20 and 5000, expected 0 <= low < high <= 4000"),
        ({"mels": 2}, "mels and frames are 2 and 32, expected 4 to 1024"),
        ({"window_ms": 900.0}, "window_ms is 900, expected at least 1 and at most the window's length"),
        ({"range_db": 5.0}, "range_db is 5, expected 10 to 200"),
        ({"channel": -1}, "channel is -1"),
        ({"mels": 400}, "take fewer bands, or a longer window_ms"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(values: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence.replace(".", r"\.")):
        dataclasses.replace(SPEC, **values)


def test_every_band_hears_something() -> None:
    for mels in (4, 32, 64):
        assert (sound.bands(dataclasses.replace(SPEC, mels=mels)).max(axis=1) > 0).all()


def test_specs_of_images_are_written_as_before_and_those_of_sounds_come_back() -> None:
    plain = dataclasses.replace(PREPROCESS, sound=None)
    assert "sound" not in to_json(plain)
    assert from_json(type(PREPROCESS), to_json(PREPROCESS)) == PREPROCESS
