"""`edgetl tune`: the fastest variant and engine on this machine, measured and saved for `edgetl.load`.

Every variant is tried on every engine that suits it. One may win only if it computes the golden images' outputs here
and its recorded accuracy is no lower than the default variant's. All that may win are timed in turn in this process,
from pixels to outputs, as variants that normalise inside and those that leave it to us compare only so. Where no number
of threads is asked for, each is timed with one and with every usable core, and held against the others at its best.
"""

from __future__ import annotations

import datetime
import functools
import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from edgetl.bench.machine import describe
from edgetl.bench.statistics import EQUAL, median_ratio, summarise
from edgetl.bench.threads import Calls, ThreadTimes, numbers_of, time_threads
from edgetl.bench.timer import BLOCK, PAUSE_S, SETTLE, time_calls
from edgetl.bundle.archive import open_bundle
from edgetl.errors import BundleError, ConfigError, MissingDependencyError, ModelError
from edgetl.files import storage_errors
from edgetl.inputs.image import load_pixels
from edgetl.process import usable_cores
from edgetl.processor import architecture
from edgetl.progress import SILENT, Progress
from edgetl.records.measured import Latency, Machine
from edgetl.records.scores import value
from edgetl.runtime import tuned
from edgetl.runtime.choice import as_accurate, choose, first_metric
from edgetl.runtime.engines.table import ENGINES
from edgetl.runtime.targets import Choice, EngineName, tuned_path
from edgetl.tasks.metrics import metric as metric_of
from edgetl.text import first_line

if TYPE_CHECKING:
    from edgetl.bundle.archive import Bundle
    from edgetl.bundle.manifest import Manifest, Variant
    from edgetl.runtime.session import Session

SECONDS = 10.0
_LEAST_ROUNDS, _MOST_ROUNDS, _WARM_ROUNDS = 6, 200, 2


class TrialOutcome(StrEnum):
    """What became of a candidate.

    `absent`: the engine cannot run here. `failed`: it refuses the model. `wrong`: it gives other outputs than those
    recorded. `less accurate`: its recorded accuracy is lower than the default variant's, or not known.
    """

    CHOSEN = "chosen"
    TIMED = "timed"
    ABSENT = "absent"
    FAILED = "failed"
    WRONG = "wrong"
    LESS_ACCURATE = "less accurate"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One candidate. `variant` is empty for an engine as a whole.

    `latency` is from pixels to outputs, batch 1, with its better number of threads, `other_latency` with the other one
    that was tried. None where it was not timed; then `note` says why in one sentence.
    """

    target: EngineName
    outcome: TrialOutcome
    variant: str = ""
    latency: Latency | None = None
    other_latency: Latency | None = None
    note: str = ""

    @property
    def name(self) -> str:
        """`fp32 on openvino`, or just the engine."""
        return f"{self.variant} on {self.target}" if self.variant else self.target.value


@dataclass(frozen=True, kw_only=True)
class TuneRecord:
    """All candidates; what was chosen and why, with which packages; and the file that keeps it.

    `threads` is the largest number that was tried, `best_threads` that of the chosen one.
    """

    bundle: str
    threads: int
    best_threads: int
    trials: tuple[Trial, ...]
    variant: str
    target: EngineName
    reason: str
    date: str
    saved: str
    versions: dict[str, str]
    machine: Machine


def tune(
    bundle: Path,
    *,
    threads: int | None = None,
    seconds: float = SECONDS,
    require_signature: Path | None = None,
    progress: Progress = SILENT,
) -> TuneRecord:
    """Measure a bundle's variants on the engines of this machine and keep the fastest for `edgetl.load`.

    What was saved before stays until the measurement is done.

    Args:
        bundle: the bundle.
        threads: threads of the engines on the CPU; where unset, the better of one and every usable core.
        seconds: time for the timing; 30 calls of each are timed at least, however long that takes.
        require_signature: a public key; the bundle must be signed with its private half.
        progress: shows candidates and of the timing.

    Raises:
        BundleError: the bundle is missing, broken, altered or unsigned.
        ConfigError: seconds is not above 0, or threads below 1.
        ModelError: no candidate runs here as recorded; the message says why not.
        StorageError: the cache folder cannot be written.
    """
    count = usable_cores() if threads is None else threads
    numbers = numbers_of(count) if threads is None else (count,)
    if not seconds > 0 or count < 1:
        raise ConfigError(f"seconds is {seconds} and threads {count}, expected above 0 and at least 1.")
    opened = open_bundle(bundle)
    if require_signature is not None:
        from edgetl.bundle.signature import require_signature as check

        check(opened, require_signature)
    opened.verify()
    _make_folder(opened)
    today = _today(opened.manifest)
    with ExitStack() as stack:
        trials, sessions = _try_all(opened, today, numbers, require_signature, stack, progress)
        if not sessions:
            stated = "; ".join(f"{t.name}: {t.note.rstrip('.')}" for t in trials)
            raise ModelError(f"No variant of {opened.manifest.name} runs here as recorded ({stated}).")
        pixels = load_pixels(opened.golden_images()[0], opened.manifest.preprocess)[None]
        calls = {
            name: {number: functools.partial(session.run, pixels) for number, session in by.items()}
            for name, by in sessions.items()
        }
        samples = _time(calls, seconds, progress)
    trials = [_timed(t, samples[t.name]) if t.name in samples else t for t in trials]
    date = datetime.datetime.now().astimezone().date().isoformat()
    chosen, reason = decide([t for t in trials if t.latency is not None], today, date)
    versions = tuned.engine_versions()
    assert chosen.latency is not None
    best = chosen.latency.threads
    winner = tuned.Winner(
        variant=chosen.variant,
        target=chosen.target,
        reason=reason,
        date=date,
        machine=tuned.this_machine(),
        versions=versions,
        threads=best,
    )
    return TuneRecord(
        bundle=bundle.name,
        threads=count,
        best_threads=best,
        trials=tuple(replace(t, outcome=TrialOutcome.CHOSEN) if t is chosen else t for t in trials),
        variant=chosen.variant,
        target=chosen.target,
        reason=reason,
        date=date,
        saved=str(tuned.keep(opened, threads, winner)),
        versions=versions,
        machine=describe(),
    )


def decide(timed: Sequence[Trial], today: Choice | None, date: str) -> tuple[Trial, str]:
    """The fastest by the median; but what would run without a measurement stays where it is as fast within it.

    As fast: the 95% interval of the ratio of medians (paired bootstrap) reaches down to 1.02 or less.

    Args:
        timed: candidates with latencies, sampled in turn; at least one.
        today: what runs without a measurement.
        date: of the measurement, for the reason.

    Returns:
        The chosen one, and the reason in one sentence.
    """
    ranked = sorted(timed, key=lambda t: _p50(t))
    fastest = ranked[0]
    standing = next(
        (t for t in timed if today and (t.variant, t.target) == (today.variant, today.target)), None
    )
    chosen = standing if standing is not None and _as_fast(standing, fastest) else fastest
    if len(ranked) == 1:
        return (
            chosen,
            f"{chosen.name}{_with(chosen)} was the only one that could be measured here on {date}: {_ms(chosen)}",
        )
    if chosen is fastest:
        rank = "the fastest"
        other = standing if standing not in (None, chosen) else ranked[1]
    else:
        rank, other = "as fast as the fastest", fastest
    assert other is not None
    return chosen, (
        f"{chosen.name}{_with(chosen)} was {rank} of {len(ranked)} measured here on {date}: {_ms(chosen)} against "
        f"{_ms(other)} of {other.name}"
    )


def _today(manifest: Manifest) -> Choice | None:
    """What runs without a measurement; None where no variant is made for this machine's processor."""
    try:
        return choose(manifest)
    except BundleError:
        return None


def _make_folder(bundle: Bundle) -> None:
    """Learn before the measurement, not after it, that what it finds cannot be saved."""
    folder = tuned_path(bundle).parent
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)


def _try_all(
    bundle: Bundle,
    today: Choice | None,
    numbers: Sequence[int],
    key: Path | None,
    stack: ExitStack,
    progress: Progress,
) -> tuple[list[Trial], dict[str, dict[int, Session]]]:
    """Every candidate, and open sessions of those that are to be timed, by name and number of threads; `stack` closes
    them."""
    trials: list[Trial] = []
    sessions: dict[str, dict[int, Session]] = {}
    arch, manifest = architecture(), bundle.manifest
    suited = {t: [v for v in manifest.variants if e.suits(v, arch)] for t, e in ENGINES.items()}
    with progress.task("Trying candidates", sum(map(len, suited.values()))) as bar:
        for target, variants in suited.items():
            if not variants:
                made = " or ".join(ENGINES[target].wants(arch))
                note = f"The bundle has no variant made for {made}."
                trials.append(Trial(target=target, outcome=TrialOutcome.ABSENT, note=note))
            for done, variant in enumerate(variants):
                bar.advance(0, note=f"{variant.name} on {target}")
                trial = _doubt(manifest, today, target, variant)
                if trial is None:
                    trial = _try(bundle, target, variant.name, numbers, key, stack, sessions)
                trials.append(trial)
                if trial.outcome is TrialOutcome.ABSENT:
                    bar.advance(len(variants) - done)
                    break
                bar.advance()
    return trials, sessions


def _doubt(manifest: Manifest, today: Choice | None, target: EngineName, variant: Variant) -> Trial | None:
    """Why a variant may not win by its recorded accuracy. The default and what runs without a measurement may."""
    default = manifest.variant()
    assert default is not None  # A manifest without its default is refused when it is read.
    metric = first_metric(manifest)
    if (
        variant is default
        or (today and variant.name == today.variant)
        or as_accurate(variant, default, metric)
    ):
        return None
    scores = [f"{value(v.val, metric):.1%}" if v.val else "not recorded" for v in (variant, default)]
    note = f"Its {metric_of(metric).title} on the validation split is {scores[0]}, that of {default.name} {scores[1]}."
    return Trial(target=target, variant=variant.name, outcome=TrialOutcome.LESS_ACCURATE, note=note)


def _try(
    bundle: Bundle,
    target: EngineName,
    variant: str,
    numbers: Sequence[int],
    key: Path | None,
    stack: ExitStack,
    sessions: dict[str, dict[int, Session]],
) -> Trial:
    from edgetl.runtime.session import load

    opened: dict[int, Session] = {}
    try:
        # A GPU's time does not depend on the threads of the CPU.
        for number in reversed(numbers if ENGINES[target].on_cpu else numbers[-1:]):
            opened[number] = stack.enter_context(
                load(bundle.path, target=target, variant=variant, threads=number, require_signature=key)
            )
        session = next(iter(opened.values()))
        check = session.verify()
    except MissingDependencyError as error:
        return Trial(target=target, outcome=TrialOutcome.ABSENT, note=f"{error}")
    except Exception as error:  # A broken engine may raise anything, and the others are tried all the same.
        note = first_line(error)
        return Trial(target=target, variant=variant, outcome=TrialOutcome.FAILED, note=note)
    if not check.passed:
        for session in opened.values():
            session.close()
        return Trial(target=target, variant=variant, outcome=TrialOutcome.WRONG, note=check.reason)
    trial = Trial(target=target, variant=variant, outcome=TrialOutcome.TIMED)
    sessions[trial.name] = opened
    return trial


def _time(calls: Mapping[str, Calls], seconds: float, progress: Progress) -> dict[str, ThreadTimes]:
    """Samples of each in milliseconds, in as many rounds as `seconds` hold."""
    once_ms = sum(
        min(statistics.median(time_calls(call, warmup=SETTLE, runs=BLOCK)) for call in by_threads.values())
        for by_threads in calls.values()
    )
    round_s = PAUSE_S * len(calls) + (SETTLE + BLOCK) * once_ms / 1000
    rounds = min(max(int(seconds / round_s), _LEAST_ROUNDS), _MOST_ROUNDS)
    return time_threads(
        calls,
        warmup=_WARM_ROUNDS * BLOCK,
        runs=rounds * BLOCK,
        pause_s=PAUSE_S,
        settle=SETTLE,
        block=BLOCK,
        progress=progress,
    )


def _timed(trial: Trial, found: ThreadTimes) -> Trial:
    other = None if found.other_threads is None else _latency(found.other_ms, found.other_threads)
    return replace(trial, latency=_latency(found.samples_ms, found.threads), other_latency=other)


def _latency(samples_ms: Sequence[float], threads: int) -> Latency:
    return summarise(
        samples_ms,
        scenario="single-stream, from pixels",
        batch=1,
        threads=threads,
        warmup=_WARM_ROUNDS * BLOCK,
    )


def _as_fast(trial: Trial, fastest: Trial) -> bool:
    if trial is fastest:
        return True
    assert trial.latency is not None
    assert fastest.latency is not None
    return median_ratio(fastest.latency.samples_ms, trial.latency.samples_ms, paired=True).low <= EQUAL


def _p50(trial: Trial) -> float:
    assert trial.latency is not None
    return trial.latency.p50_ms


def _with(trial: Trial) -> str:
    """With how many threads it is faster, where two numbers were tried."""
    if trial.latency is None or trial.other_latency is None:
        return ""
    number = trial.latency.threads
    return f" with {number} thread{'' if number == 1 else 's'}"


def _ms(trial: Trial) -> str:
    value = _p50(trial)
    return f"{value:.3g} ms" if value < 1000 else f"{value:.0f} ms"
