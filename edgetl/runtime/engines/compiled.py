"""The compiled engine that a session runs: one from the bundle that may be trusted, a cached one, or a new one.

An engine is native code, so its bytes are loaded only where they were built on this machine or stand in a bundle whose
signature was required and held.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edgetl.bundle.archive import Bundle
from edgetl.bundle.manifest import Precision, Variant
from edgetl.errors import BundleIntegrityError
from edgetl.export.tensorrt import BuildOptions, BuiltEngine, EnginePrecision, EngineTarget, build_engine
from edgetl.export.tensorrt.builder import float32_layers
from edgetl.export.tensorrt.cache import built_here
from edgetl.runtime.engines.base import Opened, Opening
from edgetl.runtime.engines.tensorrt import TensorRtBackend, gpu_name

MAX_BATCH = 8
"""The largest batch of an engine that is built at loading; larger ones are split."""


def open_model(asked: Opening, target: str) -> Opened:
    """A variant's engine for this machine; see `engine_for`."""
    kind = EngineTarget(target)
    engine, origin = engine_for(asked.bundle, asked.variant, kind, signed=asked.signed, shown=asked.shown)
    return Opened(backend=TensorRtBackend(engine, target=kind), origin=origin)


def engine_for(
    bundle: Bundle,
    variant: Variant,
    target: EngineTarget,
    *,
    signed: bool,
    gpu: str | None = None,
    shown: Mapping[str, str] | None = None,
    build: Callable[[bytes, BuildOptions], BuiltEngine] = build_engine,
) -> tuple[bytes, str]:
    """The engine of a variant for this machine, and where it came from in a few words.

    Args:
        bundle: the bundle.
        variant: the model.
        target: whose engine.
        signed: the bundle's signature was required and held.
        gpu: the GPU's name with its compute capability; asked of CUDA where unset.
        shown: further outputs, as in `Opening`; the bundle's engines, which have none, are then passed over.
        build: compiles, or returns what was compiled before; another function in tests.

    Raises:
        BundleIntegrityError: the bundle's engine is not to be trusted, or was altered.
        MissingDependencyError: the target is not installed, or there is no GPU.
        ModelError: the target refuses the model.
    """
    capability = _capability(gpu_name() if gpu is None else gpu)
    found = [
        e
        for e in bundle.manifest.engines
        if (e.variant, e.target) == (variant.name, target.value)
        and not shown
        and (not e.compute_capabilities or capability in e.compute_capabilities)
    ]
    for engine in found:
        if signed or built_here(engine.sha256):
            return bundle.read(engine.member), "its engine comes from the bundle"
    if found:
        raise BundleIntegrityError(
            f"{bundle.path} holds a {target} engine that was not built on this machine, and engines are native "
            "code: require the signature of someone you trust, or leave the engine out and let it be built here."
        )
    content = Opening(bundle=bundle, variant=variant, threads=1, shown=shown or {}).read()
    options = BuildOptions(
        target=target,
        precision=EnginePrecision(variant.precision.value),
        float32_layers=float32_layers(content) if variant.precision is Precision.FP16 else (),
        compute_capabilities=(capability,) if target is EngineTarget.TENSORRT_RTX else (),
        batch=(1, 1, MAX_BATCH),
        size=bundle.manifest.preprocess.size,
    )
    built = build(content, options)
    when = (
        "was built here before" if built.record.cached else f"was built now, in {built.record.seconds:.0f} s"
    )
    return built.content, f"its engine {when}"


def _capability(gpu: str) -> str:
    """`89` of `... (compute capability 8.9)`."""
    return gpu.rpartition(" ")[2].rstrip(")").replace(".", "")
