"""Spoken digits from recordings to labels: accuracy on new recordings and on new speakers, latency, size, a stream.

EfficientNet-Lite0 on pictures of sounds at 96 px, pruned and distilled. `spoken_digits` is split twice: by recording,
where every speaker is known, and by speaker, where those of validation and test were never heard: of six speakers one
each, so the figure on new speakers is of one voice. About 12 minutes a seed and split on two quiet cores. Runs are
kept (`EDGETL_BENCH_CACHE`), so that what was stopped goes on; `EDGETL_BENCH_SEEDS` names the seeds (default
`0,1,2`).
"""

from __future__ import annotations

import io
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import edgetl
from edgetl import config, pipeline
from edgetl.data import index as indexes
from edgetl.inputs import sound
from edgetl.inputs.spec import SoundSpec
from edgetl.records.scores import value
from edgetl.report.run import headline
from edgetl.runtime.inputs import open_source, predict_all
from edgetl.runtime.listening import Listening
from edgetl.runtime.session import Session
from tests.bench.claims import Claim, at_least, at_most
from tests.bench.steps import Spoken, kept, named_seeds
from tests.real_sets import unpacked

FAMILY, DATA, RATE = "sound", "spoken_digits", 8000
BY_RECORDING, BY_SPEAKER = "new recordings", "new speakers"
PATTERNS = {BY_RECORDING: None, BY_SPEAKER: r"(speaker\d+)_"}
TOP1, POINTS, TIMES, MILLISECONDS = 98.0, 1.0, 20.0, 3.0
MINUTES, HOP, SURE = 10, 0.25, 0.95
"""Of the stream, seconds between its labels, and the score from which one counts."""
_CALLS = 300


@dataclass(frozen=True, kw_only=True)
class Word:
    """A word in a stream: its class, and where it begins and ends in seconds."""

    label: str
    start: float
    end: float


@dataclass(frozen=True, kw_only=True)
class Streamed:
    """What became of a stream: words in it and those found, false alarms, and by how much the process grew."""

    words: int
    found: int
    false_alarms: int
    hours: float
    grown_mb: float
    times_real: float


def recipe_for(source: Path, pattern: str | None, seed: int, **changes: dict[str, object]) -> config.Recipe:
    """As `edgetl init` writes it for the set."""
    values: dict[str, dict[str, object]] = {
        "data": {"source": str(source), "input": "sound", "group_pattern": pattern},
        "sound": {"rate": RATE, "seconds": 1.1},
        "preprocess": {"size": 96},
        "train": {"epochs": 12},
        "prune": {"recovery_epochs": 1, "target_parameters": 0.15},
        "distill": {"epochs": 10},
    }
    for section, own in changes.items():
        values[section] = {**values.get(section, {}), **own}
    return config.parse({"name": DATA, "seed": seed, **values})


def run() -> Iterator[Claim]:
    """Yield the claims."""
    source = unpacked(DATA)
    if source is None:
        yield Claim(name=DATA, measured=f"not measured: EDGETL_DATA names no folder with {DATA}")
        return
    for name, pattern in PATTERNS.items():
        yield from _split(source, name, pattern)
    folder = kept(FAMILY, f"{BY_RECORDING}-0".replace(" ", "-"))
    bundle = next(folder.glob("*.edgetl"))
    with edgetl.load(bundle) as session:
        test = indexes.load(folder / "data" / "index.json").split("test")
        yield from latency(session, [sample.path for sample in test])
        labels = session.labels
        yield from told(streamed(session, [(sample.path, labels[sample.label]) for sample in test]))


def _split(source: Path, name: str, pattern: str | None) -> Iterator[Claim]:
    taught, shipped, sizes = list[float](), list[float](), list[float]()
    for seed in named_seeds("0,1,2"):
        folder = kept(FAMILY, f"{name}-{seed}".replace(" ", "-"))
        report = pipeline.run(recipe_for(source, pattern, seed), folder, progress=Spoken()).report
        assert report is not None
        head = headline(report)
        assert head.split == "test"
        taught.append(100 * value(head.teacher, "top1"))
        shipped.append(100 * value(head.student, "top1"))
        sizes.append(head.size_ratio)
        yield Claim(
            name=f"{name}, seed {seed}: teacher and {head.shipped.name} on {head.split}",
            measured=f"{taught[-1]:.2f}% and {shipped[-1]:.2f}%; {report.measure.teacher_latency.p50_ms:.2f} and"
            f" {head.shipped.latency.p50_ms:.3f} ms; {report.measure.teacher_size_bytes / 1e6:.2f} and"
            f" {head.shipped.size_bytes / 1e6:.3f} MB, {head.size_ratio:.1f}x",
        )
    mean = statistics.mean(shipped)
    if pattern is None:
        yield at_least(f"{name}: top-1 of what ships, mean", mean, TOP1, "%")
        yield at_most(
            f"{name}: points lost to the teacher, mean", statistics.mean(taught) - mean, POINTS, " points"
        )
        yield at_least(f"{name}: size on disk, mean of ratios", statistics.mean(sizes), TIMES, "x")
    else:
        yield Claim(name=f"{name}: top-1 of what ships, mean", measured=f"{mean:.1f}%")


def latency(session: Session, paths: Sequence[Path]) -> Iterator[Claim]:
    """From samples in memory to the answer, one recording after the other."""
    spec = session.manifest.preprocess.sound
    assert spec is not None
    sounds = [sound.load_mono(path, spec) for path in paths[:_CALLS]]
    for one in sounds[:20]:
        session.predict(one)
    whole, drawing = list[float](), list[float]()
    for one in sounds:
        start = time.perf_counter()
        session.predict(one)
        middle = time.perf_counter()
        sound.drawn(one, spec)
        whole.append(middle - start)
        drawing.append(time.perf_counter() - middle)
    middle_ms = 1000 * statistics.median(whole)
    yield at_most(f"{spec.seconds:g} s of samples to a label, median", middle_ms, MILLISECONDS, " ms")
    share = statistics.median(drawing) / statistics.median(whole)
    yield Claim(name="share of it that the spectrogram takes", measured=f"{share:.0%}")


def sentence(
    recordings: Sequence[tuple[Path, str]], spec: SoundSpec, seconds: float, seed: int = 0
) -> tuple[NDArray[np.float32], list[Word]]:
    """Words in an order of their own, with pauses of faint noise: samples, and where the words are.

    Args:
        recordings: files and their classes.
        spec: the rate.
        seconds: about as long.
        seed: of order, pauses and noise.
    """
    rng = np.random.default_rng(seed)
    parts, words, at = list[NDArray[np.float32]](), list[Word](), 0
    while at < seconds * spec.rate:
        pause = np.zeros(round(rng.uniform(0.8, 2.0) * spec.rate), np.float32)
        path, label = recordings[int(rng.integers(len(recordings)))]
        own = sound.load_mono(path, spec)
        begins = at + len(pause)
        words.append(Word(label=label, start=begins / spec.rate, end=(begins + len(own)) / spec.rate))
        parts += [pause, own]
        at = begins + len(own)
    samples = np.concatenate(parts)
    return samples + rng.normal(0, 3e-4, len(samples)).astype(np.float32), words


def streamed(
    session: Session, recordings: Sequence[tuple[Path, str]], seconds: float = 60.0 * MINUTES
) -> Streamed:
    """Label a stream of words from a pipe, and count."""
    spec = session.manifest.preprocess.sound
    assert spec is not None
    samples, words = sentence(recordings, spec, seconds)
    raw = np.rint(np.clip(samples, -1, 32767 / 32768) * 32768).astype("<i2").tobytes()
    how = Listening(spec=spec, hop=HOP, pcm=spec.rate)
    source = open_source(["-"], stdin=io.BytesIO(raw), sounds=how)
    answers, sizes, began = list[tuple[float, str, float]](), list[float](), time.perf_counter()
    for result in predict_all(session, source):
        assert result.prediction is not None
        assert result.seconds is not None
        answers.append((result.seconds, result.prediction.label, result.prediction.score))
        sizes.append(_resident_mb())
    took = time.perf_counter() - began
    found, false = judged(answers, words, spec.seconds)
    length = len(samples) / spec.rate
    return Streamed(
        words=len(words),
        found=found,
        false_alarms=false,
        hours=length / 3600,
        grown_mb=sizes[-1] - sizes[len(sizes) // 5],
        times_real=length / took,
    )


def judged(
    answers: Sequence[tuple[float, str, float]], words: Sequence[Word], window: float
) -> tuple[int, int]:
    """Words found, and false alarms.

    An alarm is a row of windows with one label, all of a score of `SURE` or more. It is right where the windows meet a
    word of its label, which then is found, and false where they do not.

    Args:
        answers: where each window begins in seconds, its label and score.
        words: what was said.
        window: seconds of a window.
    """
    alarms: list[tuple[str, float, float]] = []
    last = ""
    for start, label, score in answers:
        if score < SURE:
            last = ""
        elif label == last:
            alarms[-1] = (label, alarms[-1][1], start + window)
        else:
            alarms.append((label, start, start + window))
            last = label
    found, false = set[int](), 0
    for label, start, end in alarms:
        met = {at for at, w in enumerate(words) if w.label == label and w.start < end and w.end > start}
        found |= met
        false += not met
    return len(found), false


def told(what: Streamed) -> Iterator[Claim]:
    """The claims of a stream."""
    name = (
        f"a stream of {60 * what.hours:.0f} minutes, a label every {HOP:g} s of a score of {SURE:g} or more"
    )
    yield Claim(
        name=f"{name}: words found", measured=f"{what.found} of {what.words}, {what.found / what.words:.1%}"
    )
    yield Claim(name=f"{name}: false alarms per hour", measured=f"{what.false_alarms / what.hours:.0f}")
    yield at_most(f"{name}: growth of the process after the first fifth", what.grown_mb, 2.0, " MB")
    yield Claim(name=f"{name}: times as fast as it is heard", measured=f"{what.times_real:.0f}x")


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
