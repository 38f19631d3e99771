"""Classes that were added to a model on a device, from a few pictures: how they are answered, as part of the network.

A class is known by its prototype, the mean of its pictures' embeddings (Snell, Swersky, Zemel, "Prototypical Networks
for Few-shot Learning", NeurIPS 2017). Embeddings are compared by cosine after the mean of the known classes is taken
off (Wang et al., "SimpleShot", 2019) and the directions in which images of one class differ most are damped (as in
within-class covariance normalisation, Hatch et al. 2006): of five pictures of a flower this finds 89% of the others
where plain cosines find 77%, at one point of the known classes' accuracy (`flowers12`, seven known classes, 96 px, 100
training images kept).

The network's own answer stands unless an added class's prototype is nearer than all known ones by more than a margin:

    logit(added k) = largest known logit + scale * (cosine to k - largest cosine to a known class - margin k)

These are a few operators at the network's end, written into the model's file (`edgetl.runtime.wire`). So whatever runs,
serves, scores, exports or compares the bundle's models answers with the added classes too, and the known logits stay
what they were, bit for bit.

Legend: N images, F features, C known classes, K added ones, R damped directions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.runtime.wire import Graph, Operator, lengthened, read_graph, shortened

PREFIX = "added/"
"""Begins the names of all tensors and operators that are written."""
KNOWN, LOGITS = f"{PREFIX}known", f"{PREFIX}logits"
"""The tensors of the known classes' logits (N, C) and of the added classes' (N, K)."""
_LENGTH = 1e-6
"""An embedding that is this near the centre has no direction."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Space:
    """Where embeddings are compared.

    Attributes:
        centre: (F,) float32, taken off.
        damped: (F, R) float32, orthonormal directions.
        damping: (R,) float32, the share of each direction that is taken off, in [0, 1).
    """

    centre: NDArray[np.float32]
    damped: NDArray[np.float32]
    damping: NDArray[np.float32]

    def flatten(self, vectors: NDArray[Any]) -> NDArray[np.float32]:
        """Vectors (N, F) with the damped directions taken off."""
        along = (vectors @ self.damped) * self.damping
        return np.asarray(vectors - along @ self.damped.T, dtype=np.float32)

    def unit(self, embeddings: NDArray[Any]) -> NDArray[np.float32]:
        """Embeddings (N, F) as vectors of unit length."""
        apart = self.flatten(np.asarray(embeddings, dtype=np.float32) - self.centre)
        return np.asarray(apart / np.maximum(np.linalg.norm(apart, axis=1, keepdims=True), _LENGTH))


@dataclass(frozen=True, kw_only=True, eq=False)
class Added:
    """What the added classes are answered by.

    Attributes:
        space: where embeddings are compared.
        known: (C, F) float32 of unit length, the known classes' prototypes.
        prototypes: (K, F) float32 of unit length, the added classes'.
        margins: (K,) float32, by how much an added class's cosine must exceed the known ones' to be answered.
        scale: of cosines into logits.
    """

    space: Space
    known: NDArray[np.float32]
    prototypes: NDArray[np.float32]
    margins: NDArray[np.float32]
    scale: float

    def gaps(self, embeddings: NDArray[Any]) -> NDArray[np.float32]:
        """(N, K) the cosine to each added class less the largest to a known one, of embeddings (N, F)."""
        return gaps(self.space.unit(embeddings), self.known, self.prototypes)

    def logits(self, known: NDArray[Any], embeddings: NDArray[Any]) -> NDArray[np.float32]:
        """(N, C + K), as the lengthened model gives them for the known logits (N, C) and embeddings (N, F)."""
        above = np.float32(self.scale) * (self.gaps(embeddings) - self.margins)
        return np.concatenate([known, known.max(axis=1, keepdims=True) + above], axis=1).astype(np.float32)

    @property
    def directions(self) -> NDArray[np.float32]:
        """(K, F) in which an embedding speaks for each added class: its cosine's numerator is linear in it."""
        return self.space.flatten(self.prototypes) * np.float32(self.scale)


def gaps(
    vectors: NDArray[np.float32], known: NDArray[np.float32], prototypes: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(N, K) the cosine of vectors (N, F) to each of (K, F) prototypes less the largest to (C, F) known ones."""
    nearest = (vectors @ known.T).max(axis=1, keepdims=True)
    return np.asarray(vectors @ prototypes.T - nearest, dtype=np.float32)


def with_classes(model: bytes, output: str, shown: str, added: Added) -> bytes:
    """The model with added classes, whose logits follow the known ones'; without those that it had before.

    Args:
        model: an ONNX file's bytes, of operator set 18 or newer.
        output: its logits (N, C).
        shown: the feature map (N, F, h, w), whose mean is the embedding.
        added: the classes; with none of them the model is as it was made.

    Raises:
        ModelError: the file cannot be read.
    """
    count = len(added.known)
    if added_in(read_graph(model)) is not None:
        model = shortened(model, output, KNOWN, PREFIX, count)
    if not len(added.prototypes):
        return model
    constants = _constants(added)
    width = count + len(added.prototypes)
    return lengthened(model, output, KNOWN, _operators(output, shown), constants, width)


def _operators(output: str, shown: str) -> tuple[Operator, ...]:
    def step(name: str, kind: str, *inputs: str, **attributes: int) -> Operator:
        named, made = tuple(f"{PREFIX}{one}" for one in inputs), f"{PREFIX}{name}"
        return Operator(name=made, kind=kind, inputs=named, output=made, attributes=attributes)

    pooled = f"{PREFIX}pooled"
    return (
        Operator(name=pooled, kind="GlobalAveragePool", inputs=(shown,), output=pooled),
        step("embedding", "Flatten", "pooled", axis=1),
        step("apart", "Sub", "embedding", "centre"),
        step("along", "MatMul", "apart", "damped"),
        step("too_far", "Mul", "along", "damping"),
        step("taken_off", "Gemm", "too_far", "damped", transB=1),
        step("vector", "Sub", "apart", "taken_off"),
        step("length", "ReduceL2", "vector", "axis", keepdims=1),
        step("divisor", "Max", "length", "least_length"),
        step("direction", "Div", "vector", "divisor"),
        step("known_cosines", "MatMul", "direction", "known_prototypes"),
        step("nearest", "ReduceMax", "known_cosines", "axis", keepdims=1),
        step("cosines", "MatMul", "direction", "prototypes"),
        step("gaps", "Sub", "cosines", "nearest"),
        step("beyond", "Sub", "gaps", "margins"),
        step("scaled", "Mul", "beyond", "scale"),
        step("top", "ReduceMax", "known", "axis", keepdims=1),
        step("logits", "Add", "top", "scaled"),
        Operator(
            name=f"{PREFIX}all",
            kind="Concat",
            inputs=(KNOWN, LOGITS),
            output=output,
            attributes={"axis": 1},
        ),
    )


def _constants(added: Added) -> Mapping[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {
        "centre": added.space.centre[None],
        "damped": added.space.damped,
        "damping": added.space.damping[None],
        "known_prototypes": added.known.T,
        "prototypes": added.prototypes.T,
        "margins": added.margins[None],
        "scale": np.array([added.scale], dtype=np.float32),
        "least_length": np.array([_LENGTH], dtype=np.float32),
        "axis": np.array([1], dtype=np.int64),
    }
    return {f"{PREFIX}{name}": values for name, values in found.items()}


def added_in(graph: Graph) -> Added | None:
    """The classes that were added to a model; None where there are none."""
    if LOGITS not in graph.makers:
        return None

    def constant(name: str) -> NDArray[np.float32]:
        return np.asarray(graph.constant(f"{PREFIX}{name}"), dtype=np.float32)

    return Added(
        space=Space(centre=constant("centre")[0], damped=constant("damped"), damping=constant("damping")[0]),
        known=np.ascontiguousarray(constant("known_prototypes").T),
        prototypes=np.ascontiguousarray(constant("prototypes").T),
        margins=constant("margins")[0],
        scale=float(constant("scale")[0]),
    )
