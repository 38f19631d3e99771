"""Benchmark a bundle: one scenario of one variant on this machine."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgetl import files
from edgetl.bench.machine import describe
from edgetl.bench.memory import measure_fresh
from edgetl.bench.scenarios import BenchOptions, ScenarioResult, measure
from edgetl.bench.statistics import summarise
from edgetl.bench.timer import time_calls
from edgetl.errors import BundleError
from edgetl.progress import SILENT, Progress
from edgetl.records import BenchRecord, Latency

if TYPE_CHECKING:
    from edgetl.bundle.manifest import Manifest, Variant

RECORD_NAME = "bench.json"
# Decoding takes the longer part of these; fewer samples keep the time in hand.
_END_TO_END_RUNS = 100


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

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """(N, 3, S, S) float32 images, or (N, S, S, 3) uint8 pictures, to (N, C) float32 logits."""
        ...

    def predict(self, image: Any) -> object:
        """Image files' bytes to predictions."""
        ...


@dataclass(frozen=True, kw_only=True)
class BenchInputs:
    """What is measured: a bundle, its variant and engine (chosen as `edgetl.load` does where unset).

    `require_signature` is a public key that must have signed the bundle.
    """

    bundle: Path
    variant: str | None = None
    target: str = "auto"
    require_signature: Path | None = None


def run(
    config: BenchOptions, inputs: BenchInputs, *, out: Path | None = None, progress: Progress = SILENT
) -> BenchRecord:
    """Measure latency in a scenario, then load time and peak memory in fresh processes.

    Args:
        config: scenario and lengths.
        inputs: the bundle and variant.
        out: a folder for `bench.json`, not written where unset.
        progress: told of the samples, seldom.

    Raises:
        BundleError: the bundle cannot be used.
    """
    from edgetl.bundle.archive import open_bundle
    from edgetl.runtime.session import load

    images = open_bundle(inputs.bundle).golden_images()
    with load(
        inputs.bundle,
        target=inputs.target,
        variant=inputs.variant,
        threads=config.engine_threads,
        require_signature=inputs.require_signature,
    ) as session:
        variant = session.variant.name
        progress.message(f"Measures {variant} on {session.choice.target}: {session.choice.reason}.")
        result = measure(model_call(session, images, config.images_per_call), config, progress=progress)
        end_to_end = measure_end_to_end(session, images, config, progress) if config.end_to_end else None
    footprint = measure_fresh(
        inputs.bundle,
        variant=variant,
        target=inputs.target,
        threads=config.engine_threads,
        batch=config.images_per_call,
        progress=progress,
    )
    record = BenchRecord(
        bundle=inputs.bundle.name,
        bundle_sha256=files.sha256_file(inputs.bundle),
        variant=variant,
        scenario=config.scenario.value,
        latency=result.latency,
        end_to_end=end_to_end,
        footprint=footprint,
        machine=describe(),
        **_figure(result),
    )
    if out is not None:
        files.write_json(out / RECORD_NAME, record)
    return record


def variant_name(manifest: Manifest, wanted: str | None) -> str:
    """The variant's name; the default one's where `wanted` is None.

    Raises:
        BundleError: there is none of that name.
    """
    if (found := manifest.variant(wanted)) is None:
        names = ", ".join(v.name for v in manifest.variants)
        raise BundleError(f"{manifest.name} has no variant {wanted!r}; it has {names}.")
    return found.name


def model_call(session: Model, images: Sequence[bytes], batch: int) -> Callable[[], object]:
    """A call of the model alone on `batch` real images, as far preprocessed beforehand as the model wants them."""
    from edgetl.bundle.manifest import InputForm
    from edgetl.preprocess import load_pixels, normalise

    spec = session.manifest.preprocess
    pixels = np.stack(
        [load_pixels(image, spec) for image in itertools.islice(itertools.cycle(images), batch)]
    )
    tensor = pixels if session.variant.input is InputForm.UINT8 else normalise(pixels, spec)
    return lambda: session.run(tensor)


def measure_end_to_end(
    session: Model, images: Sequence[bytes], options: BenchOptions, progress: Progress = SILENT
) -> Latency:
    """Latency from the bytes of image files to predictions, one call after the other."""
    supply, batch = itertools.cycle(images), options.images_per_call

    def call() -> object:
        # One image is given as users give it: alone, not in a list.
        return session.predict(next(supply) if batch == 1 else list(itertools.islice(supply, batch)))

    runs = min(options.runs, _END_TO_END_RUNS)
    samples = time_calls(call, warmup=min(options.warmup, runs), runs=runs, progress=progress)
    return summarise(
        samples,
        scenario=f"{options.scenario.value}, end to end",
        batch=batch,
        threads=options.engine_threads,
        warmup=min(options.warmup, runs),
    )


def _figure(result: ScenarioResult) -> dict[str, Any]:
    return {
        "metric": result.metric,
        "value": result.value,
        "rate": result.rate,
        "bound_ms": result.bound_ms,
        "holds": result.holds,
    }
