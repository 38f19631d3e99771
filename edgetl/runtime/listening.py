"""Sounds for a session: recordings, raw samples on standard input, microphones; whole, or a window every hop.

What is heard goes through a window that moves on by one hop at a time, and each window is a picture to label. So a
label comes one hop after what it is about was heard, at the latest, and memory holds a window, however long it goes on.
The only place that imports `sounddevice`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import ConfigError, MissingDependencyError, SoundError, SourceError
from edgetl.inputs.recordings import ending_of, read_pipe
from edgetl.inputs.sound import load_mono, resampled
from edgetl.inputs.spec import MAX_RATE, MIN_RATE, PreprocessSpec, SoundSpec
from edgetl.packages import missing
from edgetl.records.frozen import dataclass
from edgetl.runtime.video import Live, utc

_MICROPHONE = re.compile(r"microphone:(\d+)")
STANDARD_INPUT = "-"
_LIVE_HOP = 0.5
"""Of a window, where nothing is said for what has no end."""
_POLL_SECONDS = 0.005
_FULL = np.float32(32768)


@dataclass(frozen=True, kw_only=True)
class Listening:
    """How sounds are taken.

    Attributes:
        spec: what becomes of them.
        hop: seconds from one window to the next; None for one answer a recording.
        pcm: samples per second of the raw ones on standard input; None where it holds a recording.
    """

    spec: SoundSpec
    hop: float | None = None
    pcm: int | None = None


@dataclass(frozen=True, kw_only=True)
class Heard:
    """A window of sound, (N,) float32 at the spec's rate, or all of a recording.

    Attributes:
        name: what results call it.
        sound: the samples, a file, or a file's content; or why there is none.
        seconds: where the window begins, from the beginning of the recording or of listening.
        time: when its last sample came, UTC; empty for files.
        dropped: times that the device had to drop samples, since the window before.
    """

    name: str
    sound: NDArray[np.float32] | Path | bytes | SoundError | SourceError
    seconds: float | None = None
    time: str = ""
    dropped: int = 0


def is_microphone(name: str) -> bool:
    """Whether a name is a microphone's."""
    return _MICROPHONE.fullmatch(name) is not None


def has_no_end(names: Sequence[str], pcm: int | None) -> bool:
    """Whether sounds may go on for ever."""
    return pcm is not None or any(map(is_microphone, names))


def listening(
    spec: PreprocessSpec, names: Sequence[str], *, hop: float | None = None, pcm: int | None = None
) -> Listening | None:
    """How a bundle listens; None where it looks at images.

    Args:
        spec: the bundle's.
        names: what is to be labelled.
        hop: seconds between windows, where that was asked for.
        pcm: the rate of raw samples on standard input, where there are some.

    Raises:
        ConfigError: sounds are asked of a bundle for images, or what is asked cannot be.
    """
    if spec.sound is None:
        asked = ["--hop"] if hop is not None else ["--pcm"] if pcm is not None else []
        if asked := [*asked, *filter(is_microphone, names)]:
            raise ConfigError(f"{asked[0]} is for sounds, and the bundle looks at images; leave it out.")
        return None
    if hop is not None and not 0.0 < hop <= spec.sound.seconds:
        raise ConfigError(
            f"--hop: got {hop:g}, expected seconds above 0 and at most {spec.sound.seconds:g}, the bundle's window, so"
            " that nothing is missed."
        )
    if pcm is not None and not MIN_RATE <= pcm <= MAX_RATE:
        raise ConfigError(f"--pcm: got {pcm}, expected {MIN_RATE} to {MAX_RATE} samples per second.")
    if pcm is not None and STANDARD_INPUT not in names:
        raise ConfigError("--pcm is for raw samples on standard input: name - as the recording.")
    return Listening(spec=spec.sound, hop=hop, pcm=pcm)


def windows(
    chunks: Iterable[NDArray[np.float32]], length: int, hop: int
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Windows of a stream of samples, each with the place of its first one.

    The last one is filled up with silence, where samples came that no window has had.

    Args:
        chunks: samples as they come, of any lengths.
        length: samples of a window.
        hop: samples from one window's beginning to the next one's, at most `length`.
    """
    held, start, given = np.empty(0, np.float32), 0, False
    for chunk in chunks:
        held = np.concatenate([held, chunk])
        while len(held) >= length:
            yield start, held[:length].copy()
            held, start, given = held[hop:], start + hop, True
    if len(held) > (length - hop if given else 0):
        yield start, np.pad(held, (0, length - len(held)))


def of_recording(source: Path | bytes, name: str, how: Listening) -> Iterator[Heard]:
    """A recording as one, or its windows."""
    if how.hop is None:
        yield Heard(name=name, sound=source)
        return
    spec = how.spec
    try:
        samples = load_mono(source, spec, name=name)
    except SoundError as error:
        yield Heard(name=name, sound=error)
        return
    hop = max(1, round(how.hop * spec.rate))
    for number, (start, window) in enumerate(windows([samples], spec.samples, hop)):
        yield Heard(name=f"{name}#{number}", sound=window, seconds=start / spec.rate)


def of_standard_input(stdin: BinaryIO, how: Listening, live: Live) -> Iterator[Heard]:
    """A recording, or raw samples of 16 bits in one channel, little-endian, as they come."""
    name = "standard input"
    if how.pcm is None:
        try:
            yield from of_recording(read_pipe(stdin, name), name, how)
        except SoundError as error:
            yield Heard(name=name, sound=error)
        return
    rate, spec = how.pcm, how.spec
    hop, length = _steps(how, rate)
    faults: list[SoundError] = []
    last = -1
    for number, (start, window) in enumerate(windows(_raw(stdin, hop, faults), length, hop)):
        last, now = number, utc(live.wall())
        sound = resampled(window, rate, spec.rate)
        yield Heard(name=f"sound#{number}", sound=sound, seconds=start / rate, time=now)
    for fault in faults:
        yield Heard(name=f"sound#{last + 1}", sound=fault)


def of_microphone(name: str, how: Listening, live: Live) -> Iterator[Heard]:
    """Windows of what a microphone hears; it is given back at the end.

    Raises:
        MissingDependencyError: `sounddevice` or PortAudio is not installed.
    """
    spec = how.spec
    hop, length = _steps(how, spec.rate)
    overflows: list[int] = []
    try:
        chunks = _recorded(name, spec, hop, live, overflows)
        for number, (start, window) in enumerate(windows(chunks, length, hop)):
            dropped = len(overflows)
            overflows.clear()
            yield Heard(
                name=f"{name}#{number}",
                sound=window,
                seconds=start / spec.rate,
                time=utc(live.wall()),
                dropped=dropped,
            )
    except SourceError as error:
        yield Heard(name=name, sound=error)


def _steps(how: Listening, rate: int) -> tuple[int, int]:
    """Samples of a hop and of a window at a rate."""
    seconds = how.spec.seconds * _LIVE_HOP if how.hop is None else how.hop
    return max(1, round(seconds * rate)), round(how.spec.seconds * rate)


def _raw(stdin: BinaryIO, samples: int, faults: list[SoundError]) -> Iterator[NDArray[np.float32]]:
    """Chunks of raw samples; what is wrong with them is added to `faults`."""
    begun = False
    while content := _some(stdin, 2 * samples):
        if not begun and (kind := ending_of(content[:16])):
            faults.append(
                SoundError(
                    f"Standard input: is a {kind} file, not raw samples; leave --pcm out, or strip its header."
                )
            )
            return
        begun = True
        if len(content) % 2:
            faults.append(SoundError("Standard input: ended within a sample; are they of 16 bits?"))
        yield np.frombuffer(content[: len(content) // 2 * 2], "<i2").astype(np.float32) / _FULL
    if not begun:
        faults.append(SoundError("Standard input: ended before the first sample."))


def _some(stdin: BinaryIO, size: int) -> bytes:
    """So many bytes, or those up to the end."""
    content = bytearray()
    while len(content) < size and (piece := stdin.read(size - len(content))):
        content += piece
    return bytes(content)


def _recorded(
    name: str, spec: SoundSpec, hop: int, live: Live, overflows: list[int]
) -> Iterator[NDArray[np.float32]]:
    """A hop at a time; each time that the device dropped samples is added to `overflows`.

    Raises:
        SourceError: it cannot be opened, or went away.
    """
    sounddevice = _sounddevice()
    found = _MICROPHONE.fullmatch(name)
    assert found is not None
    channels = max(1, spec.channel)
    try:
        stream = sounddevice.RawInputStream(
            device=int(found[1]), samplerate=spec.rate, channels=channels, dtype="int16"
        )
        stream.start()
    except (sounddevice.PortAudioError, ValueError) as error:
        raise SourceError(
            f"{name} cannot be opened for {channels} channel{'s' if channels > 1 else ''} of {spec.rate} samples per"
            f" second ({error}); list the devices with: python -m sounddevice"
        ) from error
    try:
        while True:
            _wait(stream, name, hop, live)
            content, overflowed = stream.read(hop)
            if overflowed:
                overflows.append(1)
            samples = np.frombuffer(bytes(content), "<i2").reshape(-1, channels)[:, channels - 1]
            yield samples.astype(np.float32) / _FULL
    except sounddevice.PortAudioError as error:
        raise SourceError(f"{name} went away ({error}); look at its plug, and start again.") from error
    finally:
        stream.abort(ignore_errors=True)
        stream.close(ignore_errors=True)


def _wait(stream: Any, name: str, hop: int, live: Live) -> None:
    """Until a hop is there.

    Raises:
        SourceError: nothing came for too long.
    """
    there, since = -1, live.clock()
    while (now := stream.read_available) < hop:
        if now > there:
            there, since = now, live.clock()
        elif live.clock() - since > live.timeout:
            raise SourceError(
                f"{name} gave nothing for {live.timeout:g} s; look at its plug, and start again."
            )
        live.sleep(_POLL_SECONDS)


def _sounddevice() -> Any:
    try:
        import sounddevice
    except ImportError as error:
        raise missing("sounddevice", purpose="which reads microphones") from error
    except OSError as error:  # it is there, and the library that it loads is not
        raise MissingDependencyError(
            "PortAudio, which reads microphones,", "Install it with: apt install libportaudio2"
        ) from error
    return sounddevice
