"""Every variant of the trained bundle on every engine that is here: the golden images' outputs, and the time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from tests.bench.claims import Claim
from tests.gpu.parts import Place


def run(place: Place) -> Iterator[Claim]:
    """Yield the claims."""
    bundle = place.folder / "bundle.edgetl"
    if not bundle.exists():
        yield Claim(name="bundle", measured="training gave none: a tiny classifier stands in for it")
        _stand_in(bundle)
    compiled: set[tuple[str, str]] = set()
    yield from _compiled(bundle, compiled)
    yield from _tried(bundle, compiled, calls=20 if place.rehearses else 200)


def _tried(bundle: Path, compiled: set[tuple[str, str]], calls: int) -> Iterator[Claim]:
    """Each variant on each engine that suits it; of compiled engines those that were compiled here."""
    from edgetl.bundle.archive import open_bundle
    from edgetl.errors import MissingDependencyError
    from edgetl.export.tensorrt.options import EngineTarget
    from edgetl.runtime.engines.table import ENGINES

    variants = open_bundle(bundle).manifest.variants
    for name, engine in ENGINES.items():
        built = name.value in tuple(EngineTarget)
        fit = [v.name for v in variants if ((name.value, v.name) in compiled if built else engine.suits(v))]
        if not fit and not built:
            yield Claim(name=name.value, measured="the bundle has no variant for it")
        for variant in fit:
            try:
                yield _one(bundle, name.value, variant, calls)
            except MissingDependencyError as error:
                yield Claim(name=name.value, measured=f"not here: {error}")
                break


def _one(bundle: Path, target: str, variant: str, calls: int) -> Claim:
    """A variant on an engine: does it give the golden outputs, and how long does a call take?"""
    import numpy as np

    import edgetl
    from edgetl.errors import EdgetlError, MissingDependencyError

    name = f"{variant} on {target}"
    try:
        with edgetl.load(bundle, target=target, variant=variant) as session:
            check = session.verify()
            size = session.manifest.preprocess.size
            image = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
            times = []
            for _ in range(calls):
                started = time.perf_counter()
                session.run(image)
                times.append(1000 * (time.perf_counter() - started))
    except MissingDependencyError:
        raise
    except EdgetlError as error:
        return Claim(name=name, measured=str(error), aim="the golden outputs", holds=False)
    measured = f"{statistics.median(times):.3g} ms" if check.passed else check.reason
    return Claim(name=name, measured=measured, aim="the golden outputs", holds=check.passed)


def _compiled(bundle: Path, compiled: set[tuple[str, str]]) -> Iterator[Claim]:
    """Engines of TensorRT and TensorRT-RTX, for each precision; adds (engine, variant) to `compiled`."""
    from edgetl.deploy.engine import build_from_bundle
    from edgetl.errors import EdgetlError
    from edgetl.export.tensorrt.gpu import find_gpu
    from edgetl.export.tensorrt.options import BuildOptions, EnginePrecision, EngineTarget

    gpu = find_gpu()
    for target in EngineTarget:
        if find_spec(target.value.replace("-", "_")) is None:
            yield Claim(name=f"engines of {target.value}", measured="not built: it is not installed")
            continue
        if gpu is None:
            yield Claim(name=f"engines of {target.value}", measured="not built: there is no GPU")
            continue
        named = (gpu.compute_capability,) if target is EngineTarget.TENSORRT_RTX else ()
        for precision in (EnginePrecision.FP32, EnginePrecision.FP16, EnginePrecision.INT8):
            name = f"{target.value} in {precision.value} is compiled"
            options = BuildOptions(target=target, compute_capabilities=named)
            try:
                made = build_from_bundle(bundle, options, precision=precision, output=bundle)
                compiled.add((target.value, made.variant))
                yield Claim(name=name, measured=f"{made.size_bytes / 1e6:.2f} MB", aim="compiles", holds=True)
            except EdgetlError as error:
                yield Claim(name=name, measured=str(error), aim="compiles", holds=False)


def _stand_in(bundle: Path) -> None:
    """A bundle of a tiny classifier."""
    from edgetl.bundle.pack import pack
    from tests.bundles import contents

    pack(contents(bundle.parent), bundle)
