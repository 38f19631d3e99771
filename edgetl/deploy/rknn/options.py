"""What a .rknn file is made for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

PYTHON_VARIABLE = "EDGETL_RKNN_PYTHON"


class Platform(StrEnum):
    """Rockchip's systems on a chip with an NPU that the toolkit compiles for."""

    RK3562 = "rk3562"
    RK3566 = "rk3566"
    RK3568 = "rk3568"
    RK3576 = "rk3576"
    RK3588 = "rk3588"
    RV1103 = "rv1103"
    RV1106 = "rv1106"


@dataclass(frozen=True, kw_only=True)
class RknnOptions:
    """How to convert.

    Attributes:
        platform: what to compile for.
        int8: quantize to INT8; else the NPU computes in half precision, which not every platform does.
        python: the interpreter that has the toolkit; the one that `EDGETL_RKNN_PYTHON` names where unset.
    """

    platform: Platform = Platform.RK3588
    int8: bool = True
    python: Path | None = None
