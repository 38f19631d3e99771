from __future__ import annotations

import io
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgetl.errors import MissingDependencyError, SoundError
from edgetl.inputs.recordings import ending_of, read_recording
from edgetl.inputs.wave import wave_file
from tests.sounds import RATE, as_bits, riff, tone


@pytest.mark.parametrize(("bits", "step"), [(8, 1 / 80), (16, 1e-4), (24, 1e-6), (32, 1e-6)])
@pytest.mark.parametrize("channels", [1, 2])
def test_integers_of_every_width_are_read(bits: int, step: float, channels: int) -> None:
    wanted = np.stack([tone(440.0, seed=seed) for seed in range(channels)], axis=1)
    found, rate = read_recording(riff(as_bits(wanted.reshape(-1), bits), channels=channels, bits=bits))
    assert (rate, found.shape, found.dtype) == (RATE, wanted.shape, np.float32)
    np.testing.assert_allclose(found, wanted, atol=step)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("extensible", [False, True])
def test_floats_are_read_as_they_are(bits: int, extensible: bool) -> None:
    wanted = 1.5 * tone(440.0)
    content = riff(wanted.astype(f"<f{bits // 8}").tobytes(), code=3, bits=bits, extensible=extensible)
    np.testing.assert_array_equal(read_recording(content)[0][:, 0], wanted)


def test_the_standard_library_reads_what_is_written_and_is_read_back() -> None:
    samples = tone(440.0)
    content = wave_file(samples, RATE)
    with wave.open(io.BytesIO(content)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (RATE, 1, len(samples))
        frames = file.readframes(len(samples))
    found, _ = read_recording(content)
    np.testing.assert_array_equal(found[:, 0], np.frombuffer(frames, "<i2") / np.float32(32768))
    np.testing.assert_allclose(found[:, 0], samples, atol=1e-4)


@pytest.mark.parametrize("promised", [0, 0xFFFFFFFF])
def test_what_was_written_to_a_pipe_is_read_to_its_end(promised: int) -> None:
    found, _ = read_recording(riff(as_bits(tone(440.0), 16), promised=promised))
    assert len(found) == len(tone(440.0))


@pytest.mark.parametrize(("form", "suffix"), [("FLAC", ".flac"), ("OGG", ".ogg")])
def test_flac_and_ogg_are_read_through_soundfile(form: str, suffix: str, tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile", reason="FLAC and Ogg need: pip install 'edgetl[sound]'")
    samples, path = tone(440.0), tmp_path / f"a{suffix}"
    soundfile.write(path, samples, RATE, format=form)
    found, rate = read_recording(path)
    assert (rate, found.shape[1]) == (RATE, 1)
    assert np.corrcoef(found[: len(samples), 0], samples[: len(found)])[0, 1] > 0.99
    assert ending_of(path.read_bytes()) == suffix
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SoundError, match=rf"a{suffix}: is (corrupt or )?truncated"):
        read_recording(path)


def test_flac_without_soundfile_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(MissingDependencyError, match=r"pip install soundfile"):
        read_recording(b"fLaC" + bytes(40))


def _picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9)).save(buffer, "PNG")
    return buffer.getvalue()


BODY = as_bits(tone(440.0), 16)
REFUSED = {
    "empty": (b"", "a.wav: the file is empty."),
    "noise": (
        b"hello there, this is no sound",
        "a.wav: is not a recording that can be read (WAV, FLAC, Ogg)",
    ),
    "mp3 with tags": (
        b"ID3\x04" + bytes(20),
        "a.wav: is an MP3, which is not read; convert it with: ffmpeg -i",
    ),
    "mp3": (
        b"\xff\xfb\x90\x00" + bytes(20),
        "a.wav: is an MP3, which is not read; convert it with: ffmpeg -i",
    ),
    "m4a": (bytes(4) + b"ftypM4A " + bytes(20), "a.wav: is MPEG-4, which is not read"),
    "aiff": (b"FORM" + bytes(20), "a.wav: is an AIFF, which is not read"),
    "large": (b"RF64" + bytes(20), "a.wav: is a WAV of more than 4 GiB"),
    "picture": (_picture(), "a.wav: is a picture, not a recording; remove it"),
    "truncated": (
        riff(BODY)[:-100],
        "a.wav: is truncated: its header promises 4,800 bytes of sound, and 4,700 are",
    ),
    "within a sample": (riff(BODY[:-1]), "a.wav: is truncated: it ends within a sample"),
    "no data": (riff(BODY)[:40], "a.wav: is truncated: it ends before its sound"),
    "no format": (riff(BODY)[:12], "a.wav: is truncated: it ends before its format"),
    "rate of none": (riff(BODY, rate=0), "a.wav: its header cannot be right: it says 0 samples per second"),
    "rate that the bytes deny": (
        riff(BODY, rate=8000, bytes_a_second=32000),
        "a.wav: its header cannot be right: it says 8,000 samples, and 32,000 bytes per second, 2 bytes each",
    ),
    "mu-law": (
        riff(BODY, code=7, bits=8),
        "a.wav: holds mu-law; 8, 16, 24 and 32 bits and floats are read. Convert",
    ),
    "12 bits": (
        riff(BODY, bits=12),
        "a.wav: holds 12 bits; 8, 16, 24 and 32 bits and floats are read. Convert",
    ),
    "no channels": (
        riff(BODY, channels=0),
        "a.wav: its header contradicts itself: 0 channels of 16 bits in 0 bytes",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_one_sentence_with_the_remedy(case: str, tmp_path: Path) -> None:
    content, sentence = REFUSED[case]
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(SoundError) as raised:
        read_recording(path)
    said = str(raised.value).replace(f"{tmp_path}/", "")
    assert said.startswith(sentence)
    assert said.endswith((".", "pcm_s16le OUT.wav"))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SoundError, match=r"b\.wav: there is no such file\.$"):
        read_recording(tmp_path / "b.wav")
