"""What this machine's CPU computes, as variants name it."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

VNNI_TARGET = "cpu-x86-vnni"
"""What a variant is made for that needs AVX-512 VNNI or AVX-VNNI."""
# A processor's record, of which its flags are a part; there is one for each core, and the first is enough.
_RECORD_BYTES = 16384


def architecture() -> str:
    """This machine's processor family: `x86`, `arm`, or what the system calls it."""
    machine = platform.machine().lower()
    if machine in ("x86_64", "amd64", "i386", "i686"):
        return "x86"
    return "arm" if machine.startswith(("arm", "aarch")) else machine


@functools.cache
def has_vnni() -> bool:
    """Whether the CPU is known to have AVX-512 VNNI or AVX-VNNI; False where the system does not say."""
    try:
        with Path("/proc/cpuinfo").open(encoding="ascii", errors="replace") as file:
            flags = file.read(_RECORD_BYTES)
    except OSError:
        return False
    return "avx512_vnni" in flags or "avx_vnni" in flags


def computes(target: str, arch: str | None = None) -> bool:
    """Whether a CPU's kernels, integers included, do what a variant that is made for `target` asks.

    Sums of products can saturate in 16 bits on x86 without VNNI, so what is made for VNNI asks for it.

    Args:
        target: as in `Variant.target`.
        arch: the processor family; this machine's where unset. VNNI is always asked of this machine.
    """
    family = architecture() if arch is None else arch
    if target == VNNI_TARGET:
        return family == "x86" and has_vnni()
    return target in ("any", "cpu", f"cpu-{family}")
