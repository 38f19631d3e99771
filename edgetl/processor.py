"""What this machine's CPU computes, as variants name it."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

from edgetl.errors import MissingDependencyError

VNNI_TARGET = "cpu-x86-vnni"
"""What a variant is made for that needs AVX-512 VNNI or AVX-VNNI."""
INT8_KINDS = frozenset({"x86-vnni", "arm-dotprod"})
"""The kinds of processor that multiply INT8 by instructions of their own, so that it pays; see `kind`."""
# A processor's record, of which its flags are a part; there is one for each core, and the first is enough.
_RECORD_BYTES = 16384


def architecture() -> str:
    """This machine's processor family: `x86`, `arm` (64 bits), `arm32`, or what the system calls it.

    Arm's 32 bits are a family of their own, since engines have other kernels for them: of ONNX Runtime 1.21, Debian's,
    those of signed INT8 are wrong (`tests/slow/test_armv7.py`).
    """
    machine = platform.machine().lower()
    if machine in ("x86_64", "amd64", "i386", "i686"):
        return "x86"
    if machine.startswith(("arm64", "aarch64")):
        return "arm"
    return "arm32" if machine.startswith("arm") else machine


def kind(arch: str | None = None) -> str:
    """The kind of processor: `x86-vnni`, `x86`, `arm-dotprod`, `arm`, or another family.

    Between two kinds the order of variants by latency may differ: what pays in INT8 are the instructions for it.

    Args:
        arch: the processor family; this machine's where unset. The instructions are always asked of this machine.
    """
    family = architecture() if arch is None else arch
    if family == "x86" and has_vnni():
        return "x86-vnni"
    return "arm-dotprod" if family == "arm" and has_dot_product() else family


@functools.cache
def has_vnni() -> bool:
    """Whether the CPU is known to have AVX-512 VNNI or AVX-VNNI; False where the system does not say."""
    record = _record()
    return "avx512_vnni" in record or "avx_vnni" in record


@functools.cache
def has_dot_product() -> bool:
    """Whether an Arm CPU is known to have SDOT and UDOT, as Apple's have; False where the system does not say."""
    return "asimddp" in _record() or (architecture() == "arm" and platform.system() == "Darwin")


def refuse_another(engine: str) -> None:
    """Stop before an Arm process loads an engine that crashes on the record of an x86 processor.

    QEMU's user-mode emulation passes on the host's. Elsewhere this costs nothing but the name of the machine.

    Raises:
        MissingDependencyError: so it is.
    """
    if architecture() in ("arm", "arm32") and "vendor_id" in _record():
        raise MissingDependencyError(
            "/proc/cpuinfo of this Arm processor",
            f"QEMU shows the host's, on which {engine} crashes: put the emulated processor's under QEMU's folder of"
            " system files, ROOT of its option -L ROOT, as ROOT/proc/cpuinfo.",
        )


def _record() -> str:
    """What Linux says of the first core; empty elsewhere."""
    try:
        with Path("/proc/cpuinfo").open(encoding="ascii", errors="replace") as file:
            return file.read(_RECORD_BYTES)
    except OSError:
        return ""


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
