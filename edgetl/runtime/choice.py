"""Which variant runs here, and on which engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgetl.bundle.manifest import Manifest, Precision, Variant
from edgetl.errors import BundleError, StorageError
from edgetl.process import usable_cores
from edgetl.processor import INT8_KINDS, VNNI_TARGET, architecture, kind
from edgetl.records.scores import value
from edgetl.runtime.engines import table
from edgetl.runtime.engines.table import ENGINES, Engine
from edgetl.runtime.targets import Choice, EngineName, tuned_path
from edgetl.shell import command
from edgetl.tasks.all import task_of

if TYPE_CHECKING:
    from edgetl.bundle.archive import Bundle
    from edgetl.records.measured import Machine


def choose_here(
    bundle: Bundle,
    *,
    threads: int | None,
    target: EngineName = EngineName.AUTO,
    variant: str | None = None,
    precision: Precision | None = None,
) -> Choice:
    """What `edgetl.load` runs: what `edgetl tune` found the fastest here where nothing was asked for, else `choose`.

    A measurement that fits no more is not used, and the reason says so. Where there is none, this costs a look for
    its file.

    Args:
        bundle: the opened bundle.
        threads: threads of the engine; a measurement holds for the number that it was made with. None where the best
            number shall be taken.
        target: as in `choose`, as are the others.

    Raises:
        BundleError: as `choose` does.
    """
    note = ""
    free = target is EngineName.AUTO and variant is None and precision is None
    if free and (path := _tuned_file(bundle)) is not None:
        from edgetl.runtime.tuned import recall

        found = recall(path, bundle, threads)
        if isinstance(found, Choice):
            return found
        note = f"; {found}"
    chosen = choose(
        bundle.manifest, target=target, variant=variant, precision=precision, suggest_tune=not note
    )
    return dataclasses.replace(chosen, reason=chosen.reason + note) if note else chosen


def _tuned_file(bundle: Bundle) -> Path | None:
    """That file where it is there."""
    try:
        path = tuned_path(bundle)
        return path if path.is_file() else None
    except (OSError, StorageError):  # Without a home, or the right to look into it, nothing was saved.
        return None


def choose(
    manifest: Manifest,
    *,
    target: EngineName = EngineName.AUTO,
    variant: str | None = None,
    precision: Precision | None = None,
    arch: str | None = None,
    suggest_tune: bool = True,
) -> Choice:
    """Choose the engine and the variant.

    Args:
        manifest: the bundle's.
        target: the engine; for `auto`, the CPU's ONNX Runtime, or what takes the bundle's files where none is for it.
        variant: take this one, whatever its figures.
        precision: only variants of this arithmetic.
        arch: the processor family; this machine's where unset.
        suggest_tune: say in the reason how to measure where no figures are of this kind of machine.

    Raises:
        BundleError: there is no such variant, or none that was made for the target.
    """
    here, metric = arch or architecture(), first_metric(manifest)
    processor = kind(here)

    def choice_of(variant: Variant, why: str) -> Choice:
        figures = _figures(variant, processor, metric, suggest_tune=suggest_tune)
        return Choice(
            variant=variant.name,
            target=engine,
            reason=f"{variant.name} {why}{figures}",
            threads=_threads(variant, engine, processor),
        )

    engine: EngineName = EngineName.CPU if target is EngineName.AUTO else target
    known = ", ".join(f"{v.name} (made for {v.target})" for v in manifest.variants)
    if variant is not None:
        named = manifest.variant(variant)
        if named is None or precision not in (None, named.precision):
            what = f"variant {variant!r}" + (f" in {precision}" if named else "")
            raise BundleError(f"{manifest.name} has no {what}; it has {known}.")
        if named.format is not ENGINES[engine].model_format:
            engine = _taker(named, target)
        return choice_of(named, "was asked for")
    if target is EngineName.AUTO and not any(
        v.format is ENGINES[engine].model_format for v in manifest.variants
    ):
        engine = _taker(manifest.variants[0], target)
    runs = ENGINES[engine]
    fitting = [v for v in manifest.variants if runs.suits(v, here) and precision in (None, v.precision)]
    if not fitting:
        asked = f" in {precision}" if precision else ""
        raise BundleError(
            f"{manifest.name} has no variant{asked} made for {' or '.join(runs.wants(here))}; it has {known}. "
            "Name one to run it all the same."
        )
    default = manifest.variant()
    assert default is not None  # A manifest without its default is refused when it is read.
    if engine in (EngineName.TENSORRT, EngineName.TENSORRT_RTX):
        chosen, why = _for_engines(engine, fitting, manifest, default)
        return choice_of(chosen, why)
    timed = {v.name for v in manifest.variants if v.latency and v.machine}
    ranked = {
        v.name for v in manifest.variants if v.name in timed and runs.on_cpu and alike(v.machine, processor)
    }
    if timed and not ranked:
        chosen, why = _unranked(runs, fitting, default, metric, processor)
    elif default in fitting:
        chosen, why = default, "is the bundle's default"
    else:
        chosen = _fastest(fitting, default, metric, ranked)
        rank = "the fastest" if chosen.name in ranked and len(fitting) > 1 else "the one"
        why = f"is {rank} made for {_KINDS.get(chosen.target, chosen.target)}"
    if default not in fitting:
        made = f"the default {default.name} was made for {default.target}"
        why += f", and {made if precision is None else f'{precision} was asked for'}"
    return choice_of(chosen, why)


def _taker(variant: Variant, asked: EngineName) -> EngineName:
    """The engine that takes the variant's file, where none was asked for.

    Raises:
        BundleError: another one was.
    """
    takers = [engine.name for engine in table.takers(variant.format)]
    if asked is not EngineName.AUTO or not takers:
        raise BundleError(
            f"{variant.name} is a file of the format {variant.format}, which the target {asked} does not take; the"
            f" target for it is {' or '.join(takers)}."
        )
    return takers[0]


def unmeasured_gpus(choice: Choice, offered: Sequence[str]) -> Choice:
    """The choice of the CPU, which also names the targets that were passed over: bundles carry no GPU's figures.

    Args:
        choice: what `choose` found for `auto`.
        offered: ONNX Runtime's providers here; that one is offered does not mean that it works.
    """
    if not (names := [str(e.name) for e in ENGINES.values() if e.provider in offered]):
        return choice
    stated = (
        f"ONNX Runtime offers {' and '.join(names)} here, for which the bundle carries no measured latency"
    )
    measure = command("bench", "BUNDLE", "--target", names[0])
    return dataclasses.replace(choice, reason=f"{choice.reason}; {stated}: measure with {measure}")


_KINDS = {"any": "any machine", "cpu": "any CPU"}


def first_metric(manifest: Manifest) -> str:
    """The score that variants are compared by."""
    return task_of(manifest.task).metrics[0].name


def _threads(variant: Variant, engine: EngineName, processor: str) -> int | None:
    """The better number of threads, where it was measured on this engine and a machine like this with as many cores."""
    measured_on = table.takers(variant.format)[0].name
    if variant.latency is None or variant.other_latency is None or engine is not measured_on:
        return None
    like = alike(variant.machine, processor) and variant.machine and variant.machine.cores == usable_cores()
    return variant.latency.threads if like else None


def alike(machine: Machine | None, processor: str) -> bool:
    """Whether figures of that machine say what is faster on a processor of this `edgetl.processor.kind`.

    Older records know the family of their processor only, which then decides.
    """
    if machine is None:
        return False
    if machine.processor:
        return machine.processor == processor
    family = processor.partition("-")[0]
    names = {"x86": ("x86_64", "amd64"), "arm": ("arm", "aarch")}.get(family, (family,))
    return any(name in machine.system.lower() for name in names)


def _for_engines(
    engine: EngineName, fitting: Sequence[Variant], manifest: Manifest, default: Variant
) -> tuple[Variant, str]:
    """For TensorRT: a variant whose engine is in the bundle comes first, else one made for it, else the default."""
    compiled = {e.variant for e in manifest.engines if e.target == engine.value}
    order = sorted(fitting, key=lambda v: (v.name not in compiled, v.target == "any", v is not default))
    chosen = order[0]
    has = "has an engine in the bundle" if chosen.name in compiled else f"was made for {chosen.target}"
    return chosen, has


def _unranked(
    runs: Engine, fitting: Sequence[Variant], default: Variant, metric: str, processor: str
) -> tuple[Variant, str]:
    """Which one an engine runs without figures of its kind of machine, and why."""
    general = [v for v in fitting if v.target in _KINDS or v.precision is Precision.FP32]
    own = [v for v in fitting if v not in general and (not runs.on_cpu or processor in INT8_KINDS)]
    if kept := [v for v in own if as_accurate(v, default, metric)]:
        # What is made for VNNI has the finer weights.
        chosen = max(kept, key=lambda v: (v.target == VNNI_TARGET, v is default, _accuracy(v, metric)))
        whose = f"{chosen.target} and this processor's INT8 instructions" if runs.on_cpu else chosen.target
        return chosen, f"is made for {whose}"
    passed = "".join(f", while {v.name} is less accurate ({_accuracy(v, metric):.1%})" for v in own if v.val)
    if default in general:
        return default, f"is the bundle's default{passed}"
    others = general or list(fitting)
    level = [v for v in others if as_accurate(v, default, metric)]
    chosen = min(
        level or others,
        key=lambda v: (
            0.0 if level else -_accuracy(v, metric),
            v.precision is not Precision.FP32,
            v.size_bytes,
        ),
    )
    why = f"is made for {_KINDS.get(chosen.target, chosen.target)}"
    if general and default in fitting:
        why += f", while {default.name} is in INT8, for which this processor has no instructions"
    return chosen, why + passed


def _fastest(fitting: Sequence[Variant], default: Variant, metric: str, ranked: Collection[str]) -> Variant:
    """The fastest that is no less accurate than the default; where accuracy is unknown, the first float one."""
    kept = [v for v in fitting if v.name in ranked and as_accurate(v, default, metric)]
    if kept:
        return min(kept, key=lambda v: v.latency.p50_ms if v.latency else 0.0)
    scored = [v for v in fitting if v.val]
    if scored:
        return max(scored, key=lambda v: _accuracy(v, metric))
    return min(fitting, key=lambda v: v.precision is not Precision.FP32)


def _accuracy(variant: Variant, metric: str) -> float:
    return value(variant.val, metric) if variant.val else 0.0


def as_accurate(variant: Variant, default: Variant, metric: str) -> bool:
    """Whether a variant's score on the validation split is known to be no lower than the default's."""
    return (
        variant.val is not None
        and default.val is not None
        and value(variant.val, metric) >= value(default.val, metric)
    )


def _figures(variant: Variant, processor: str, metric: str, *, suggest_tune: bool) -> str:
    """`: 1.35 ms at 99.2% on ...`, and whether that was a machine like this one."""
    if variant.latency is None or variant.machine is None:
        return "; it carries no measured latency"
    accuracy = f" at {value(variant.val, metric):.1%}" if variant.val else ""
    threads = ""
    if variant.other_latency is not None:
        other = variant.other_latency
        number = f"{variant.latency.threads} thread{'' if variant.latency.threads == 1 else 's'}"
        threads = f" with {number} ({other.p50_ms:.2f} with {other.threads})"
    measured = (
        f": {variant.latency.p50_ms:.2f} ms{threads}{accuracy}, measured on {variant.machine.fingerprint}"
    )
    if alike(variant.machine, processor):
        return measured
    remedy = f": measure here with {command('tune', 'BUNDLE')}" if suggest_tune else ""
    return f"{measured}, another kind of machine{remedy}"
