"""Small things that several steps do to an ONNX graph, and running one to see its inner tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgetl.errors import ModelError
from edgetl.packages import missing
from edgetl.quiet import quietly

_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
COMPUTE = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators in which the multiplications are."""
DECODE = "decode/"
"""With this begin the names of the nodes that make boxes of a detector's maps; they stay in float32."""


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that may be changed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The graph's nodes, and those of its branches, which read its tensors too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from all_nodes(attribute.g)


def set_nodes(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Replace the graph's nodes."""
    nodes = list(nodes)
    del graph.node[:]
    graph.node.extend(nodes)


def drop_unread(graph: onnx.GraphProto) -> None:
    """Remove nodes and constants that nothing reads."""
    results = {value.name for value in graph.output}
    while True:
        used = {name for node in graph.node for name in node.input} | results
        kept = [node for node in graph.node if any(name in used for name in node.output)]
        if len(kept) == len(graph.node):
            break
        set_nodes(graph, kept)
    constants = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(constants)


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put every node behind those whose results it reads; otherwise the order stays."""
    waiting = list(graph.node)
    made = {name for node in waiting for name in node.output}
    ready: list[onnx.NodeProto] = []
    while waiting:
        rest = []
        for node in waiting:
            if any(name in made for name in node.input):
                rest.append(node)
            else:
                ready.append(node)
                made.difference_update(node.output)
        if len(rest) == len(waiting):
            raise ModelError("The graph's nodes read each other's results in a circle.")
        waiting = rest
    set_nodes(graph, ready)


def float_results(model: onnx.ModelProto) -> dict[str, int]:
    """The float tensors that nodes make, in order, and their element types."""
    inferred = onnx.shape_inference.infer_shapes(model)
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in (*inferred.graph.value_info, *inferred.graph.output)
    }
    made = [name for node in model.graph.node for name in node.output if name]
    return {name: types[name] for name in made if types.get(name) in _FLOATS}


def import_onnxruntime() -> Any:
    """ONNX Runtime's module.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        with quietly():
            import onnxruntime
    except ImportError as error:
        raise missing("onnxruntime") from error
    return onnxruntime


class Probe:
    """A model in ONNX Runtime whose inner tensors can be read.

    Args:
        model: with one input.
        tensors: names of the tensors to read, in the order that `run` gives them.
        optimised: let the engine rewrite the graph. It may then compute half precision in float32, and so hide what
            overflows; without, every operator is run as it stands.

    Raises:
        ModelError: the model cannot be loaded.
        MissingDependencyError: onnxruntime is absent.
    """

    def __init__(self, model: onnx.ModelProto, tensors: Sequence[str], *, optimised: bool = True) -> None:
        ort = import_onnxruntime()
        types = float_results(model)
        shown = copy_of(model)
        present = {value.name for value in shown.graph.output}
        shown.graph.output.extend(
            onnx.helper.make_tensor_value_info(name, types[name], None)
            for name in tensors
            if name not in present
        )
        options = ort.SessionOptions()
        options.log_severity_level = 4
        if not optimised:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session = ort.InferenceSession(
                shown.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise ModelError(f"ONNX Runtime cannot load the graph: {error}") from error
        self.tensors = list(tensors)
        self._input = model.graph.input[0].name

    def run(self, images: NDArray[Any]) -> list[NDArray[Any]]:
        """The tensors for one batch of the model's input."""
        results: list[NDArray[Any]] = self._session.run(self.tensors, {self._input: images})
        return results


def extremes(model: onnx.ModelProto, images: NDArray[Any], *, batch: int = 4) -> dict[str, float]:
    """The largest absolute value of every float tensor that a node makes, over images (N, ...).

    A tensor that holds NaN or infinity has infinity.
    """
    names = list(float_results(model))
    probe, largest = Probe(model, names), dict.fromkeys(names, 0.0)
    for part in batches(images, batch):
        for name, values in zip(names, probe.run(part), strict=True):
            if values.size:
                seen = float(np.abs(values).max())
                largest[name] = max(largest[name], seen if np.isfinite(seen) else np.inf)
    return largest


def batches(images: NDArray[Any], batch: int) -> Iterator[NDArray[Any]]:
    """The images in parts of at most `batch`."""
    for start in range(0, len(images), batch):
        yield images[start : start + batch]
