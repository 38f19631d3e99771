"""The built wheel on an emulated 32-bit Arm processor, with Debian's own packages: it computes the same there.

`make test-slow` runs it; it is skipped, with the reason, where QEMU or Debian's packages cannot be had.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.emulated import ARMV7, CORTEX_A7, Clock, UnavailableError, machine
from tests.test_arm import CACHE, answers_here, answers_there, assert_the_same, installed, made

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
SECONDS = 1800


def test_every_variant_computes_the_same_on_32_bits(tmp_path: Path) -> None:
    try:
        emulated = machine(ARMV7, CACHE, Clock(SECONDS))
    except UnavailableError as error:
        pytest.skip(f"no emulated Arm processor here: {error}")
    bundle = made(tmp_path / "made", ["cpu-x86", "cpu-arm"])
    here = answers_here(bundle, tmp_path)
    report, there = answers_there(emulated, CORTEX_A7, installed(tmp_path / "wheel"), bundle, tmp_path)
    print(f"{report['machine']}: {report['chosen']}; {report['verified']}")
    assert report["machine"] == "armv7l"
    # ONNX Runtime 1.21 gets signed INT8 wrong on 32 bits: products of a single pixel with fewer than 16 channels.
    wrong = "int8-cpu-arm"
    assert wrong in there
    assert not report["chosen"].startswith(wrong)
    assert_the_same(bundle, report["verified"], here, there, leaving=wrong)
