"""What a set of recordings is like, and the settings that suit it: what `edgetl init` writes into their recipe."""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from edgetl.data.parallel import in_threads
from edgetl.data.sources import Entry, FoundImages
from edgetl.data.suggest import Suggestion
from edgetl.errors import DataError, SoundError
from edgetl.inputs.recordings import read_recording
from edgetl.inputs.sound import SILENT
from edgetl.progress import SILENT as NOT_SHOWN
from edgetl.progress import Progress

_SAMPLE = 300
_USUAL_RATE = 16_000
"""More is not proposed: up to 8 kHz speech is understood, and pictures of more would show less of it."""
_LONGEST = 10.0
"""Seconds of a window that is proposed at most."""
_MOST = 0.99
"""The share of the recordings that fit into the window that is proposed."""
_SIDES = ((1.5, 96), (4.0, 128), (math.inf, 160))
"""Seconds of a window, and the side of its picture in pixels."""
_NAMED = r"([^/]+)[_-]\d+\.[^./]+$"
"""Files of one speaker or recording are often called alike, with a number: `jackson_12.wav`."""
_EPOCHS = 12
"""Of the teacher. Of spoken_digits.zip, with 2,107 training recordings, validation was at 80, 90 and 95% after 2, 3 and
4 epochs, 98% after 5 and 99% after 9 to 12."""
_PARAMETERS = 0.15
"""Of the student. With as many as a cut to 30% of the multiply-accumulates left, 17 to 19%, it knew 99.4% of the
validation recordings of spoken_digits.zip, with these 99.3% (means of three seeds)."""
_FEWEST_GROUPS = 5
"""Of which one may be validation and one test, and those that are left still differ."""


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What an even sample of recordings showed.

    Attributes:
        recordings: number of the whole set.
        rate: samples per second of most of them.
        rates: how many different ones there are.
        seconds: a length that all but a few do not exceed.
        channels: the largest number of channels.
        dead: of several channels the ones, counted from 1, that are silent in most of those recordings.
        groups: how many groups the files' names make, 0 where they make none.
    """

    recordings: int
    rate: int
    rates: int
    seconds: float
    channels: int = 1
    dead: tuple[int, ...] = ()
    groups: int = 0


def listen(found: FoundImages, *, progress: Progress = NOT_SHOWN) -> Heard:
    """Read an even sample of a source's recordings; those that cannot be read are left to the index.

    Raises:
        DataError: none of them can be read; the message says why.
        MissingDependencyError: they are FLAC or Ogg, and `soundfile` is not installed.
    """
    entries = found.entries
    sample = entries[:: max(1, len(entries) // _SAMPLE)]
    rates, lengths, channels, dead = Counter[int](), list[float](), 1, Counter[int]()
    reason, several = "", 0

    def read(entry: Entry) -> tuple[int, float, tuple[bool, ...]] | str:
        try:
            samples, rate = read_recording(entry.path)
        except SoundError as error:
            return str(error)
        spans = (samples.max(axis=0) - samples.min(axis=0)) if len(samples) else []
        return rate, len(samples) / rate, tuple(bool(span < SILENT) for span in spans)

    for results in in_threads(read, sample, description="Listening", progress=progress):
        for result in results:
            if isinstance(result, str):
                reason = reason or result
                continue
            rate, seconds, silent = result
            rates[rate] += 1
            lengths.append(seconds)
            channels = max(channels, len(silent))
            if len(silent) > 1 and not all(silent):
                several += 1
                dead.update(at + 1 for at, one in enumerate(silent) if one)
    if not lengths:
        raise DataError(f"None of the recordings that were looked at can be read, e.g. {reason}")
    lengths.sort()
    return Heard(
        recordings=len(entries),
        rate=rates.most_common(1)[0][0],
        rates=len(rates),
        seconds=lengths[min(len(lengths) - 1, int(_MOST * len(lengths)))],
        channels=channels,
        dead=tuple(sorted(at for at, count in dead.items() if 2 * count > several)),
        groups=_groups(entries),
    )


def _groups(entries: Sequence[Entry]) -> int:
    """How many groups `_NAMED` makes, where most of them have several files, and of several classes."""
    labels: defaultdict[str, set[str]] = defaultdict(set)
    sizes = Counter[str]()
    for entry in entries:
        match = re.search(_NAMED, entry.path.as_posix())
        if match is None or entry.group or entry.split is not None:
            return 0
        labels[match[1]].update(entry.names)
        sizes[match[1]] += 1
    shared = statistics.median(map(len, labels.values())) > 1
    return len(sizes) if shared and len(sizes) >= _FEWEST_GROUPS and 2 * len(sizes) <= len(entries) else 0


def suggest_sound(heard: Heard) -> Sequence[Suggestion]:
    """The settings of `[sound]`, and what goes with them."""
    found: list[tuple[str, object, str]] = [("data.input", "sound", "the data are recordings")]
    if heard.groups:
        found.append(
            (
                "data.group_pattern",
                _NAMED,
                f"the files' names make {heard.groups} groups, as of speakers: kept together, the scores are those of"
                " speakers that were never heard. Without it they are those of new recordings of known ones",
            )
        )
    rate = min(heard.rate, _USUAL_RATE)
    several = f", {heard.rates} rates in all" if heard.rates > 1 else ""
    reason = f"most recordings have {heard.rate:,} samples per second{several}"
    if rate < heard.rate:
        reason += (
            f"; {rate / 2:,.0f} Hz is the highest frequency that is heard then: raise it where hisses matter"
        )
    found.append(("sound.rate", rate, reason))
    seconds = min(_LONGEST, max(0.1, math.ceil(heard.seconds * 10.0 - 1e-6) / 10.0))
    reason = f"{_MOST:.0%} of the recordings are no longer than {heard.seconds:.2f} s"
    if heard.seconds > _LONGEST:
        reason += f"; of longer ones the loudest {_LONGEST:g} s are taken"
    found.append(("sound.seconds", seconds, reason))
    side = next(side for longest, side in _SIDES if seconds <= longest)
    found.append(
        ("sound.frames", side, f"a spectrum every {1000 * seconds / side:.0f} ms, one for each pixel")
    )
    if len(heard.dead) and len(heard.dead) < heard.channels:
        alive = next(at + 1 for at in range(heard.channels) if at + 1 not in heard.dead)
        found.append(("sound.channel", alive, f"channel {heard.dead[0]} of {heard.channels} is silent"))
    found += [
        ("preprocess.size", side, f"{seconds:g} s of sound; more pixels would show it no sharper"),
        ("preprocess.resize", "squash", "a crop would cut off the beginning and the end"),
        (
            "train.epochs",
            _EPOCHS,
            "pictures of sounds are far from the photographs that the backbone has seen, and take longer to learn",
        ),
        (
            "prune.target_parameters",
            _PARAMETERS,
            "pictures of sounds hold less than photographs, and as few weights knew spoken words as well",
        ),
        ("train.augment", "sound", "moved, faster or slower, noisy and masked, never mirrored"),
        ("distill.augment", "sound", "as for the teacher"),
    ]
    return [Suggestion(key=key, value=value, reason=reason) for key, value, reason in found]
