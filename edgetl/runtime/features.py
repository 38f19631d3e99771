"""What stands before a network's answer: the feature map that is pooled, and the linear layer on what comes of it.

The mean of the map over its height and width is the picture's embedding: by it pictures are compared.

Both are looked up in the model's own file when they are asked for, so that bundles carry nothing for them: whatever was
done to the weights (rounding, equalisation, recovery), these are the ones that answer, and a bundle that was made
before there was anything to ask is as good as a new one. The feature map becomes a further output only of the copy in
memory (`edgetl.runtime.wire.with_outputs`). A session that does not ask runs the file as it is, at no cost. One that
does pays the copy of the map: under 3% in ONNX Runtime and OpenVINO, float and INT8, for students of half a millisecond
(`make bench ONLY=trust-overhead`); neither engine gives up a fusion for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import ModelError
from edgetl.runtime.prototypes import LOGITS as ADDED
from edgetl.runtime.prototypes import added_in
from edgetl.runtime.wire import Graph, Node, read_graph
from edgetl.tasks.base import Outputs

MAP = "features/map"
"""The output that shows the feature map (N, F, h, w) float32."""
EMBEDDING = "features/embedding"
"""What `pooled` puts in its place (N, F) float32."""
_SAME = ("Identity", "Dropout", "Flatten", "Reshape", "Squeeze", "Cast", "QuantizeLinear", "DequantizeLinear")
"""Operators that leave a vector's values as they are, up to rounding."""
_OF_CONSTANTS = ("Cast", "Identity", "Transpose", "DequantizeLinear", "Mul")
"""Operators behind which weights are stored: in half precision, or as integers."""


@dataclass(frozen=True, kw_only=True)
class PooledHead:
    """The end of a network that pools a feature map over its height and width, and answers by a linear layer.

    Attributes:
        map: the name of the tensor (N, F, h, w) that is pooled; the mean over h and w is the image's embedding (N, F).
        weights: of each output the linear layer's, (C, F) float32. An output is the embedding times these, plus a bias;
            that of a class which was added by its prototype is not linear, and has the direction that speaks for it.
    """

    map: str
    weights: Mapping[str, NDArray[np.float32]]

    @property
    def shown(self) -> dict[str, str]:
        """The further output to open the model with."""
        return {MAP: self.map}


def embeddings(outputs: Outputs) -> NDArray[np.float32]:
    """The embeddings (N, F) float32 of images, of a model that also gives its feature map."""
    if EMBEDDING in outputs:
        return outputs[EMBEDDING]
    images, features, height, width = outputs[MAP].shape
    # A product with equal weights takes a fifth of the time of a mean over two axes.
    return np.asarray(outputs[MAP].reshape(images, features, -1) @ _shares(height * width), dtype=np.float32)


@lru_cache(maxsize=8)
def _shares(places: int) -> NDArray[np.float32]:
    shares = np.full(places, 1 / places, dtype=np.float32)
    shares.setflags(write=False)
    return shares


def pooled(outputs: Outputs) -> dict[str, NDArray[Any]]:
    """The outputs with the embeddings in the feature map's place, which is much larger; without a map as they are."""
    kept = {name: array for name, array in outputs.items() if name != MAP}
    return kept | {EMBEDDING: embeddings(outputs)} if MAP in outputs else kept


def pooled_head(model: bytes, outputs: Sequence[str]) -> PooledHead:
    """Find the end of a network in its file.

    Args:
        model: an ONNX file's bytes.
        outputs: whose answers are asked for.

    Raises:
        ModelError: the network ends otherwise, and what stands in the way; or the file cannot be read.
    """
    graph = read_graph(model)
    ends = {name: _linear(graph, name) for name in outputs}
    maps = {end.map for end in ends.values()}
    if len(maps) != 1:
        raise _otherwise(f"its outputs {' and '.join(ends)} pool different feature maps")
    weights = {}
    for name, end in ends.items():
        if end.matrix is None:
            raise _otherwise("no linear layer follows its pooling")
        weights[name] = np.ascontiguousarray(end.matrix, dtype=np.float32)
    return PooledHead(map=maps.pop(), weights=weights)


@dataclass(frozen=True)
class _End:
    """What a tensor is of the pooled map: that times a matrix (C, F), or just that where there is none."""

    map: str
    matrix: NDArray[np.float32] | None


def _linear(graph: Graph, tensor: str) -> _End:
    """Follow a tensor back to the pooling that it is a linear function of; what is added does not matter."""
    node = graph.makers.get(tensor)
    if node is None:
        raise _otherwise("it pools no feature map")
    if node.kind == "GlobalAveragePool":
        return _End(node.inputs[0], None)
    if node.kind in _SAME:
        return _linear(graph, node.inputs[0])
    if node.kind == "Add":
        return _linear(graph, _summand(graph, node))
    if node.kind == "Concat" and node.inputs[1:] == (ADDED,) and (added := added_in(graph)) is not None:
        known = _linear(graph, node.inputs[0])
        if known.matrix is not None:
            return _End(known.map, np.concatenate([known.matrix, added.directions]))
    if node.kind == "Concat":
        parts = [_linear(graph, name) for name in node.inputs]
        if len({part.map for part in parts}) == 1 and all(part.matrix is not None for part in parts):
            return _End(
                parts[0].map, np.concatenate([part.matrix for part in parts if part.matrix is not None])
            )
    if node.kind == "Split":
        whole = _linear(graph, node.inputs[0])
        sizes = _weights(graph, node.inputs[1]) if len(node.inputs) > 1 else None
        if whole.matrix is not None and sizes is not None:
            ends = np.cumsum(sizes).astype(int)
            at = node.outputs.index(tensor)
            return _End(whole.map, whole.matrix[ends[at] - int(sizes[at]) : ends[at]])
    if node.kind in ("Gemm", "MatMul", "Conv"):
        own, below = _layer(graph, node), _linear(graph, node.inputs[0])
        return _End(below.map, own if below.matrix is None else own @ below.matrix)
    raise _otherwise(f"{node.kind} stands between its pooling and its answer")


def _summand(graph: Graph, node: Node) -> str:
    """The input of an addition that is no constant."""
    varying = [name for name in node.inputs if name in graph.makers and not _is_constant(graph, name)]
    if len(varying) != 1:
        raise _otherwise("several paths are added up between its pooling and its answer")
    return varying[0]


def _is_constant(graph: Graph, name: str) -> bool:
    if name in graph.constants:
        return True
    node = graph.makers.get(name)
    return node is not None and all(_is_constant(graph, source) for source in node.inputs if source)


def _layer(graph: Graph, node: Node) -> NDArray[np.float32]:
    """A linear layer's weights (outputs, inputs) float32."""
    weights = _weights(graph, node.inputs[1])
    if node.kind == "Conv":
        if weights.ndim != 4 or weights.shape[2:] != (1, 1) or node.attributes.get("group", 1) != 1:
            raise _otherwise("a convolution over places stands between its pooling and its answer")
        return weights[:, :, 0, 0]
    if weights.ndim != 2 or node.attributes.get("transA"):
        raise _otherwise(f"a {node.kind} of {weights.ndim} axes stands between its pooling and its answer")
    if node.kind == "Gemm":
        weights = weights * np.float32(node.attributes.get("alpha", 1.0))
    return weights if node.attributes.get("transB") else weights.T


def _weights(graph: Graph, name: str) -> NDArray[np.float32]:
    """A constant's values, also where they are stored in half precision or as integers."""
    found = graph.constant(name)
    if found is not None:
        return found.astype(np.float32)
    node = graph.makers.get(name)
    if node is None or not node.inputs or node.kind not in _OF_CONSTANTS:
        raise _otherwise(
            f"the weights of its last layer are made by {node.kind if node else 'what it is given'}"
        )
    values = _weights(graph, node.inputs[0])
    if node.kind == "Mul":
        return values * _weights(graph, node.inputs[1])
    if node.kind == "Transpose":
        return values.transpose(node.attributes.get("perm") or None)
    if node.kind != "DequantizeLinear":
        return values
    scale, *rest = (_weights(graph, source) for source in node.inputs[1:] if source)
    shape = [1] * values.ndim
    if scale.size > 1:
        shape[node.attributes.get("axis", 1)] = -1
    zero = rest[0].reshape(shape) if rest else np.float32(0)
    return (values - zero) * scale.reshape(shape)


def _otherwise(reason: str) -> ModelError:
    return ModelError(
        f"The network gives no class activation map: {reason}. A map needs an answer that is one linear layer on"
        " globally averaged features, as of efficientnet_lite0 or resnet18."
    )
