"""The first layer at which one ONNX graph computes something else than the graph that it was made from.

Both graphs run on the same few images with their inner tensors shown, and the tensors that correspond are compared in
the order of the flow. Names correspond: conversion to half precision and quantization keep them or add an ending, and
where a tensor is quantized its dequantized form counts, so that a bad scale is found where it stands.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgetl.export import bake
from edgetl.export.graphs import Probe, float_results
from edgetl.export.half_precision import as_on_a_gpu, is_half
from edgetl.records.parity import Divergence

_ENDINGS = ("_dequantized", "", "_cast_to_fp16")
"""Of the tensor in the other graph, the best first."""
INPUT = "the input"


def first_divergence(
    reference: onnx.ModelProto,
    reference_images: NDArray[Any],
    suspect: onnx.ModelProto,
    suspect_images: NDArray[Any],
    *,
    limit: float,
) -> Divergence | None:
    """Where `suspect` leaves `reference`.

    A tensor's error is the norm of the difference over the norm of the reference. The first one above `limit` is
    named, and the layer that makes it; where none is above, the layer that adds most to the error of its inputs. What
    a Relu or Clip cuts off does not count: its result is compared, not its input.

    Args:
        reference: the graph that is right.
        reference_images: its input.
        suspect: the graph that was made from it.
        suspect_images: its input, of the same pictures.
        limit: the error that is still fine.

    Returns:
        None where no tensors correspond.

    Raises:
        ModelError: a graph does not run.
        MissingDependencyError: onnxruntime is absent.
    """
    names = {suspect.graph.input[0].name, *float_results(suspect)}
    pairs = _pairs(reference, names, suspect.graph.input[0].name)
    half = is_half(suspect)
    shown = as_on_a_gpu(suspect) if half else suspect
    expected = _values(reference, reference_images, [name for name, _ in pairs], optimised=True)
    got = _values(shown, suspect_images, [name for _, name in pairs], optimised=not half)
    return _first(reference, pairs, expected, got, limit)


def first_divergence_from(
    reference: onnx.ModelProto,
    images: NDArray[Any],
    found: Mapping[str, NDArray[Any]],
    *,
    limit: float,
) -> Divergence | None:
    """Where the tensors of another format leave `reference`; else as `first_divergence`.

    Args:
        reference: the graph that is right.
        images: its input.
        found: the tensors that the other model made of the same pictures, under the graph's names. Their axes may stand
            in another order, and count in the order that is the nearest.
        limit: the error that is still fine.
    """
    pairs = _pairs(reference, set(found), reference.graph.input[0].name)
    expected = _values(reference, images, [name for name, _ in pairs], optimised=True)
    got = {other: _nearest(expected[name], found[other]) for name, other in pairs}
    return _first(reference, pairs, expected, got, limit)


def _nearest(expected: NDArray[Any], got: NDArray[Any]) -> NDArray[Any]:
    orders = [
        got.transpose(0, *order)
        for order in itertools.permutations(range(1, got.ndim))
        if tuple(got.shape[axis] for axis in order) == expected.shape[1:] and len(got) == len(expected)
    ]
    return min(orders, key=lambda each: relative_error(expected, each), default=got)


def _first(
    reference: onnx.ModelProto,
    pairs: Sequence[tuple[str, str]],
    expected: Mapping[str, NDArray[Any]],
    got: Mapping[str, NDArray[Any]],
    limit: float,
) -> Divergence | None:
    """Which of the pairs, as `first_divergence` says."""
    makers = {name: node for node in reference.graph.node for name in node.output}
    errors: dict[str, float] = {}
    worst: Divergence | None = None
    for name, other in pairs:
        if expected[name].shape != got[other].shape:
            continue
        errors[name] = relative_error(expected[name], got[other])
        before = max((_error_before(name, makers, errors)), default=0.0)
        node = makers.get(name)
        found = Divergence(
            layer=node.name if node is not None else INPUT,
            operator=node.op_type if node is not None else "",
            tensor=other,
            error=errors[name],
            error_before=before,
            abrupt=not errors[name] <= limit,
            finite=bool(np.isfinite(got[other]).all()),
        )
        if found.abrupt:
            return found
        if worst is None or found.error - before > worst.error - worst.error_before:
            worst = found
    return worst


def _pairs(reference: onnx.ModelProto, theirs: Set[str], other: str) -> list[tuple[str, str]]:
    """Corresponding float tensors, in the order of the flow, the inputs first; `other` is the suspect's."""
    baked = f"{bake.PREFIX}/normalised"
    source = reference.graph.input[0].name
    found = [(source, baked if baked in theirs else other)]
    if f"{other}_dequantized" in theirs:
        found[0] = (source, f"{other}_dequantized")
    skipped = _cut_off(reference)
    for name in float_results(reference):
        if name in skipped:
            continue
        match = next((name + ending for ending in _ENDINGS if name + ending in theirs), None)
        if match is not None:
            found.append((name, match))
    return found


def _cut_off(model: onnx.ModelProto) -> set[str]:
    """Tensors that only one Relu or Clip reads."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return {
        name for name, nodes in readers.items() if len(nodes) == 1 and nodes[0].op_type in ("Relu", "Clip")
    }


def _values(
    model: onnx.ModelProto, images: NDArray[Any], names: Sequence[str], *, optimised: bool
) -> Mapping[str, NDArray[Any]]:
    source = model.graph.input[0].name
    inner = list(dict.fromkeys(name for name in names if name != source))
    probe = Probe(model, inner, optimised=optimised)
    return {source: images, **dict(zip(inner, probe.run(images), strict=True))}


def relative_error(expected: NDArray[Any], got: NDArray[Any]) -> float:
    """The norm of the difference over the norm of what was expected; very large where `got` is not finite."""
    if not np.isfinite(got).all():
        return float(np.finfo(np.float32).max)
    wanted = expected.astype(np.float64)
    size = float(np.linalg.norm(wanted))
    gap = float(np.linalg.norm(wanted - got.astype(np.float64)))
    return gap / size if size else float(gap > 0)


def _error_before(
    name: str, makers: Mapping[str, onnx.NodeProto], errors: Mapping[str, float]
) -> list[float]:
    """Errors of the nearest compared tensors that a tensor is made from."""
    node, found = makers.get(name), []
    for source in node.input if node is not None else ():
        found += [errors[source]] if source in errors else _error_before(source, makers, errors)
    return found
