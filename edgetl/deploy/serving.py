"""A bundle's model for other runtimes: one ONNX file, or a model repository for NVIDIA Triton.

The repository's layout is Triton's: `NAME/config.pbtxt`, `NAME/labels.txt`, `NAME/1/model.onnx`, for its ONNX Runtime
backend (Triton Inference Server, "Model Repository" and "Model Configuration").
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgetl.bundle.archive import open_bundle
from edgetl.bundle.manifest import InputForm
from edgetl.data.labels import fault
from edgetl.errors import BundleError, ConfigError
from edgetl.files import write_bytes, write_text
from edgetl.packages import missing
from edgetl.records.variants import ServeRecord

if TYPE_CHECKING:
    import onnx

    from edgetl.export.bake import Head

_TYPES = {1: "TYPE_FP32", 2: "TYPE_UINT8", 7: "TYPE_INT64"}  # onnx.TensorProto's numbers
_QUEUE_MICROSECONDS = 1000
VERSION = "1"


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """What the file shall take and give.

    Attributes:
        variant: the model; the bundle's default one where unset.
        uint8: take (N, S, S, 3) uint8 pictures and normalise inside.
        softmax: give probabilities in place of logits.
        top: give the so many best classes with their probabilities; 0 gives all.
    """

    variant: str | None = None
    uint8: bool = False
    softmax: bool = False
    top: int = 0


def write_onnx(bundle: Path, options: ServeOptions, out: Path) -> ServeRecord:
    """Write a variant as one ONNX file.

    Raises:
        BundleError: the bundle cannot be used or has no such variant.
        ConfigError: softmax and top are both asked for.
        ModelError: there are fewer classes than `top`.
        MissingDependencyError: onnx is absent, and the model shall be changed.
        StorageError: the file cannot be written.
    """
    name, content = _model(bundle, options)
    write_bytes(out, content)
    window = open_bundle(bundle).manifest.preprocess.window
    return ServeRecord(variant=name, path=str(out), files=(out.name,), size_bytes=len(content), window=window)


def write_triton(
    bundle: Path, options: ServeOptions, out: Path, *, max_batch: int = 8, gpu: bool = False
) -> ServeRecord:
    """Write a model repository for Triton, or add the model to one; the model is named as the bundle is.

    Args:
        bundle: the bundle.
        options: what the model shall take and give.
        out: the repository.
        max_batch: the largest batch that Triton makes of waiting requests.
        gpu: let it run on GPUs; else on the CPU.

    Raises:
        As `write_onnx`.
        BundleError: a label holds a line break, which would move every later one in `labels.txt`; nothing is written.
    """
    import onnx

    opened = open_bundle(bundle)
    faults = [found for label in opened.manifest.labels if (found := fault(label))]
    if faults:
        raise BundleError(
            f"{bundle.name} cannot be written for Triton, which reads a label a line: {'; '.join(faults[:3])}. Name the"
            " class otherwise and make the bundle again."
        )
    name, content = _model(bundle, options)
    folder = out / opened.manifest.name
    write_bytes(folder / VERSION / "model.onnx", content)
    write_text(folder / "labels.txt", "".join(f"{label}\n" for label in opened.manifest.labels))
    config = triton_config(opened.manifest.name, onnx.load_from_string(content), max_batch=max_batch, gpu=gpu)
    write_text(folder / "config.pbtxt", config)
    files = ("config.pbtxt", "labels.txt", f"{VERSION}/model.onnx")
    window = opened.manifest.preprocess.window
    return ServeRecord(variant=name, path=str(folder), files=files, size_bytes=len(content), window=window)


def triton_config(name: str, model: onnx.ModelProto, *, max_batch: int, gpu: bool) -> str:
    """Triton's `config.pbtxt` (protobuf text) for a model whose first dimension is the batch."""
    inputs = [_tensor(value, labels=False) for value in model.graph.input]
    outputs = [
        _tensor(value, labels=value.name in ("logits", "probabilities")) for value in model.graph.output
    ]
    kind = "KIND_GPU" if gpu else "KIND_CPU"
    return (
        f'name: "{name}"\n'
        'backend: "onnxruntime"\n'
        'default_model_filename: "model.onnx"\n'
        f"max_batch_size: {max_batch}\n"
        f"input [\n{','.join(inputs)}\n]\n"
        f"output [\n{','.join(outputs)}\n]\n"
        f"instance_group [\n  {{ count: 1 kind: {kind} }}\n]\n"
        f"dynamic_batching {{\n  max_queue_delay_microseconds: {_QUEUE_MICROSECONDS}\n}}\n"
    )


def _tensor(value: onnx.ValueInfoProto, *, labels: bool) -> str:
    kind = value.type.tensor_type
    dims = ", ".join(str(dim.dim_value or -1) for dim in kind.shape.dim[1:])
    named = '\n    label_filename: "labels.txt"' if labels else ""
    return f'  {{\n    name: "{value.name}"\n    data_type: {_TYPES[kind.elem_type]}\n    dims: [ {dims} ]{named}\n  }}'


def _model(bundle: Path, options: ServeOptions) -> tuple[str, bytes]:
    if options.softmax and options.top:
        raise ConfigError("--softmax and --top exclude each other: the best classes come with probabilities.")
    opened = open_bundle(bundle)
    variant = opened.variant(options.variant)
    content = opened.read(variant.member)
    bakes = options.uint8 and variant.input is InputForm.FLOAT32
    if not (bakes or options.softmax or options.top):
        return variant.name, content
    try:
        import onnx
    except ImportError as error:
        raise missing("onnx", purpose="to change the model") from error
    from edgetl.export.bake import bake_head, bake_preprocess

    model = onnx.load_from_string(content)
    if bakes:
        model = bake_preprocess(model, opened.manifest.preprocess)
    model = bake_head(model, _head(options), top=options.top)
    return variant.name, bytes(model.SerializeToString(deterministic=True))


def _head(options: ServeOptions) -> Head:
    from edgetl.export.bake import Head

    if options.top:
        return Head.TOP_K
    return Head.SOFTMAX if options.softmax else Head.LOGITS
