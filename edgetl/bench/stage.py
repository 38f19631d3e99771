"""Benchmark a bundle: one scenario of one variant on this machine."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgetl import files
from edgetl.bench import conditions, loadgen, roofline, sensors
from edgetl.bench.clock import less_overhead
from edgetl.bench.machine import describe
from edgetl.bench.memory import measure_fresh
from edgetl.bench.pin import pinned
from edgetl.bench.profile import device_of, profile
from edgetl.bench.scenarios import BenchOptions, Scenario, ScenarioResult, measure
from edgetl.bench.statistics import summarise
from edgetl.bench.timer import time_calls
from edgetl.bench.warmup import warm_up
from edgetl.progress import SILENT, Progress
from edgetl.records.bench import BenchRecord, Footprint, LoadgenRecord, Profile, Roofline
from edgetl.records.measured import Latency
from edgetl.tasks.base import Outputs

if TYPE_CHECKING:
    from edgetl.bundle.archive import Bundle
    from edgetl.bundle.manifest import Manifest, Variant

RECORD_NAME = "bench.json"
MOST_TIMED = 256
"""Images that a measurement takes in turn."""
# Decoding takes the longer part of these; fewer samples keep the time in hand.
_END_TO_END_RUNS = 100
_END_TO_END_WARMUP = 10


class Model(Protocol):
    """What is measured: the part of a runtime session that this package uses."""

    @property
    def manifest(self) -> Manifest:
        """What the bundle holds."""
        ...

    @property
    def variant(self) -> Variant:
        """Which of the bundle's models runs."""
        ...

    def run(self, batch: NDArray[Any]) -> Outputs:
        """(N, 3, S, S) float32 images, or (N, S, S, 3) uint8 pictures, to float32 outputs by name."""
        ...

    def predict(self, image: Any) -> object:
        """Image files' bytes to predictions."""
        ...


@dataclass(frozen=True, kw_only=True)
class BenchInputs:
    """What is measured: a bundle, its variant and engine (chosen as `edgetl.load` does where unset).

    `images` are pictures to time it on, the bundle's golden ones where there are none. `require_signature` is a public
    key that must have signed the bundle.
    """

    bundle: Path
    images: tuple[Path, ...] = ()
    variant: str | None = None
    target: str = "auto"
    require_signature: Path | None = None


def run(
    config: BenchOptions,
    inputs: BenchInputs,
    *,
    profiled: bool = False,
    against_peaks: bool = False,
    with_loadgen: bool = False,
    out: Path | None = None,
    progress: Progress = SILENT,
) -> BenchRecord:
    """Measure latency in a scenario, then load time and peak memory in fresh processes.

    Args:
        config: scenario and lengths.
        inputs: the bundle and variant.
        profiled: also ask the engine's profiler for the time of each layer.
        against_peaks: also measure the machine's own peaks, and what share of them each layer and the model reach.
        with_loadgen: also run the scenario under MLCommons' load generator.
        out: a folder for `bench.json`, not written where unset.
        progress: shows the samples, seldom.

    Raises:
        BundleError: the bundle cannot be used.
        ImageError: an image cannot be used.
        ConfigError: the engine has no profiler or peaks that are measured here, or the cores to pin to cannot be had.
        MissingDependencyError: the load generator is not installed.
    """
    from edgetl.runtime.engines.table import engine_of
    from edgetl.runtime.session import load

    if with_loadgen:
        loadgen.import_loadgen()
    warnings = list(conditions.unfit())
    by_loadgen: LoadgenRecord | None = None
    layers: Profile | None = None
    reached: Roofline | None = None
    with (
        pinned(config.pin) as pin,
        load(
            inputs.bundle,
            target=inputs.target,
            variant=inputs.variant,
            threads=_threads(config),
            require_signature=inputs.require_signature,
        ) as session,
    ):
        if engine_of(session.choice.target).on_cpu:
            config = dataclasses.replace(config, threads=session.backend.threads)
        opened = session.bundle
        images = _images(inputs, opened, progress)
        variant, target = session.variant, session.choice.target
        device = device_of(target) if profiled else None
        if against_peaks:
            roofline.check(target)
        cores = pin.spread()
        progress.message(f"Measures {variant.name} on {target}: {session.choice.reason}.")
        call = model_call(session, images, config.images_per_call)
        handed_on = share_handed_on(session, images)
        if handed_on is not None and not inputs.images:
            warnings.append(_of_golden_images(variant, handed_on))
        before = sensors.read()
        result = measure(call, config, progress=progress)
        seen, doubts = conditions.between(before, sensors.read(), target)
        end_to_end = (
            measure_end_to_end(session, images, config, result.overhead_ns, progress)
            if config.end_to_end
            else None
        )
        if with_loadgen:
            by_loadgen = loadgen.run(call, config, result)
        if device is not None or against_peaks:
            tensor, content = (
                model_input(session, images, config.images_per_call),
                opened.read(variant.member),
            )
            if against_peaks:
                reached, times = roofline.measure(
                    content, tensor, threads=config.engine_threads, progress=progress
                )
                layers = times if profiled else None
            elif device is not None:
                layers = profile(content, tensor, device=device, threads=config.engine_threads)
    found = [*_unsteady(result), *doubts]
    if config.scenario is not Scenario.SERVER:  # Its queue makes levels of its own.
        found += conditions.shifted(result.latency.samples_ms)
    record = BenchRecord(
        bundle=inputs.bundle.name,
        bundle_sha256=opened.sha256(),
        variant=variant.name,
        scenario=config.scenario.value,
        latency=result.latency,
        end_to_end=end_to_end,
        footprint=_footprint(config, inputs.bundle, variant.name, target.value, progress),
        machine=describe(),
        name=opened.manifest.name,
        target=target.value,
        steady=result.warm.steady,
        timer_overhead_ns=result.overhead_ns,
        pinned=cores,
        conditions=seen,
        warnings=(*warnings, *found),
        handed_on=handed_on,
        profile=layers,
        loadgen=by_loadgen,
        roofline=reached,
        **_figure(result),
    )
    if out is not None:
        files.write_json(out / RECORD_NAME, record)
    return record


def _threads(config: BenchOptions) -> int | None:
    """What is asked of `edgetl.load`: the best number for one image per call, which is no measure of larger batches."""
    if config.threads is None and not config.pin and config.images_per_call == 1:
        return None
    return config.engine_threads


def _footprint(
    config: BenchOptions, bundle: Path, variant: str, target: str, progress: Progress
) -> Footprint:
    with pinned(config.pin):
        return measure_fresh(
            bundle,
            variant=variant,
            target=target,
            threads=config.engine_threads,
            batch=config.images_per_call,
            progress=progress,
        )


def _unsteady(result: ScenarioResult) -> tuple[str, ...]:
    if result.warm.steady is not False:
        return ()
    return (
        f"The calls were not steady after {result.warm.calls} of warm-up ({result.warm.seconds:.1f} s): their level "
        "kept moving, so take these figures for a range.",
    )


def model_input(session: Model, images: Sequence[bytes], batch: int) -> NDArray[Any]:
    """A batch of real images, as far preprocessed beforehand as the model wants them."""
    from edgetl.bundle.manifest import InputForm
    from edgetl.inputs.image import load_pixels, normalise

    spec = session.manifest.preprocess
    pixels = np.stack(
        [load_pixels(image, spec) for image in itertools.islice(itertools.cycle(images), batch)]
    )
    return pixels if session.variant.input is InputForm.UINT8 else normalise(pixels, spec)


def model_call(session: Model, images: Sequence[bytes], batch: int) -> Callable[[], object]:
    """A call of only the model on `batch` real images: the same ones every time, but of a cascade, whose time depends
    on them, all in turn."""
    if session.variant.cascade is None:
        tensor = model_input(session, images, batch)
        return lambda: session.run(tensor)
    supply = itertools.cycle(cascade_inputs(session, images, batch))
    return lambda: session.run(next(supply))


def cascade_inputs(session: Model, images: Sequence[bytes], batch: int) -> list[NDArray[Any]]:
    """Batches of at most `MOST_TIMED` of the images, drawn evenly from them and mixed."""
    from edgetl.data.splits import spread

    chosen = spread(images, MOST_TIMED)
    order = np.random.default_rng(0).permutation(len(chosen))
    mixed = [chosen[at] for at in order]
    return [model_input(session, mixed[at:] + mixed[:at], batch) for at in range(0, len(mixed), batch)]


def share_handed_on(session: Model, images: Sequence[bytes]) -> float | None:
    """Which share of the images that are timed a cascade hands to its larger model; None of one model."""
    if session.variant.cascade is None:
        return None
    handed_on = [session.run(one)["handed_on"] for one in cascade_inputs(session, images, 1)]
    return float(np.mean(handed_on))


def _of_golden_images(variant: Variant, handed_on: float) -> str:
    assert variant.cascade is not None
    return (
        f"{variant.name} is a cascade, whose time depends on the images: these are the bundle's golden ones, of which"
        f" it hands on {handed_on:.1%}, and of those that it was judged on {variant.cascade.handed_on:.1%}; name your"
        " own to time it on them."
    )


def _images(inputs: BenchInputs, bundle: Bundle, progress: Progress) -> Sequence[bytes]:
    """The encoded images that are timed; those that are given are decoded once, so that a corrupt one is named."""
    from edgetl.data.splits import spread
    from edgetl.inputs.image import load_pixels

    chosen = spread(inputs.images, MOST_TIMED)
    if not chosen:
        return bundle.golden_images()
    with progress.task("Reading images", total=len(chosen)) as task:
        for path in chosen:
            load_pixels(path, bundle.manifest.preprocess)
            task.advance()
    return [path.read_bytes() for path in chosen]


def measure_end_to_end(
    session: Model,
    images: Sequence[bytes],
    options: BenchOptions,
    overhead_ns: float = 0.0,
    progress: Progress = SILENT,
) -> Latency:
    """Latency from the bytes of image files to predictions, one call after the other, less the timer's overhead."""
    supply, batch = itertools.cycle(images), options.images_per_call

    def call() -> object:
        # One image is given as users give it: by itself, not in a list.
        return session.predict(next(supply) if batch == 1 else list(itertools.islice(supply, batch)))

    runs = min(options.runs, _END_TO_END_RUNS)
    # The engine is warm already; decoding needs little.
    warm = warm_up(call, _END_TO_END_WARMUP if options.warmup is None else min(options.warmup, runs))
    samples = time_calls(call, warmup=0, runs=runs, progress=progress)
    return summarise(
        less_overhead(samples, overhead_ns),
        scenario=f"{options.scenario.value}, end to end",
        batch=batch,
        threads=options.engine_threads,
        warmup=warm.calls,
    )


def _figure(result: ScenarioResult) -> dict[str, Any]:
    return {
        "metric": result.metric,
        "value": result.value,
        "rate": result.rate,
        "bound_ms": result.bound_ms,
        "holds": result.holds,
    }
