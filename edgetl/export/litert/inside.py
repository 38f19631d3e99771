"""What the tensors inside a .tflite file hold, for a look at where it leaves the model that it was written from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.packages import missing


def inner_values(content: bytes, images: NDArray[Any]) -> Mapping[str, NDArray[np.float32]]:
    """Every tensor that the model makes of the images, by name, as real numbers; and its input.

    LiteRT's plain kernels compute them, since the fast ones keep nothing.

    Args:
        content: the file.
        images: (N, S, S, 3), as the model takes them.

    Raises:
        MissingDependencyError: `ai-edge-litert` is not installed.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError as error:
        raise missing("ai_edge_litert") from error
    interpreter = Interpreter(
        model_content=content,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    [source] = interpreter.get_input_details()
    found: dict[str, list[NDArray[np.float32]]] = defaultdict(list)
    for image in images:
        interpreter.set_tensor(source["index"], np.ascontiguousarray(image[None]))
        interpreter.invoke()
        for tensor in interpreter.get_tensor_details():
            if len(tensor["shape"]) and tensor["shape"][0] == 1:
                found[tensor["name"]].append(_real(tensor, interpreter.get_tensor(tensor["index"])))
    return {name: np.concatenate(values) for name, values in found.items() if len(values) == len(images)}


def _real(tensor: Any, values: NDArray[Any]) -> NDArray[np.float32]:
    scale, zero = tensor["quantization"]
    real = values.astype(np.float32)
    return (real - np.float32(zero)) * np.float32(scale) if scale else real
