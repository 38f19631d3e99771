"""What an ONNX tensor is while its graph is written: a constant as it is stored, or a tensor of the file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.export.litert.layout import Order
from edgetl.export.litert.parts import Grid


@dataclass(frozen=True, kw_only=True)
class Integers:
    """How a constant's values are stored as integers.

    Attributes:
        values: int8, uint8 or int32, of the constant's shape.
        scale: float32, () or one a channel.
        zero_point: one for all.
        axis: of channels, where there is a scale for each.
    """

    values: NDArray[Any]
    scale: NDArray[np.float32]
    zero_point: int
    axis: int


@dataclass(frozen=True, kw_only=True)
class Constant:
    """A constant.

    Attributes:
        values: real numbers, float32, or integers that are counts and places.
        integers: how they are stored, where that is as integers.
        half: whether they are stored in half precision.
    """

    values: NDArray[Any]
    integers: Integers | None = None
    half: bool = False


@dataclass(frozen=True, kw_only=True)
class Operand:
    """A tensor that the network computes.

    Attributes:
        tensor: its number.
        shape: ONNX's.
        order: in which its axes are stored.
        grid: where it is stored as int8.
    """

    tensor: int
    shape: tuple[int, ...]
    order: Order
    grid: Grid | None = None
