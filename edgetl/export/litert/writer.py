"""The state of a conversion: which tensors there are, and the few things that every operator's writer does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgetl.export.litert.graph import FixedGraph, label
from edgetl.export.litert.layout import CHANNELS_LAST, Order, moving, plain, stored
from edgetl.export.litert.parts import Grid, Network, Operator, Tensor, refusal
from edgetl.export.litert.values import Constant, Operand

Rearranged = Callable[[NDArray[Any]], NDArray[Any]]
"""Puts an ONNX constant's values in the order in which they are stored."""


class Writer:
    """A network that grows operator by operator.

    Args:
        graph: the ONNX graph that is written.

    Attributes:
        graph: as given.
        network: what was written so far.
        values: what each ONNX tensor is.
    """

    def __init__(self, graph: FixedGraph) -> None:
        self.graph = graph
        self.network = Network()
        self.values: dict[str, Operand | Constant] = {
            name: Constant(values=value) for name, value in graph.constants.items()
        }
        self._makers: dict[int, Operator] = {}
        self._real: dict[int, int] = {}
        self._ordered: dict[tuple[int, tuple[int, ...], Order, Order], Operand] = {}
        for value in graph.model.graph.input:
            if value.name in graph.inputs:
                self._add_input(value)

    def _add_input(self, value: onnx.ValueInfoProto) -> None:
        name, shape = value.name, self.graph.shapes[value.name]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name
        # Planes of floats are a network's input; pictures of bytes have their channels last already.
        order = CHANNELS_LAST if len(shape) == 4 and dtype == "float32" else plain(len(shape))
        tensor = self.network.add(Tensor(name=name, shape=stored(shape, order), dtype=dtype))
        self.network.inputs[name] = tensor
        self.values[name] = Operand(tensor=tensor, shape=shape, order=order)

    def finish(self) -> Network:
        """The network, whose outputs are real numbers in ONNX's order of axes."""
        for name in self.graph.outputs:
            value = self.values[name]
            if isinstance(value, Constant):
                raise refusal("Constant", name, "an output does not depend on the images.")
            result = self.real(self.ordered(value, plain(len(value.shape))))
            tensor = self.network.tensors[result.tensor]
            self.network.tensors[result.tensor] = Tensor(name=name, shape=tensor.shape, dtype=tensor.dtype)
            self.network.outputs[name] = result.tensor
        return self.network.used()

    # What an operator reads.

    def read(self, node: onnx.NodeProto, number: int = 0) -> Operand:
        """An input as a tensor, whether it is computed or constant."""
        name = node.input[number]
        value = self.values[name]
        return value if isinstance(value, Operand) else self.placed(name, value)

    def constant(self, node: onnx.NodeProto, number: int) -> Constant | None:
        """An input that is constant, or None where it is left out or computed."""
        if number >= len(node.input) or not node.input[number]:
            return None
        value = self.values[node.input[number]]
        return value if isinstance(value, Constant) else None

    def fixed(self, node: onnx.NodeProto, number: int, what: str) -> NDArray[Any]:
        """The values of an input that has to be constant.

        Raises:
            ModelError: it is not.
        """
        found = self.constant(node, number)
        if found is None:
            raise refusal(node.op_type, label(node), f"its {what} is no constant.")
        return found.values

    def shape(self, name: str) -> tuple[int, ...]:
        """The ONNX tensor's shape."""
        shape: tuple[int, ...] = self.graph.shapes[name]
        return shape

    def grid_after(self, name: str) -> Grid | None:
        """The grid that the tensor's only reader puts it on."""
        reader = self.graph.only_consumer(name)
        if reader is None or reader.op_type != "QuantizeLinear":
            return None
        return self.grid_of(reader)

    def grid_of(self, node: onnx.NodeProto) -> Grid:
        """The grid of a QuantizeLinear or DequantizeLinear for activations; uint8's is moved to int8.

        Raises:
            ModelError: it is none for the whole tensor of 8 bits.
        """
        scale = self.fixed(node, 1, "scale")
        zero = self.fixed(node, 2, "zero point") if len(node.input) > 2 else np.zeros((), np.uint8)
        if scale.size != 1 or zero.dtype not in (np.int8, np.uint8):
            raise refusal(node.op_type, label(node), "activations have one scale, and integers of 8 bits.")
        moved = int(zero.reshape(-1)[0]) - (128 if zero.dtype == np.uint8 else 0)
        return Grid(scale=scale.reshape(1).astype(np.float32), zero_point=moved)

    # Constants of the file.

    def put(self, name: str, values: NDArray[Any], grid: Grid | None = None) -> int:
        """A constant tensor's number."""
        values = np.ascontiguousarray(values).reshape(values.shape)
        return self.network.add(
            Tensor(name=name, shape=values.shape, dtype=values.dtype.name, grid=grid, data=values)
        )

    def numbers(self, name: str, values: Sequence[Any] | NDArray[Any]) -> int:
        """A constant of counts or places, int32."""
        return self.put(name, np.asarray(values, np.int32))

    def weights(
        self, name: str, constant: Constant, rearrange: Rearranged, *, axis: int | None = None
    ) -> int:
        """A constant of real numbers, float32 when the model runs, in as few bytes as ONNX stores it.

        Args:
            name: of the tensor.
            constant: the constant.
            rearrange: as it is stored.
            axis: where `rearrange` puts the axis that has a scale a channel.
        """
        if constant.half:
            half = self.put(f"{name}_half", rearrange(constant.values.astype(np.float16)))
            return self._dequantized(name, half, version=3)
        if constant.integers is not None and constant.integers.values.dtype == np.int8:
            return self._dequantized(
                name, self.integers(f"{name}_int8", constant, rearrange, axis=axis), version=5
            )
        return self.put(name, rearrange(constant.values.astype(np.float32)))

    def integers(
        self, name: str, constant: Constant, rearrange: Rearranged, *, axis: int | None = None
    ) -> int:
        """A constant as the integers that it is stored as; see `weights`."""
        stored_as = constant.integers
        assert stored_as is not None
        grid = Grid(
            scale=stored_as.scale.reshape(-1).astype(np.float32),
            zero_point=stored_as.zero_point,
            axis=axis or 0,
        )
        return self.put(name, rearrange(stored_as.values), grid)

    def placed(self, name: str, constant: Constant) -> Operand:
        """A constant as an operand."""
        values = constant.values
        tensor = (
            self.weights(name, constant, lambda stored_as: stored_as)
            if values.dtype.kind == "f"
            else self.numbers(name, values.astype(np.int32))
        )
        return Operand(tensor=tensor, shape=tuple(values.shape), order=plain(values.ndim))

    def _dequantized(self, name: str, tensor: int, *, version: int) -> int:
        result = self.network.add(
            Tensor(name=name, shape=self.network.tensors[tensor].shape, dtype="float32")
        )
        self.write("DEQUANTIZE", [tensor], [result], version=version)
        return result

    # Operators.

    def write(
        self,
        kind: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        table: str = "",
        *,
        version: int = 1,
        **options: Any,
    ) -> None:
        """Add an operator with the options that its table has."""
        operator = Operator(
            kind=kind,
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            table=table,
            options=options,
            version=version,
        )
        self.network.operators.append(operator)
        for output in outputs:
            self._makers[output] = operator

    def new(self, name: str, shape: Sequence[int], order: Order, grid: Grid | None = None) -> Operand:
        """A tensor that an operator is going to make: float32, or int8 on the grid."""
        dtype = "float32" if grid is None else "int8"
        tensor = self.network.add(Tensor(name=name, shape=stored(shape, order), dtype=dtype, grid=grid))
        return Operand(tensor=tensor, shape=tuple(shape), order=order, grid=grid)

    def step(
        self,
        kind: str,
        inputs: Sequence[int],
        name: str,
        shape: Sequence[int],
        order: Order,
        table: str = "",
        *,
        grid: Grid | None = None,
        version: int = 1,
        **options: Any,
    ) -> Operand:
        """Add an operator that makes one tensor; see `new` and `write`."""
        result = self.new(name, shape, order, grid)
        self.write(kind, inputs, [result.tensor], table, version=version, **options)
        return result

    def rename(self, operand: Operand, name: str) -> None:
        """Give an operand's tensor the name of what it holds now."""
        tensor = self.network.tensors[operand.tensor]
        self.network.tensors[operand.tensor] = dataclasses.replace(tensor, name=name)

    def maker(self, operand: Operand) -> Operator | None:
        """The operator that makes an operand; None for constants and the input."""
        return self._makers.get(operand.tensor)

    # Changes of form, each made once.

    def real(self, operand: Operand) -> Operand:
        """The operand as float32."""
        if operand.grid is None:
            return operand
        if operand.tensor not in self._real:
            name = self.network.tensors[operand.tensor].name
            result = self.step(
                "DEQUANTIZE", [operand.tensor], f"{name}_real", operand.shape, operand.order, version=2
            )
            self._real[operand.tensor] = result.tensor
        # Another view of the same tensor may have other axes.
        return dataclasses.replace(operand, tensor=self._real[operand.tensor], grid=None)

    def regridded(self, operand: Operand, grid: Grid) -> Operand:
        """The operand as int8 on the grid."""
        if operand.grid is not None and operand.grid.same(grid):
            return operand
        name = self.network.tensors[operand.tensor].name
        version = 1 if operand.grid is None else 2
        return self.step(
            "QUANTIZE",
            [operand.tensor],
            f"{name}_int8",
            operand.shape,
            operand.order,
            grid=grid,
            version=version,
        )

    def ordered(self, operand: Operand, order: Order) -> Operand:
        """The operand stored in the order; its values are moved where they have to be."""
        if operand.order == order:
            return operand
        key = operand.tensor, operand.shape, operand.order, order
        if key not in self._ordered:
            if moving(operand.shape, operand.order) == moving(operand.shape, order):
                result = self.stored_as(operand, operand.shape, order)
            else:
                name = self.network.tensors[operand.tensor].name
                places = self.numbers(f"{name}_places", [operand.order.index(axis) for axis in order])
                result = self.step(
                    "TRANSPOSE",
                    [operand.tensor, places],
                    f"{name}_moved",
                    operand.shape,
                    order,
                    "TransposeOptions",
                    grid=operand.grid,
                    version=1 if operand.grid is None else 2,
                )
            self._ordered[key] = result
        return self._ordered[key]

    def stored_as(self, operand: Operand, shape: Sequence[int], order: Order) -> Operand:
        """The same stored values under another shape."""
        lengths = stored(shape, order)
        if lengths == self.network.tensors[operand.tensor].shape:
            return Operand(tensor=operand.tensor, shape=tuple(shape), order=order, grid=operand.grid)
        name = self.network.tensors[operand.tensor].name
        wanted = self.numbers(f"{name}_shape", lengths)
        return self.step(
            "RESHAPE",
            [operand.tensor, wanted],
            f"{name}_reshaped",
            shape,
            order,
            "ReshapeOptions",
            grid=operand.grid,
            newShape=list(lengths),
        )
