"""What a .tflite file is made of, before it is written: tensors, operators, and how integers stand for numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import ModelError

DTYPES: Mapping[str, str] = {
    "float32": "FLOAT32",
    "float16": "FLOAT16",
    "int8": "INT8",
    "uint8": "UINT8",
    "int32": "INT32",
    "int64": "INT64",
}
"""numpy's types that a tensor may have, and the schema's names of them."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Integers for real numbers: real = scale * (integer - zero point).

    Attributes:
        scale: (1,) float32 for the whole tensor, or (C,) a channel.
        zero_point: one for all.
        axis: the stored axis of channels, where there is a scale a channel.
    """

    scale: NDArray[np.float32]
    zero_point: int
    axis: int = 0

    def same(self, other: Grid) -> bool:
        """Whether the integers mean the same numbers."""
        return self.zero_point == other.zero_point and np.array_equal(self.scale, other.scale)

    @property
    def low(self) -> float:
        """The smallest number of int8's that is on it, for one scale."""
        return (-128 - self.zero_point) * float(self.scale[0])


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A tensor of the file, in the order in which its values are stored.

    Attributes:
        name: of the tensor; it need not be the only one.
        shape: all lengths are fixed.
        dtype: numpy's name.
        grid: of integers that stand for real numbers.
        data: its values, where it is constant.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    grid: Grid | None = None
    data: NDArray[Any] | None = None


@dataclass(kw_only=True)
class Operator:
    """An operator: tensors by their numbers, -1 for one that is left out.

    Attributes:
        kind: the schema's name, as `CONV_2D`.
        inputs, outputs: numbers of tensors.
        table: the schema's table of its options, as `Conv2DOptions`; empty where it has none.
        options: the table's fields that are not at their defaults.
        version: the first version of the operator that has what is used.
    """

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    table: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    version: int = 1


@dataclass(kw_only=True)
class Network:
    """What is written: one graph and what others may read of it.

    Attributes:
        tensors, operators: in order; operators stand behind those whose results they read.
        inputs, outputs: the names that callers use, and the tensors' numbers.
        metadata: texts by name.
    """

    tensors: list[Tensor] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)
    inputs: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, int] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)

    def add(self, tensor: Tensor) -> int:
        """The tensor's number."""
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def used(self) -> Network:
        """The network without tensors that nothing reads or makes, and without operators that nobody needs."""
        needed, kept = set(self.outputs.values()), list[Operator]()
        for operator in reversed(self.operators):
            if needed & set(operator.outputs):
                kept.append(operator)
                needed.update(operator.inputs)
        kept.reverse()
        needed.update(self.inputs.values(), *(operator.outputs for operator in kept))
        order = [at for at in range(len(self.tensors)) if at in needed]
        moved = {old: new for new, old in enumerate(order)} | {-1: -1}
        return Network(
            tensors=[self.tensors[at] for at in order],
            operators=[
                Operator(
                    kind=operator.kind,
                    inputs=_moved(operator.inputs, moved),
                    outputs=_moved(operator.outputs, moved),
                    table=operator.table,
                    options=operator.options,
                    version=operator.version,
                )
                for operator in kept
            ],
            inputs={name: moved[at] for name, at in self.inputs.items()},
            outputs={name: moved[at] for name, at in self.outputs.items()},
            metadata=self.metadata,
        )


def _moved(numbers: Sequence[int], moved: Mapping[int, int]) -> tuple[int, ...]:
    return tuple(moved[number] for number in numbers)


def refusal(operator: str, node: str, why: str) -> ModelError:
    """The error for an operator that has no counterpart."""
    return ModelError(
        f"The operator {operator} of node {node} cannot be written for LiteRT: {why} Run this model in ONNX Runtime, or"
        " choose another backbone."
    )
