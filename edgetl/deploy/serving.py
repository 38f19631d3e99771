"""A bundle's model for other runtimes: one ONNX or .tflite file, or a model repository for NVIDIA Triton.

The repository's layout is Triton's: `NAME/config.pbtxt`, `NAME/labels.txt` (of several heads one `labels-HEAD.txt`
each), `NAME/1/model.onnx`, for its ONNX Runtime backend (Triton Inference Server, "Model Repository" and "Model
Configuration").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from edgetl.bundle.archive import Bundle, open_bundle
from edgetl.bundle.manifest import InputForm, ModelFormat
from edgetl.data.labels import fault
from edgetl.errors import BundleError, ConfigError, ModelError
from edgetl.files import write_bytes, write_text
from edgetl.packages import missing
from edgetl.records.variants import ServeRecord, SpectrogramParity
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
        samples: of sounds, take (N, samples) float32, a window at the bundle's rate, and make the picture inside.
        softmax: give probabilities in place of logits, whether one or several classes are true of an image.
        top: give the so many best classes with their probabilities; 0 gives all.
        nms: of a detector, give boxes without duplicates; see `edgetl.export.bake.bake_nms`.
    """

    variant: str | None = None
    uint8: bool = False
    samples: bool = False
    softmax: bool = False
    top: int = 0
    nms: bool = False


def write_onnx(bundle: Path, options: ServeOptions, out: Path) -> ServeRecord:
    """Write a variant as one ONNX file.

    Raises:
        BundleError: the bundle cannot be used or has no such variant.
        ConfigError: options contradict each other, or `samples` is asked of a model of images.
        ModelError: there are fewer classes than `top`; the model is a detector, which has no probabilities to give; or
            it is none, and has no duplicates to remove; or the picture that the model makes is not numpy's.
        MissingDependencyError: onnx is absent, and the model shall be changed.
        StorageError: the file cannot be written.
    """
    made = _model(bundle, options)
    write_bytes(out, made.content)
    return made.record(out, out.name)


def write_litert(bundle: Path, options: ServeOptions, out: Path) -> ServeRecord:
    """Write a variant as one .tflite file; see `edgetl.export.litert.convert.to_tflite` for what it takes and gives.

    Raises:
        As `write_onnx`.
        ModelError: an operator of the model has no counterpart, or a size is open.
        MissingDependencyError: onnx or `ai-edge-litert` is absent.
    """
    opened = open_bundle(bundle)
    variant = opened.variant(options.variant)
    if variant.format is ModelFormat.TFLITE and not (options.softmax or options.uint8):
        made = _Made(variant.name, opened.read(variant.member), opened.manifest.preprocess.window)
        write_bytes(out, made.content)
        return made.record(out, out.name)
    made = _model(bundle, options)
    try:
        import onnx
    except ImportError as error:
        raise missing("onnx", purpose="to read the model,") from error
    from edgetl.export.litert.convert import to_tflite

    made = replace(made, content=to_tflite(onnx.load_from_string(made.content)))
    write_bytes(out, made.content)
    return made.record(out, out.name)


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
    made = _model(bundle, options)
    folder = out / opened.manifest.name
    write_bytes(folder / VERSION / "model.onnx", made.content)
    labels = _label_files(opened.manifest.task)
    for file, names in labels.values():
        write_text(folder / file, "".join(f"{label}\n" for label in names))
    config = triton_config(
        opened.manifest.name,
        onnx.load_from_string(made.content),
        label_files={output: file for output, (file, _) in labels.items()},
        max_batch=max_batch,
        gpu=gpu,
    )
    write_text(folder / "config.pbtxt", config)
    return made.record(
        folder, "config.pbtxt", *(file for file, _ in labels.values()), f"{VERSION}/model.onnx"
    )


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


@dataclass(frozen=True)
class _Made:
    """A variant's name and its model's file, and what goes before it."""

    variant: str
    content: bytes
    window: tuple[float, float] | None
    spectrogram: SpectrogramParity | None = None

    def record(self, path: Path, *files: str) -> ServeRecord:
        return ServeRecord(
            variant=self.variant,
            path=str(path),
            files=files,
            size_bytes=len(self.content),
            window=self.window,
            spectrogram=self.spectrogram,
        )


def _model(bundle: Path, options: ServeOptions) -> _Made:
    if options.softmax and options.top:
        raise ConfigError("--softmax and --top exclude each other: the best classes come with probabilities.")
    if options.nms and (options.softmax or options.top):
        raise ConfigError("--nms is for detectors, --softmax and --top are for labels: give one of them.")
    if options.uint8 and options.samples:
        raise ConfigError(
            "--uint8 takes pictures, --samples the sounds that they are made of: give one of them."
        )
    opened = open_bundle(bundle)
    variant, spec = opened.variant(options.variant), opened.manifest.preprocess
    if options.samples and spec.sound is None:
        raise ConfigError(
            "--samples is for sounds, and the bundle looks at images; leave it out, or take --uint8."
        )
    content = opened.read(variant.member)
    if variant.format is not ModelFormat.ONNX:
        raise BundleError(
            f"{variant.name} is a file of the format {variant.format}, and ONNX is written of ONNX alone. Name another"
            " variant with --variant."
        )
    if options.samples and variant.input is not InputForm.FLOAT32:
        raise BundleError(
            f"{variant.name} takes pictures and normalises inside, and --samples needs a variant that takes normalised"
            " ones. Name another variant with --variant."
        )
    bakes = options.uint8 and variant.input is InputForm.FLOAT32
    if not (bakes or options.samples or options.softmax or options.top or options.nms):
        return _Made(variant.name, content, spec.window)
    try:
        import onnx
    except ImportError as error:
        raise missing("onnx", purpose="to change the model") from error
    from edgetl.export.bake import bake_form, bake_nms, bake_preprocess, bake_spectrogram

    model, parity = onnx.load_from_string(content), None
    if bakes:
        model = bake_preprocess(model, spec)
    if options.samples:
        plain, model = model, bake_spectrogram(model, spec)
        parity = _parity(opened, plain, model)
    task = opened.manifest.task
    model = bake_nms(model, task) if options.nms else bake_form(model, task, _form(options), top=options.top)
    return _Made(variant.name, bytes(model.SerializeToString(deterministic=True)), spec.window, parity)


def _parity(opened: Bundle, plain: onnx.ModelProto, baked: onnx.ModelProto) -> SpectrogramParity:
    """What a model makes of the golden recordings beside numpy's pictures and the model that takes these.

    Raises:
        ModelError: a pixel is further off than arithmetic may be.
    """
    import numpy as np

    from edgetl.export.bake import PICTURE
    from edgetl.export.graphs import Probe
    from edgetl.export.spectrogram import most_steps
    from edgetl.inputs.image import normalise, to_pixels
    from edgetl.inputs.sound import load_mono, windowed
    from edgetl.tasks.all import task_of

    spec, task = opened.manifest.preprocess, task_of(opened.manifest.task)
    sound = spec.sound
    assert sound is not None
    windows = np.stack([windowed(load_mono(one, sound), sound.samples) for one in opened.golden_images()])
    pixels = np.stack([to_pixels(window, spec) for window in windows])
    names = [output.name for output in task.outputs]
    picture, *found = Probe(baked, [PICTURE, *names]).run(windows)
    expected = Probe(plain, names).run(normalise(pixels, spec))
    steps = np.abs(picture[:, 0] - pixels[..., 0]).max(axis=(1, 2))
    limit, worst = most_steps(spec), int(steps.argmax())
    if steps[worst] > limit:
        raise ModelError(
            f"The picture that the graph makes of golden recording {worst} is {steps[worst]:.0f} of 255 from the"
            f" bundle's, allowed {limit}: its float32 cannot hold {sound.range_db:g} dB. Leave --samples out, or train"
            " with a smaller sound.range_db."
        )
    same = task.right(
        task.decide(dict(zip(names, expected, strict=True))),
        task.decide(dict(zip(names, found, strict=True))),
    )
    return SpectrogramParity(
        recordings=len(windows),
        steps=int(steps[worst]),
        limit=limit,
        same=float(same.mean()),
        rate=sound.rate,
        samples=sound.samples,
    )


def _form(options: ServeOptions) -> OutputForm:
    from edgetl.export.bake import OutputForm

    if options.top:
        return OutputForm.TOP_K
    return OutputForm.PROBABILITIES if options.softmax else OutputForm.LOGITS
