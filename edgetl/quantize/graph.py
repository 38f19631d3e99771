"""A read-only view of an ONNX graph: who makes a tensor, who reads it, what is constant."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgetl.errors import ModelError
from edgetl.export.graphs import COMPUTE, DECODE


class Graph:
    """Nodes are named by their position in `nodes`, which is a topological order.

    Attributes:
        model: the model that is viewed.
        nodes: its nodes.
        producer: tensor -> position of the node that makes it.
        consumers: tensor -> (position, input number) of all that read it.
        inputs, outputs: names of the graph's own tensors.
        results: what the network computes: the outputs, or the maps that boxes are decoded from.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes = list(model.graph.node)
        self._initializers = {t.name: t for t in model.graph.initializer}
        self.inputs = tuple(v.name for v in model.graph.input if v.name not in self._initializers)
        self.outputs = tuple(v.name for v in model.graph.output)
        self.producer: dict[str, int] = {}
        self.consumers: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for at, node in enumerate(self.nodes):
            for number, name in enumerate(node.input):
                if name:
                    self.consumers[name].append((at, number))
            for name in node.output:
                self.producer[name] = at
        self._floats = _float_tensors(model)
        decoding = [node for node in self.nodes if node.name.startswith(DECODE)]
        made = {name for node in decoding for name in node.output}
        read = dict.fromkeys(name for node in decoding for name in node.input)
        maps = tuple(name for name in read if name in self.producer and name not in made)
        self.results = maps or self.outputs

    def constant(self, name: str) -> NDArray[Any] | None:
        """The value of a constant tensor (an initializer or a Constant node), else None."""
        if name in self._initializers:
            return numpy_helper.to_array(self._initializers[name])
        at = self.producer.get(name)
        if at is not None and self.nodes[at].op_type == "Constant":
            value = attributes(self.nodes[at]).get("value")
            return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else None
        return None

    def is_constant(self, name: str) -> bool:
        """Whether the tensor is an initializer or a Constant node's output."""
        at = self.producer.get(name)
        return name in self._initializers or (at is not None and self.nodes[at].op_type == "Constant")

    def is_float(self, name: str) -> bool:
        """Whether the tensor holds float32 values."""
        return name in self._floats

    def decoding(self) -> frozenset[int]:
        """Positions of what stands behind a detector's last convolutions: its maps put together, boxes made of them."""
        if self.results == self.outputs:
            return frozenset()
        found: set[int] = set()
        for at in reversed(range(len(self.nodes))):
            readers = {reader for name in self.nodes[at].output for reader, _ in self.consumers.get(name, [])}
            if self.nodes[at].op_type not in COMPUTE and readers <= found:
                found.add(at)
        return frozenset(found)

    def label(self, at: int) -> str:
        """How messages call a node: its name, or its first output where it has none."""
        return str(self.nodes[at].name or self.nodes[at].output[0])

    def only_consumer(self, name: str) -> int | None:
        """The one node that reads the tensor; None where there are none, several, or it leaves the graph."""
        readers = {at for at, _ in self.consumers.get(name, [])}
        return next(iter(readers)) if len(readers) == 1 and name not in self.outputs else None


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes as Python values."""
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def load(path: Path) -> onnx.ModelProto:
    """Read and check a float ONNX model.

    Raises:
        ModelError: it is missing, not valid ONNX, already quantized, or of an opset that onnx does not know.
    """
    try:
        model = onnx.load(path)
        newest = onnx.defs.onnx_opset_version()
        for opset in model.opset_import:
            if opset.domain in ("", "ai.onnx") and opset.version > newest:
                raise ModelError(
                    f"{path} has opset {opset.version}; the installed onnx knows up to {newest}."
                )
        onnx.checker.check_model(model, full_check=True)
    except FileNotFoundError:
        raise ModelError(f"No ONNX model at {path}.") from None
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{path} is not a valid ONNX model: {str(error).strip().splitlines()[0]}") from error
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node):
        raise ModelError(f"{path} is quantized already; quantization starts from the float32 export.")
    return model


def _float_tensors(model: onnx.ModelProto) -> frozenset[str]:
    inferred = onnx.shape_inference.infer_shapes(model)
    values = (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
    floats = {v.name for v in values if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    floats |= {t.name for t in inferred.graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
    return frozenset(floats)
