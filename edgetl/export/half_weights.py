"""Weights stored in half precision, arithmetic in float32: half the file at the same speed.

Each large float32 weight becomes a float16 one behind a Cast, which engines fold away when they load the model.
Rounding to float16 moves a weight by at most 2^-11 of its size (IEEE 754 binary16); what that does to accuracy
is measured like everything else.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_SMALL = 256
"""Tensors with fewer elements stay as they are: a Cast node would take as many bytes as it saves."""


def store_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` whose large float32 weights are stored as float16.

    Weights beyond float16's range (65504) or not finite stay in float32. Inputs, outputs, metadata and names of
    all other tensors stay.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    casts = []
    for index, tensor in enumerate(graph.initializer):
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        if values.size < _SMALL or not np.abs(values).max() <= np.finfo(np.float16).max:
            continue
        stored = f"{tensor.name}_half"
        casts.append(
            helper.make_node("Cast", [stored], [tensor.name], name=f"{stored}_cast", to=TensorProto.FLOAT)
        )
        graph.initializer[index].CopyFrom(numpy_helper.from_array(values.astype(np.float16), stored))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(copy, full_check=True)
    return copy
