"""A network as the bytes of a .tflite file: a FlatBuffer of TensorFlow Lite's published schema, version 3.

The schema's classes come with `ai-edge-litert`. Equal networks give equal bytes: nothing in the file says when or
where it was written.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl._version import __version__
from edgetl.export.litert.parts import DTYPES, Grid, Network, Operator, Tensor
from edgetl.packages import missing

IDENTIFIER = b"TFL3"
_SCHEMA_VERSION = 3
_ALIGNED = 16
"""Bytes on which the schema wants every buffer to begin, so that kernels may read it where it lies."""
_LAST_OLD_CODE = 127
"""Codes above do not fit the field that the first runtimes read; this one there says so."""
_SIGNATURE = "serving_default"


def to_bytes(network: Network) -> bytes:
    """The file's bytes.

    Raises:
        MissingDependencyError: `ai-edge-litert` is not installed.
    """
    schema = _schema()
    import flatbuffers

    class Builder(flatbuffers.Builder):  # type: ignore[misc]
        def CreateNumpyVector(self, x: NDArray[Any]) -> Any:  # noqa: N802
            """As the base's, on a boundary that suits every type."""
            content = x.tobytes()
            self.StartVector(x.itemsize, x.size, _ALIGNED)
            self.head -= len(content)
            self.Bytes[self.head : self.head + len(content)] = content
            self.vectorNumElems = x.size
            return self.EndVector()

    builder = Builder(sum(t.data.nbytes for t in network.tensors if t.data is not None) + 65536)
    builder.Finish(_model(schema, network).Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def constant_types(content: bytes) -> frozenset[str]:
    """The types, as numpy calls them, in which a .tflite file stores its constants.

    Raises:
        MissingDependencyError: `ai-edge-litert` is not installed.
    """
    schema = _schema()
    numpy_names = {getattr(schema.TensorType, name): dtype for dtype, name in DTYPES.items()}
    model = schema.ModelT.InitFromPackedBuf(content)
    return frozenset(
        numpy_names.get(tensor.type, "another")
        for graph in model.subgraphs
        for tensor in graph.tensors
        if model.buffers[tensor.buffer].data is not None
    )


def _schema() -> Any:
    try:
        import ai_edge_litert.schema_py_generated as schema
    except ImportError as error:
        raise missing("ai_edge_litert", purpose="whose schema a .tflite file is written by,") from error
    return schema


def _model(schema: Any, network: Network) -> Any:
    buffers = _Buffers(schema)
    codes = list(dict.fromkeys((operator.kind, operator.version) for operator in network.operators))
    graph = schema.SubGraphT(
        tensors=[_tensor(schema, tensor, buffers) for tensor in network.tensors],
        inputs=list(network.inputs.values()),
        outputs=list(network.outputs.values()),
        operators=[_operator(schema, operator, codes) for operator in network.operators],
        name="main",
    )
    signature = schema.SignatureDefT(
        inputs=[schema.TensorMapT(name=name, tensorIndex=at) for name, at in network.inputs.items()],
        outputs=[schema.TensorMapT(name=name, tensorIndex=at) for name, at in network.outputs.items()],
        signatureKey=_SIGNATURE,
        subgraphIndex=0,
    )
    return schema.ModelT(
        version=_SCHEMA_VERSION,
        operatorCodes=[_code(schema, kind, version) for kind, version in codes],
        subgraphs=[graph],
        description=f"edgetl {__version__}",
        buffers=buffers.all,
        metadata=[
            schema.MetadataT(name=name, buffer=buffers.add(np.frombuffer(text.encode(), np.uint8)))
            for name, text in network.metadata.items()
        ],
        signatureDefs=[signature],
    )


class _Buffers:
    """The file's buffers. The first is empty and stands for "none"; equal constants share one."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema
        self.all = [schema.BufferT()]
        self._numbers: dict[bytes, int] = {}

    def add(self, data: NDArray[Any] | None) -> int:
        """The number of the buffer that holds the values."""
        if data is None:
            return 0
        content = np.ascontiguousarray(data).tobytes()
        if content not in self._numbers:
            self._numbers[content] = len(self.all)
            self.all.append(self._schema.BufferT(data=np.frombuffer(content, np.uint8)))
        return self._numbers[content]


def _tensor(schema: Any, tensor: Tensor, buffers: _Buffers) -> Any:
    return schema.TensorT(
        shape=list(tensor.shape),
        type=getattr(schema.TensorType, DTYPES[tensor.dtype]),
        buffer=buffers.add(tensor.data),
        name=tensor.name,
        quantization=_grid(schema, tensor.grid),
        hasRank=True,
    )


def _grid(schema: Any, grid: Grid | None) -> Any:
    if grid is None:
        return None
    return schema.QuantizationParametersT(
        scale=grid.scale.tolist(),
        zeroPoint=[grid.zero_point] * grid.scale.size,
        quantizedDimension=grid.axis,
    )


def _code(schema: Any, kind: str, version: int) -> Any:
    code = getattr(schema.BuiltinOperator, kind)
    return schema.OperatorCodeT(
        deprecatedBuiltinCode=min(code, _LAST_OLD_CODE), builtinCode=code, version=version
    )


def _operator(schema: Any, operator: Operator, codes: list[tuple[str, int]]) -> Any:
    written = schema.OperatorT(
        opcodeIndex=codes.index((operator.kind, operator.version)),
        inputs=list(operator.inputs),
        outputs=list(operator.outputs),
    )
    if operator.table:
        options = getattr(schema, f"{operator.table}T")()
        for name, value in operator.options.items():
            if not hasattr(options, name):
                raise AttributeError(f"{operator.table} has no {name}")
            setattr(options, name, value)
        written.builtinOptions = options
        written.builtinOptionsType = getattr(schema.BuiltinOptions, operator.table)
    return written
