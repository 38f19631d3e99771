"""The compiled engine that a session runs: one from the bundle that may be trusted, one from the cache, or a new one.

The cache is keyed by the model's SHA-256, the target, its version and the GPU. An engine is native code, so its bytes
are loaded only where they were built on this machine or stand in a bundle whose signature was required and held.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from edgetl.bundle.archive import Bundle
from edgetl.bundle.engine import built_here, remember
from edgetl.bundle.manifest import Variant
from edgetl.errors import BundleIntegrityError
from edgetl.export.tensorrt import BuiltEngine, EngineTarget, build_engine, load_module
from edgetl.files import cache_dir, sha256_bytes, write_bytes
from edgetl.runtime.tensorrt_backend import gpu_name

MAX_BATCH = 8
"""The largest batch of an engine that is built at loading; larger ones are split."""


def engine_for(
    bundle: Bundle,
    variant: Variant,
    target: EngineTarget,
    *,
    signed: bool,
    gpu: str | None = None,
    version: str | None = None,
    build: Callable[..., BuiltEngine] = build_engine,
) -> tuple[bytes, str]:
    """The engine of a variant for this machine, and where it came from in a few words.

    Args:
        bundle: the bundle.
        variant: the model.
        target: whose engine.
        signed: the bundle's signature was required and held.
        gpu: the GPU's name with its compute capability; asked of CUDA where unset.
        version: the target's version; asked of its module where unset.
        build: compiles; another function in tests.

    Raises:
        BundleIntegrityError: the bundle's engine is not to be trusted, or was altered.
        MissingDependencyError: the target is not installed, or there is no GPU.
        ModelError: the target refuses the model.
    """
    version = str(load_module(target).__version__) if version is None else version
    gpu = gpu_name() if gpu is None else gpu
    capability = _capability(gpu)
    found = [
        e
        for e in bundle.manifest.engines
        if (e.variant, e.target) == (variant.name, target.value)
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
    return _cached(bundle, variant, target, f"{version}-{gpu}", capability, build)


def _cached(
    bundle: Bundle,
    variant: Variant,
    target: EngineTarget,
    machine: str,
    capability: str,
    build: Callable[..., BuiltEngine],
) -> tuple[bytes, str]:
    slug = re.sub(r"[^A-Za-z0-9.]+", "-", machine).strip("-")
    path = cache_dir() / "engines" / f"{variant.sha256}-{target}-{slug}.engine"
    if path.is_file():
        content = path.read_bytes()
        if built_here(sha256_bytes(content)):
            return content, f"its engine was built here before ({path})"
    options: dict[str, Any] = {"target": target.value, "batch": (1, 1, MAX_BATCH)}
    if target is EngineTarget.TENSORRT_RTX:
        options["compute_capabilities"] = (capability,)
    built = build(bundle.read(variant.member), **options)
    write_bytes(path, built.content)
    remember(built.record)
    return built.content, f"its engine was built now, in {built.record.seconds:.0f} s ({path})"


def _capability(gpu: str) -> str:
    """`89` of `... (compute capability 8.9)`."""
    return gpu.rpartition(" ")[2].rstrip(")").replace(".", "")
