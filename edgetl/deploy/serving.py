"""A bundle's model for other runtimes: one ONNX or .tflite file, or a model repository for NVIDIA Triton.

The repository's layout is Triton's: `NAME/config.pbtxt`, `NAME/labels.txt` (of several heads one `labels-HEAD.txt`
each), `NAME/1/model.onnx`, for its ONNX Runtime backend (Triton Inference Server, "Model Repository" and "Model
Configuration").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from edgetl.bundle.archive import open_bundle
from edgetl.bundle.manifest import InputForm, ModelFormat
from edgetl.data.labels import fault
from edgetl.errors import BundleError, ConfigError
from edgetl.files import write_bytes, write_text
from edgetl.packages import missing
from edgetl.records.variants import ServeRecord
from edgetl.tasks.base import LOGITS, Classification, Detection, MultiHead, MultiLabel, TaskSpec
from edgetl.tasks.detection.task import SCORES

if TYPE_CHECKING:
    import onnx

    from edgetl.export.bake import OutputForm

_TYPES = {1: "TYPE_FP32", 2: "TYPE_UINT8", 7: "TYPE_INT64"}  # onnx.TensorProto's numbers
_QUEUE_MICROSECONDS = 1000
VERSION = "1"


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """What the file shall take and give.

    Attributes:
        variant: the model; the bundle's default one where unset.
        uint8: take (N, S, S, 3) uint8 pictures and normalise inside.
        softmax: give probabilities in place of logits, whether one or several classes are true of an image.
        top: give the so many best classes with their probabilities; 0 gives all.
        nms: of a detector, give boxes without duplicates; see `edgetl.export.bake.bake_nms`.
    """

    variant: str | None = None
    uint8: bool = False
    softmax: bool = False
    top: int = 0
    nms: bool = False


def write_onnx(bundle: Path, options: ServeOptions, out: Path) -> ServeRecord:
    """Write a variant as one ONNX file.

    Raises:
        BundleError: the bundle cannot be used or has no such variant.
        ConfigError: softmax and top are both asked for.
        ModelError: there are fewer classes than `top`; the model is a detector, which has no probabilities to give; or
            it is none, and has no duplicates to remove.
        MissingDependencyError: onnx is absent, and the model shall be changed.
        StorageError: the file cannot be written.
    """
    name, content = _model(bundle, options)
    write_bytes(out, content)
    window = open_bundle(bundle).manifest.preprocess.window
    return ServeRecord(variant=name, path=str(out), files=(out.name,), size_bytes=len(content), window=window)


def write_litert(bundle: Path, options: ServeOptions, out: Path) -> ServeRecord:
    """Write a variant as one .tflite file; see `edgetl.export.litert.convert.to_tflite` for what it takes and gives.

    Raises:
        As `write_onnx`.
        ModelError: an operator of the model has no counterpart, or a size is open.
        MissingDependencyError: onnx or `ai-edge-litert` is absent.
    """
    opened = open_bundle(bundle)
    variant = opened.variant(options.variant)
    window = opened.manifest.preprocess.window
    if variant.format is ModelFormat.TFLITE and not (options.softmax or options.uint8):
        content = opened.read(variant.member)
        write_bytes(out, content)
        return ServeRecord(
            variant=variant.name, path=str(out), files=(out.name,), size_bytes=len(content), window=window
        )
    name, content = _model(bundle, options)
    try:
        import onnx
    except ImportError as error:
        raise missing("onnx", purpose="to read the model,") from error
    from edgetl.export.litert.convert import to_tflite

    content = to_tflite(onnx.load_from_string(content))
    write_bytes(out, content)
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
        BundleError: a label holds a line break, which would move every later one in its file; nothing is written.
    """
    import onnx

    opened = open_bundle(bundle)
    faults = [found for label in opened.manifest.labels if (found := fault(label))]
    if faults:
        raise BundleError(
            f"{bundle.name} cannot be written for Triton, which reads one label per line: {'; '.join(faults[:3])}. Name"
            " the class otherwise and make the bundle again."
        )
    name, content = _model(bundle, options)
    folder = out / opened.manifest.name
    write_bytes(folder / VERSION / "model.onnx", content)
    labels = _label_files(opened.manifest.task)
    for file, names in labels.values():
        write_text(folder / file, "".join(f"{label}\n" for label in names))
    config = triton_config(
        opened.manifest.name,
        onnx.load_from_string(content),
        label_files={output: file for output, (file, _) in labels.items()},
        max_batch=max_batch,
        gpu=gpu,
    )
    write_text(folder / "config.pbtxt", config)
    files = ("config.pbtxt", *(file for file, _ in labels.values()), f"{VERSION}/model.onnx")
    window = opened.manifest.preprocess.window
    return ServeRecord(variant=name, path=str(folder), files=files, size_bytes=len(content), window=window)


def _label_files(task: TaskSpec) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Of each output that has a value per class: the file of the classes' names, and these."""
    match task:
        case Classification() | MultiLabel():
            return {LOGITS: ("labels.txt", task.labels)}
        case MultiHead():
            return {name: (f"labels-{name}.txt", head.labels) for name, head in task.heads.items()}
        case Detection():
            return {SCORES: ("labels.txt", task.labels)}
        case _:
            assert_never(task)


def triton_config(
    name: str, model: onnx.ModelProto, *, label_files: Mapping[str, str], max_batch: int, gpu: bool
) -> str:
    """Triton's `config.pbtxt` (protobuf text) for a model whose first dimension is the batch.

    Args:
        name: of the model.
        model: the model.
        label_files: the file of the classes' names by the name of the task's output; it goes for that output and for
            its probabilities.
        max_batch: the largest batch.
        gpu: run it on GPUs.
    """
    from edgetl.export.bake import named

    files = {n: f for output, f in label_files.items() for n in (output, named(output, "probabilities"))}
    inputs = [_tensor(value, None) for value in model.graph.input]
    outputs = [_tensor(value, files.get(value.name)) for value in model.graph.output]
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


def _tensor(value: onnx.ValueInfoProto, labels: str | None) -> str:
    kind = value.type.tensor_type
    dims = ", ".join(str(dim.dim_value or -1) for dim in kind.shape.dim[1:])
    # Triton names the best classes of a vector alone, not of every box's.
    file = f'\n    label_filename: "{labels}"' if labels and len(kind.shape.dim) == 2 else ""
    return f'  {{\n    name: "{value.name}"\n    data_type: {_TYPES[kind.elem_type]}\n    dims: [ {dims} ]{file}\n  }}'


def _model(bundle: Path, options: ServeOptions) -> tuple[str, bytes]:
    if options.softmax and options.top:
        raise ConfigError("--softmax and --top exclude each other: the best classes come with probabilities.")
    if options.nms and (options.softmax or options.top):
        raise ConfigError("--nms is for detectors, --softmax and --top are for labels: give one of them.")
    opened = open_bundle(bundle)
    variant = opened.variant(options.variant)
    content = opened.read(variant.member)
    if variant.format is not ModelFormat.ONNX:
        raise BundleError(
            f"{variant.name} is a file of the format {variant.format}, and ONNX is written of ONNX alone. Name another"
            " variant with --variant."
        )
    bakes = options.uint8 and variant.input is InputForm.FLOAT32
    if not (bakes or options.softmax or options.top or options.nms):
        return variant.name, content
    try:
        import onnx
    except ImportError as error:
        raise missing("onnx", purpose="to change the model") from error
    from edgetl.export.bake import bake_form, bake_nms, bake_preprocess

    model = onnx.load_from_string(content)
    if bakes:
        model = bake_preprocess(model, opened.manifest.preprocess)
    task = opened.manifest.task
    model = bake_nms(model, task) if options.nms else bake_form(model, task, _form(options), top=options.top)
    return variant.name, bytes(model.SerializeToString(deterministic=True))


def _form(options: ServeOptions) -> OutputForm:
    from edgetl.export.bake import OutputForm

    if options.top:
        return OutputForm.TOP_K
    return OutputForm.PROBABILITIES if options.softmax else OutputForm.LOGITS
