"""Small sets of recordings made on the fly: tones that a tiny network can tell apart."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgetl.inputs.spec import PreprocessSpec, Resize, SoundSpec
from edgetl.inputs.wave import wave_file

RATE = 8000
SPEC = SoundSpec(rate=RATE, seconds=0.5, high_hz=4000.0, mels=32, frames=32)
PREPROCESS = PreprocessSpec(size=32, resize=Resize.SQUASH, sound=SPEC)
TONES = {"high": 2600.0, "low": 300.0, "middle": 1000.0}


def tone(hertz: float, seconds: float = 0.3, *, seed: int = 0, rate: int = RATE) -> NDArray[np.float32]:
    """A tone that fades, with a little noise; every seed another one."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    wave = (
        np.sin(2 * np.pi * hertz * rng.uniform(0.95, 1.05) * time) * np.exp(-4 * time) * rng.uniform(0.2, 0.9)
    )
    return (wave + rng.normal(0, 0.002, len(time))).astype(np.float32)


def write_tones(root: Path, counts: dict[str, int], *, groups: int = 6) -> Path:
    """Write SPLIT/CLASS/voiceG_N.wav, `counts[split]` of each class, and return `root`."""
    for at, (split, count) in enumerate(counts.items()):
        for place, (name, hertz) in enumerate(TONES.items()):
            folder = root / split / name if split else root / name
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                samples = tone(hertz, seed=1000 * at + 100 * place + i)
                (folder / f"voice{i % groups}_{i}.wav").write_bytes(wave_file(samples, RATE))
    return root


def riff(
    body: bytes,
    *,
    code: int = 1,
    channels: int = 1,
    rate: int = RATE,
    bits: int = 16,
    bytes_a_second: int | None = None,
    promised: int | None = None,
    extensible: bool = False,
) -> bytes:
    """A WAV file of any header, right or wrong."""
    block = channels * bits // 8
    a_second = rate * block if bytes_a_second is None else bytes_a_second
    form = struct.pack("<HHIIHH", 0xFFFE if extensible else code, channels, rate, a_second, block, bits)
    if extensible:
        form += struct.pack("<HHIH", 22, bits, 0, code) + bytes.fromhex("000000001000800000aa00389b71")
    length = len(body) if promised is None else promised
    parts = b"WAVE" + b"fmt " + struct.pack("<I", len(form)) + form
    parts += b"LIST" + struct.pack("<I", 3) + b"abc\0" + b"data" + struct.pack("<I", length) + body
    return b"RIFF" + struct.pack("<I", len(parts)) + parts


def as_bits(samples: NDArray[np.float32], bits: int) -> bytes:
    """Samples as the integers of a WAV file of so many bits."""
    if bits == 8:
        return bytes(np.rint(samples * 127 + 128).astype(np.uint8))
    whole = np.rint(samples.astype(np.float64) * (2 ** (bits - 1) - 1)).astype("<i4")
    if bits == 24:
        return whole.view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    return whole.astype(f"<i{bits // 8}").tobytes()
