"""The whole report of `make test-gpu`, rehearsed on the CPU: all of its code runs, and no figure means anything."""

from __future__ import annotations

import pytest

from tests.gpu.__main__ import main
from tests.gpu.parts import PARTS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def test_the_report_is_rehearsed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rehearse"]) == 0
    report = capsys.readouterr().out
    print(report)
    assert all(f"**{part.title[0].upper()}{part.title[1:]}**" in report for part in PARTS)
    assert "broke" not in report
    assert "digits in bf16: cut and distilled, top-1" in report
