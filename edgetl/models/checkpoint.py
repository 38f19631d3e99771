"""Checkpoints: one .safetensors file with the tensors, and the architecture as JSON in its metadata.

Metadata (all values are strings, as safetensors asks): `edgetl.schema` = "1"; `edgetl.architecture` = JSON of
`Architecture`; and the caller's own keys.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from torch import Tensor, nn

from edgetl.errors import WeightsError
from edgetl.failures import cause, remedy
from edgetl.files import write_bytes
from edgetl.inputs.image import PreprocessSpec
from edgetl.models.architecture import Architecture, Extent, HeadKind, build
from edgetl.models.formats import Format, fault, recognise
from edgetl.models.weights import ARCHITECTURE, versioned
from edgetl.models.weights import LABELS as LABELS
from edgetl.records.codec import to_json

SCHEMA = 1
SPEC = "edgetl.preprocess"
LINEAGE = "edgetl.lineage"
"""What the network learned before and here, as JSON: see `edgetl.records.train.LineageStep`."""
REBASED = "edgetl.rebased"
"""How many batch norms did not learn and are written in terms of the images at hand (`edgetl.models.norms`)."""
_SCHEMA_KEY, _ARCHITECTURE_KEY = "edgetl.schema", ARCHITECTURE


def save(
    model: nn.Module, architecture: Architecture, path: Path, extra: Mapping[str, str] | None = None
) -> None:
    """Write the network to `path`, atomically.

    Args:
        model: the network; its tensors are written as they are, on the CPU and contiguous.
        architecture: from `describe`.
        path: ends in .safetensors.
        extra: more metadata.

    Raises:
        StorageError: the file cannot be written.
    """
    from safetensors.torch import save as serialise

    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}
    metadata = {
        **(extra or {}),
        _SCHEMA_KEY: str(SCHEMA),
        _ARCHITECTURE_KEY: json.dumps(_plain(architecture), sort_keys=True),
    }
    write_bytes(path, _with_sorted_header(serialise(tensors, metadata=metadata)))


def _plain(architecture: Architecture) -> dict[str, Any]:
    values: dict[str, Any] = to_json(architecture)
    if architecture.size is None:
        del values["size"]
    if architecture.head == "classifier":
        del values["head"]
    if not architecture.widths:
        del values["widths"]
    if not architecture.removed:
        del values["removed"]
    return values


def provenance(labels: Sequence[str], spec: PreprocessSpec) -> dict[str, str]:
    """What a checkpoint keeps, so that it can teach in another run: its classes in order, and its preprocessing."""
    return {LABELS: json.dumps(list(labels)), SPEC: json.dumps(to_json(spec))}


def load(path: Path) -> tuple[nn.Module, Architecture]:
    """Read a checkpoint: the network in evaluation mode, on the CPU, and its architecture.

    Raises:
        WeightsError: the file is missing, broken, no checkpoint of edgetl, of a newer schema, or does not fit.
        ModelError: this version of the libraries has no such backbone.
    """
    tensors, metadata = _read(path)
    architecture = _architecture(path, metadata)
    _check_shapes(path, architecture, tensors)
    model = build(architecture)
    own = model.state_dict()
    missing, unexpected = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or unexpected:
        what = [f"{len(missing)} tensors are missing ({', '.join(missing[:3])})"] if missing else []
        what += [f"{len(unexpected)} are unexpected ({', '.join(unexpected[:3])})"] if unexpected else []
        raise WeightsError(f"{path} does not fit {architecture.backbone}: {'; '.join(what)}.")
    for name, tensor in own.items():
        if tensor.shape != tensors[name].shape:
            raise WeightsError(
                f"{path} does not fit {architecture.backbone}: {name} has the shape {tuple(tensors[name].shape)},"
                f" expected {tuple(tensor.shape)}."
            )
    model.load_state_dict(versioned(model, tensors))
    return model.eval(), architecture


def read_metadata(path: Path) -> dict[str, str]:
    """A checkpoint's metadata, without its tensors.

    Raises:
        WeightsError: the file is missing or broken.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise WeightsError(f"No checkpoint at {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(_unreadable(path)) from error


def further_metadata(path: Path) -> dict[str, str]:
    """A checkpoint's metadata without those that `save` writes by itself.

    Raises:
        WeightsError: as for `read_metadata`.
    """
    own = (_SCHEMA_KEY, _ARCHITECTURE_KEY)
    return {key: text for key, text in read_metadata(path).items() if key not in own}


def _unreadable(path: Path) -> str:
    try:
        if recognise(path) is Format.TORCH:
            return f"{path} is not a checkpoint of edgetl (.safetensors), but a file of torch's."
        return f"{path} {fault(path)}"
    except OSError as error:
        return f"Cannot read {path}: {cause(error)}. {remedy(error)}"


def _with_sorted_header(content: bytes) -> bytes:
    """Order the metadata, which safetensors writes in random order, so that equal networks give equal files.

    The file is: 8 bytes of the header's length (little endian), the header as JSON padded with spaces, the tensors.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[end:]


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    metadata = read_metadata(path)
    try:
        return load_file(path), metadata
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(_unreadable(path)) from error


def _architecture(path: Path, metadata: Mapping[str, str]) -> Architecture:
    if _SCHEMA_KEY not in metadata or _ARCHITECTURE_KEY not in metadata:
        raise WeightsError(
            f"{path} holds tensors but no architecture: it was not written by edgetl. Use it as train.weights."
        )
    schema = metadata[_SCHEMA_KEY]
    if not schema.isdecimal() or int(schema) > SCHEMA:
        raise WeightsError(
            f"{path} has checkpoint schema {schema}; this version reads up to {SCHEMA}. Upgrade edgetl."
        )
    try:
        value = json.loads(metadata[_ARCHITECTURE_KEY])
        architecture = Architecture(
            backbone=_typed(value["backbone"], str),
            num_classes=_typed(value["num_classes"], int),
            size=_typed(value["size"], int) if "size" in value else None,
            head=_head(value.get("head", "classifier")),
            widths=_widths(value.get("widths", [])),
            removed=_removed(value.get("removed", [])),
            layers={
                name: {key: _extent(extent) for key, extent in layer.items()}
                for name, layer in value["layers"].items()
            },
        )
        if architecture.head == "adapters" and sum(architecture.widths) != architecture.num_classes:
            raise ValueError(f"heads of {architecture.widths} outputs do not make {architecture.num_classes}")
        return architecture
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"The architecture in {path} cannot be read: {error}.") from error


def _typed(value: Any, kind: Any) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{value!r:.60} is not of type {kind.__name__}")
    return value


def _head(value: Any) -> HeadKind:
    if value not in get_args(HeadKind):
        raise ValueError(f"{value!r:.60} is no head that this version knows")
    head: HeadKind = value
    return head


def _widths(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(width) is int and width > 0 for width in value):
        raise ValueError(f"{value!r:.60} is not a list of the heads' outputs")
    return tuple(value)


def _removed(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise ValueError(f"{value!r:.60} is not a list of blocks")
    return tuple(value)


def _extent(value: Any) -> Extent:
    if isinstance(value, list) and all(type(v) is int and v >= 0 for v in value):
        return tuple(value)
    if type(value) is int and value >= 0:
        return value
    raise ValueError(f"{value!r:.60} is not an integer or a list of integers, all 0 or more")


def _check_shapes(path: Path, architecture: Architecture, tensors: Mapping[str, Tensor]) -> None:
    """Compare before building, so that a doctored description cannot ask for more memory than the file has."""
    for name, layer in architecture.layers.items():
        for key, extent in layer.items():
            tensor = tensors.get(f"{name}.{key}" if name else key)
            if tensor is not None and tuple(tensor.shape) != extent:
                raise WeightsError(
                    f"{path}: {name}.{key} has the shape {tuple(tensor.shape)}, but the architecture says {extent}."
                )
