"""The Open Inference Protocol, version 2: what a request's tensors are, and how outputs are written.

Requests and responses are JSON; with the protocol's extension for binary data the tensors' bytes follow the JSON, whose
length is in the header `Inference-Header-Content-Length` (KServe, "Open Inference Protocol" and "Binary Tensor Data
Extension").

A model has one input, which comes in one of three forms: UINT8 (N, S, S, 3), pixels that are normalised here; FP32
(N, 3, S, S), normalised by the client, for a variant that takes these; BYTES (N), encoded pictures.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.bundle.manifest import InputForm
from edgetl.deploy.server.answers import BYTES, Answer, Refusal, encoded
from edgetl.deploy.server.lane import Rows
from edgetl.deploy.server.pictures import checked
from edgetl.runtime.session import Session
from edgetl.tasks.base import Outputs

HEADER_LENGTH = "inference-header-content-length"
EXTENSIONS = ("binary_tensor_data",)
_MAX_ROWS = 1024


@dataclass(frozen=True, kw_only=True)
class TensorJob:
    """A request of tensors, as it came.

    Attributes:
        model, version: as they are answered.
        body: the request's body.
        header_bytes: of it, how many are JSON; None where all are.
        max_pixels: of an encoded picture.
    """

    model: str
    version: str
    body: bytes
    header_bytes: int | None
    max_pixels: int

    def rows(self, session: Session) -> Rows:
        """The images; see `edgetl.deploy.server.lane.Job`."""
        request = self._request()
        _outputs_of(request, session)  # Before the model runs for nothing.
        (tensor,) = _objects(request, "inputs", exactly=1)
        name = session.backend.input.name
        if tensor.get("name") != name:
            raise Refusal(400, f"The model's input is {name!r}, got {tensor.get('name')!r:.80}.")
        return _rows(tensor, self._binary(tensor, request), session, self.max_pixels)

    def answer(self, session: Session, outputs: Outputs, rows: Rows) -> Answer:
        """The asked outputs; see `edgetl.deploy.server.lane.Job`."""
        request = self._request()
        described, parts = [], list[bytes]()
        for name, binary in _outputs_of(request, session):
            array = np.ascontiguousarray(outputs[name], dtype="<f4")
            one: dict[str, Any] = {"name": name, "datatype": "FP32", "shape": list(array.shape)}
            if binary:
                parts.append(array.tobytes())
                one["parameters"] = {"binary_data_size": array.nbytes}
            else:
                one["data"] = _finite(array, name)
            described.append(one)
        head: dict[str, Any] = {"model_name": self.model, "model_version": self.version}
        if isinstance(request.get("id"), str):
            head["id"] = request["id"]
        content = encoded({**head, "outputs": described})
        if not parts:
            return Answer(body=content)
        return Answer(
            body=b"".join([content, *parts]), media_type=BYTES, headers={HEADER_LENGTH: str(len(content))}
        )

    def _request(self) -> Mapping[str, Any]:
        head = self.body if self.header_bytes is None else self.body[: self.header_bytes]
        try:
            request = json.loads(head.decode(), parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise Refusal(400, f"The request is no JSON: {str(error)[:200]}.") from None
        if not isinstance(request, Mapping):
            raise Refusal(400, "The request is no JSON object.")
        return request

    def _binary(self, tensor: Mapping[str, Any], request: Mapping[str, Any]) -> bytes | None:
        """The bytes behind the JSON that are the tensor's, None where its data is in the JSON."""
        size = _parameters(tensor).get("binary_data_size")
        rest = b"" if self.header_bytes is None else self.body[self.header_bytes :]
        if size is None:
            if rest:
                raise Refusal(400, f"{len(rest)} bytes follow the JSON, and no input has a binary_data_size.")
            return None
        if not isinstance(size, int) or isinstance(size, bool) or size != len(rest):
            raise Refusal(
                400, f"The input's binary_data_size is {size!r:.40}, and {len(rest)} bytes follow the JSON."
            )
        if "data" in tensor:
            raise Refusal(400, "The input has data in the JSON and binary data behind it; send one of them.")
        return rest


def header_length(value: str | None, length: int) -> int | None:
    """The header's number.

    Raises:
        Refusal: it is none, or more than the body has.
    """
    if value is None:
        return None
    if not (value.isascii() and value.isdigit()) or len(value) > 12 or int(value) > length:
        raise Refusal(400, f"Inference-Header-Content-Length is {value[:40]!r}; the body has {length} bytes.")
    return int(value)


def metadata(session: Session, model: str, version: str) -> dict[str, Any]:
    """A model's description as the protocol has it; `parameters` says in which other forms its input may come."""
    size = session.manifest.preprocess.size
    forms = {"UINT8": [-1, size, size, 3], "BYTES": [-1]}
    if session.variant.input is InputForm.FLOAT32:
        forms["FP32"] = [-1, 3, size, size]
    return {
        "name": model,
        "versions": [version],
        "platform": f"edgetl_{session.choice.target}",
        "inputs": [
            {"name": session.backend.input.name, "datatype": "UINT8", "shape": [-1, size, size, 3]},
        ],
        "outputs": [
            {
                "name": tensor.name,
                "datatype": "FP32",
                "shape": [-1 if length is None else length for length in _shape(session, tensor.name)],
            }
            for tensor in session.task.outputs
        ],
        "parameters": {
            "task": session.manifest.task.kind,
            "variant": session.variant.name,
            "input_forms": encoded(forms).decode(),
        },
    }


def _shape(session: Session, name: str) -> Sequence[int | None]:
    return next(found.shape for found in session.backend.outputs if found.name == name)


def _rows(tensor: Mapping[str, Any], binary: bytes | None, session: Session, max_pixels: int) -> Rows:
    size = session.manifest.preprocess.size
    kind, shape = tensor.get("datatype"), _shape_of(tensor)
    if kind == "BYTES":
        contents = _byte_elements(tensor, binary, shape)
        framed = [session.framed(checked(content, max_pixels)) for content in contents]
        return Rows(images=[pixels for pixels, _ in framed])
    takes: dict[object, tuple[tuple[int, ...], str]] = {"UINT8": ((size, size, 3), "u1")}
    if session.variant.input is InputForm.FLOAT32:
        takes["FP32"] = ((3, size, size), "<f4")
    if kind not in takes or shape[1:] != takes[kind][0]:
        forms = " or ".join(f"{name} (N, {', '.join(map(str, sides))})" for name, (sides, _) in takes.items())
        raise Refusal(
            400, f"The input is {kind!r:.40} {list(shape)}, expected {forms} or BYTES (N), encoded pictures."
        )
    dtype = np.dtype(takes[kind][1])
    count = math.prod(shape)
    if binary is not None:
        if len(binary) != count * dtype.itemsize:
            raise Refusal(
                400, f"The input has {len(binary)} bytes, its shape wants {count * dtype.itemsize}."
            )
        array = np.frombuffer(binary, dtype).reshape(shape)
    else:
        array = _from_json(tensor.get("data"), dtype, shape, count)
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise Refusal(400, "The input holds numbers that are not finite.")
    return Rows(images=list(array))


def _shape_of(tensor: Mapping[str, Any]) -> tuple[int, ...]:
    shape = tensor.get("shape")
    whole = isinstance(shape, list) and all(
        isinstance(n, int) and not isinstance(n, bool) and 0 < n < 1 << 31 for n in shape
    )
    if not whole or not isinstance(shape, list) or not 1 <= len(shape) <= 4:
        raise Refusal(400, f"The input's shape is {shape!r:.80}, expected a list of positive integers.")
    if shape[0] > _MAX_ROWS:
        raise Refusal(400, f"The input has {shape[0]} images; send at most {_MAX_ROWS} in a request.")
    return tuple(shape)


def _from_json(data: Any, dtype: np.dtype[Any], shape: tuple[int, ...], count: int) -> NDArray[Any]:
    """Numbers in a flat list, or in nested ones, row by row."""
    if not isinstance(data, list):
        raise Refusal(400, "The input has no list of data, and no binary data behind the JSON.")
    found, sides = data, [len(data)]
    while found and isinstance(found[0], list) and len(sides) < len(shape):
        if not all(isinstance(part, list) and len(part) == len(found[0]) for part in found):
            raise Refusal(400, "The input's lists of data are not nested alike throughout.")
        sides.append(len(found[0]))
        found = [one for part in found for one in part]
    if len(found) != count or tuple(sides) not in (shape, (count,)):
        raise Refusal(400, f"The input's data is of the shape {sides}, expected {list(shape)} or flat.")
    whole = dtype.kind == "u"
    if not set(map(type, found)) <= ({int} if whole else {int, float}):
        raise Refusal(400, f"The input's data is not all {'whole numbers 0 to 255' if whole else 'numbers'}.")
    if whole and not (min(found) >= 0 and max(found) <= 255):
        raise Refusal(400, "The input's data is beyond 0 to 255.")
    try:
        with np.errstate(over="ignore"):
            return np.array(found, np.float64).astype(dtype).reshape(shape)
    except OverflowError:
        raise Refusal(400, "The input holds numbers that are not finite.") from None


def _byte_elements(
    tensor: Mapping[str, Any], binary: bytes | None, shape: tuple[int, ...]
) -> Sequence[bytes]:
    """Encoded pictures: each behind its length in 4 bytes; or as base64 in the JSON, which holds text alone."""
    found = list[bytes]()
    if len(shape) != 1:
        raise Refusal(400, f"The input is 'BYTES' {list(shape)}, expected [N].")
    if binary is not None:
        at = 0
        while at + 4 <= len(binary):
            length = int.from_bytes(binary[at : at + 4], "little")
            found.append(binary[at + 4 : at + 4 + length])
            at += 4 + length
        if at != len(binary):
            raise Refusal(400, "The input's bytes do not end where its last element does.")
    else:
        import base64

        data = tensor.get("data")
        if not isinstance(data, list) or not all(isinstance(one, str) for one in data):
            raise Refusal(400, "The input's data is no list of pictures in base64.")
        try:
            found = [base64.b64decode(one.encode(), validate=True) for one in data]
        except ValueError:
            raise Refusal(
                400, "The input's data is not base64; or send the pictures as binary data."
            ) from None
    if len(found) != shape[0]:
        raise Refusal(400, f"The input has {len(found)} pictures, its shape says {shape[0]}.")
    return found


def _outputs_of(request: Mapping[str, Any], session: Session) -> list[tuple[str, bool]]:
    """The names of the outputs that are asked for, all where none are, and whether each comes as binary data."""
    known = [tensor.name for tensor in session.task.outputs]
    always = _parameters(request).get("binary_data_output") is True
    if request.get("outputs") in (None, []):
        return [(name, always) for name in known]
    found = []
    for one in _objects(request, "outputs"):
        name = one.get("name")
        if name not in known:
            raise Refusal(400, f"The model has no output {name!r:.80}; it has {', '.join(known)}.")
        parameters = _parameters(one)
        if "classification" in parameters:
            raise Refusal(400, "The extension for classification is not served; ask :predict for labels.")
        found.append((str(name), parameters.get("binary_data", always) is True))
    if len({name for name, _ in found}) != len(found):
        raise Refusal(400, "An output is asked for twice.")
    return found


def _objects(value: Mapping[str, Any], name: str, *, exactly: int | None = None) -> list[Mapping[str, Any]]:
    found = value.get(name)
    if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
        raise Refusal(400, f"The request has no list of {name}.")
    if exactly is not None and len(found) != exactly:
        raise Refusal(400, f"The request has {len(found)} {name}, expected {exactly}.")
    return found


def _parameters(value: Mapping[str, Any]) -> Mapping[str, Any]:
    found = value.get("parameters")
    return found if isinstance(found, Mapping) else {}


def _finite(array: NDArray[Any], name: str) -> list[Any]:
    if not np.isfinite(array).all():
        raise Refusal(400, f"{name} holds numbers that JSON has no form for; ask for binary data.")
    found: list[Any] = array.reshape(-1).tolist()
    return found


def _refuse_constant(name: str) -> float:
    raise ValueError(f"it holds the figure {name}")
