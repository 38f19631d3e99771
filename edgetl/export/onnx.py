"""A torch network as one clean ONNX model.

The graph has one input, `images` (batch, 3, S, S) float32, and the task's outputs by name, each (batch, C) float32:
`logits`, or one per head. The batch is free; by option height and width are free too. Branches that were made to be
merged are (`edgetl.models.fusing`), batch norms are folded into their convolutions, no constant is left that nothing
reads, and nothing of the machine that wrote the file, so that the same network gives the same bytes.

Two exporters of torch are used. The tracing one is ten times faster (0.3 to 1.2 s against 4 to 14 s for
common backbones); torch has deprecated it, and it ends at opset 20. So the one on `torch.export` takes over
where tracing is gone, fails, or does not know the opset.
"""

from __future__ import annotations

import copy
import io
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from edgetl._version import __version__
from edgetl.errors import ModelError
from edgetl.export.graphs import DECODE, drop_unread, set_nodes
from edgetl.export.origin import layer_of, operator_in
from edgetl.inputs.image import PreprocessSpec
from edgetl.models.fusing import merged
from edgetl.progress import SILENT, Progress
from edgetl.records.codec import to_json
from edgetl.tasks.all import task_of
from edgetl.tasks.base import Detection, TaskSpec, labels_of, widths
from edgetl.tasks.detection.task import BOXES, SCORES

INPUT = "images"
_SIDE_BY_SIDE = "heads/outputs"
"""The network's one output before it is split; no head's name holds a slash."""
LABELS_KEY = "edgetl.labels"
PREPROCESS_KEY = "edgetl.preprocess"
_LAST_TRACED_OPSET = 20


def to_onnx(
    model: nn.Module,
    *,
    task: TaskSpec,
    spec: PreprocessSpec,
    opset: int,
    dynamic_size: bool = False,
    progress: Progress = SILENT,
) -> onnx.ModelProto:
    """Export a network.

    Args:
        model: takes (N, 3, S, S) float32 with S = `spec.size`, gives (N, D): the task's outputs side by side. It is not
            changed.
        task: what it answers. Its labels are stored in the metadata as a JSON list under `edgetl.labels`.
        spec: stored in the metadata as JSON under `edgetl.preprocess`.
        opset: ONNX operator set.
        dynamic_size: leave height and width open too.
        progress: gets a warning where a network's branches cannot be merged.

    Raises:
        ModelError: the network cannot be exported (the operator and its layer are named), its output does not fit
            the task, or its code depends on a size that shall be open.
    """
    model, why_not = merged(copy.deepcopy(model).cpu().float().eval(), spec.size)
    if why_not:
        progress.warning(why_not)
    labels, detector = labels_of(task), isinstance(task, Detection)
    if detector and dynamic_size:
        raise ModelError("A detector is exported for images of one size; set export.dynamic_size = false.")
    shapes = _shapes(task, spec.size)
    output = next(iter(shapes)) if len(shapes) == 1 else _SIDE_BY_SIDE
    images = torch.zeros(2, 3, spec.size, spec.size)
    _check_output(model, images, shapes)
    free = {0: "batch"} | ({2: "height", 3: "width"} if dynamic_size else {})
    exported = _simplified(_exported(model, images, output, opset, free))
    _pool_instead_of_mean(exported.graph, _ranks(exported))
    drop_unread(exported.graph)
    if detector:
        _decode(exported.graph, spec.size, shapes)
    elif len(shapes) > 1:
        _split(exported.graph, {name: width for name, (width,) in shapes.items()})
    _strip(exported)
    exported.producer_name, exported.producer_version = "edgetl", __version__
    metadata = {
        LABELS_KEY: json.dumps(list(labels), ensure_ascii=False),
        PREPROCESS_KEY: json.dumps(to_json(spec), sort_keys=True),
    }
    onnx.helper.set_model_props(exported, metadata)
    _check(exported, shapes, free=free)
    if dynamic_size:
        _check_other_size(model, exported, task, spec.size)
    return exported


def _shapes(task: TaskSpec, size: int) -> dict[str, tuple[int, ...]]:
    """The task's outputs in order, and each one's shape without the batch."""
    if isinstance(task, Detection):
        from edgetl.models.detector import places

        count = len(places(size)[0])
        return {BOXES: (count, 4), SCORES: (count, len(task.labels))}
    return {name: (width,) for name, width in widths(task_of(task)).items()}


def to_bytes(model: onnx.ModelProto) -> bytes:
    """The model as the bytes of an .onnx file; equal models give equal bytes."""
    return bytes(model.SerializeToString(deterministic=True))


def _check_output(model: nn.Module, images: torch.Tensor, shapes: Mapping[str, tuple[int, ...]]) -> None:
    name = type(model).__name__
    try:
        with torch.inference_mode():
            found = model(images)
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        raise ModelError(
            f"{name} does not take images of shape {tuple(images.shape)}: {_first_line(error)}"
        ) from error
    *places, _ = next(iter(shapes.values()))
    expected = (images.shape[0], *places, sum(shape[-1] for shape in shapes.values()))
    if not isinstance(found, torch.Tensor) or tuple(found.shape) != expected:
        came = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise ModelError(
            f"{name} gives {came} for two images, expected {' and '.join(shapes)} {expected}: one per label."
        )


def _exported(
    model: nn.Module, images: torch.Tensor, output: str, opset: int, free: Mapping[int, str]
) -> onnx.ModelProto:
    if opset <= _LAST_TRACED_OPSET:
        try:
            return _traced(model, images, output, opset, free)
        except Exception as error:
            try:
                return _from_torch_export(model, images, output, opset, free)
            except Exception:
                raise _refusal(model, images, error) from error
    try:
        return _from_torch_export(model, images, output, opset, free)
    except Exception as error:
        raise _refusal(model, images, error) from error


def _traced(
    model: nn.Module, images: torch.Tensor, output: str, opset: int, free: Mapping[int, str]
) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder, _quiet(), _padding_in_integers():
        file = Path(folder) / "model.onnx"
        torch.onnx.export(
            model,
            (images,),
            file,
            input_names=[INPUT],
            output_names=[output],
            opset_version=opset,
            dynamo=False,
            dynamic_axes={INPUT: dict(free), output: {0: "batch"}},
        )
        return onnx.load(file)


def _from_torch_export(
    model: nn.Module, images: torch.Tensor, output: str, opset: int, free: Mapping[int, str]
) -> onnx.ModelProto:
    with _quiet():
        program = torch.onnx.export(
            model,
            (images,),
            None,
            input_names=[INPUT],
            output_names=[output],
            opset_version=opset,
            dynamo=True,
            dynamic_shapes=({axis: torch.export.Dim(name) for axis, name in free.items()},),
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    return program.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' chatter and their own deprecations away from the user.

    A failed trace dumps its whole graph from C++, so the file descriptor is silenced too, where there is one.
    """
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        warnings.simplefilter("ignore")
        try:
            kept = os.dup(1)
        except OSError:
            yield
            return
        os.dup2(nowhere.fileno(), 1)
        try:
            yield
        finally:
            os.dup2(kept, 1)
            os.close(kept)


@contextmanager
def _padding_in_integers() -> Iterator[None]:
    """timm's SAME padding rounds a quotient up; traced, the quotient becomes an integer's and is rounded down before.

    In integers alone the graph pads right at every size, also where a stride does not divide the side.
    """
    padding: Any = sys.modules.get("timm.layers.padding")
    if padding is None:
        yield
        return
    whole = padding.get_same_padding

    def in_integers(x: Any, kernel_size: int, stride: int, dilation: int) -> Any:
        if not isinstance(x, torch.Tensor):
            return whole(x, kernel_size, stride, dilation)
        last = (x + (stride - 1)) // stride - 1
        return torch.clamp(last * stride + (kernel_size - 1) * dilation + 1 - x, min=0)

    padding.get_same_padding = in_integers
    try:
        yield
    finally:
        padding.get_same_padding = whole


def _refusal(model: nn.Module, images: torch.Tensor, error: Exception) -> ModelError:
    name, reason = type(model).__name__, _first_line(error)
    operator = operator_in(str(error))
    if operator and (layer := layer_of(model, images, operator)):
        return ModelError(
            f"{name} cannot be exported to ONNX: the operator {operator} in layer {layer} has no ONNX form here."
            f" {reason} Replace that operation, or choose another backbone."
        )
    return ModelError(
        f"{name} cannot be exported to ONNX: {reason} "
        "Replace the operation that is named, or choose another backbone."
    )


def _simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnxslim

    with _quiet():
        slim: onnx.ModelProto = onnxslim.slim(model)
    return slim


def _pool_instead_of_mean(graph: onnx.GraphProto, ranks: Mapping[str, int]) -> None:
    """Write a mean over height and width as GlobalAveragePool, which engines have in INT8."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        if node.op_type != "ReduceMean" or len(node.input) != 2 or node.input[1] not in constants:
            continue
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        axes = sorted(onnx.numpy_helper.to_array(constants[node.input[1]]).tolist())
        if axes not in ([2, 3], [-2, -1]) or ranks.get(node.input[0]) != 4:
            continue
        node.op_type = "GlobalAveragePool"
        del node.attribute[:]
        del node.input[1:]
        if attributes.get("keepdims", 1) == 0:
            result, node.output[0] = node.output[0], f"{node.output[0]}_pooled"
            nodes.append(onnx.helper.make_node("Flatten", [node.output[0]], [result], f"{node.name}_flatten"))
    set_nodes(graph, nodes)


def _ranks(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.value_info, *inferred.input)
    return {value.name: len(value.type.tensor_type.shape.dim) for value in values}


def _split(graph: onnx.GraphProto, outputs: Mapping[str, int]) -> None:
    """Part the outputs that stand side by side into the task's."""
    whole = graph.output[0]
    batch = whole.type.tensor_type.shape.dim[0]
    sizes = "heads/widths"
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(list(outputs.values()), np.int64), sizes))
    graph.node.append(
        onnx.helper.make_node("Split", [whole.name, sizes], list(outputs), "heads/Split", axis=1)
    )
    del graph.output[:]
    graph.output.extend(
        onnx.helper.make_tensor_value_info(
            name, onnx.TensorProto.FLOAT, [batch.dim_param or batch.dim_value, width]
        )
        for name, width in outputs.items()
    )


def _flatten_maps(graph: onnx.GraphProto, channels: int) -> None:
    """Say the shape of flattened maps (N, channels, H * W) outright, which tracing works out from the maps anew."""
    shape = f"{DECODE}flat"
    makers = {name: node for node in graph.node for name in node.output}
    joined = makers[makers[graph.output[0].name].input[0]]
    for name in joined.input:
        if makers[name].op_type == "Reshape":
            makers[name].input[1] = shape
            del makers[name].attribute[:]  # with allowzero, 0 would not be the batch
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([0, channels, -1], np.int64), shape))
    drop_unread(graph)


def _decode(graph: onnx.GraphProto, size: int, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raw maps become boxes and scores, as `edgetl.models.detector.boxes_of` computes them.

    The nodes' names begin with `DECODE`, so that quantization leaves them in float.
    """
    from edgetl.models.detector import FARTHEST, places

    maps = graph.output[0]
    batch = maps.type.tensor_type.shape.dim[0]
    _flatten_maps(graph, sum(shape[-1] for shape in shapes.values()))
    centres, strides = (tensor.numpy() for tensor in places(size))
    constants = {
        "centres": centres,
        "strides": strides,
        "farthest": np.array(FARTHEST, np.float32),
        **{f"at{n}": np.array([n], np.int64) for n in (0, 2, 4)},
        "end": np.array([np.iinfo(np.int64).max], np.int64),
    }
    for name, values in constants.items():
        graph.initializer.append(onnx.numpy_helper.from_array(values, f"{DECODE}{name}"))

    def node(kind: str, inputs: list[str], result: str, **attributes: Any) -> str:
        graph.node.append(
            onnx.helper.make_node(
                kind, inputs, [result], f"{DECODE}{kind}_{result.rpartition('/')[2]}", **attributes
            )
        )
        return result

    def part(tensor: str, start: str, end: str, result: str) -> str:
        bounds = [f"{DECODE}{start}", f"{DECODE}{end}", f"{DECODE}at2"]
        return node("Slice", [tensor, *bounds], f"{DECODE}{result}")

    distances = part(maps.name, "at0", "at4", "distances")
    near = node("Min", [distances, f"{DECODE}farthest"], f"{DECODE}near")
    steps = node("Exp", [near], f"{DECODE}steps")
    reach = node("Mul", [steps, f"{DECODE}strides"], f"{DECODE}reach")
    low = node("Sub", [f"{DECODE}centres", part(reach, "at0", "at2", "before")], f"{DECODE}low")
    high = node("Add", [f"{DECODE}centres", part(reach, "at2", "at4", "behind")], f"{DECODE}high")
    node("Concat", [low, high], BOXES, axis=2)
    node("Sigmoid", [part(maps.name, "at4", "end", "logits")], SCORES)
    del graph.output[:]
    graph.output.extend(
        onnx.helper.make_tensor_value_info(
            name, onnx.TensorProto.FLOAT, [batch.dim_param or batch.dim_value, *shape]
        )
        for name, shape in shapes.items()
    )


def _strip(model: onnx.ModelProto) -> None:
    """Remove what names the machine, of the source code, or only repeats what can be inferred."""
    graph = model.graph
    graph.name = "edgetl"
    del model.functions[:], model.metadata_props[:], graph.metadata_props[:], graph.value_info[:]
    for item in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        item.doc_string = ""
    for item in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        del item.metadata_props[:]


def _check(
    model: onnx.ModelProto, outputs: Mapping[str, tuple[int, ...]], *, free: Mapping[int, str]
) -> None:
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"The exported graph is not valid ONNX: {_first_line(error)}") from error
    graph = model.graph
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    if list(shapes) != [INPUT, *outputs] or any(
        shapes[name][1:] != list(shape) for name, shape in outputs.items()
    ):
        expected = ", ".join(
            f"{name} (batch, {', '.join(map(str, shape))})" for name, shape in outputs.items()
        )
        raise ModelError(f"The exported graph has {shapes}, expected {INPUT} and {expected}.")
    fixed = [name for axis, name in free.items() if not isinstance(shapes[INPUT][axis], str)]
    if not all(isinstance(shapes[name][0], str) for name in outputs) and "batch" not in fixed:
        fixed.insert(0, "batch")
    if fixed:
        listed = " and ".join(fixed)
        raise ModelError(
            f"The exported graph has a fixed {listed}: the network's code depends on the {listed}."
        )


def _check_other_size(model: nn.Module, exported: onnx.ModelProto, task: TaskSpec, size: int) -> None:
    """A size can be open in the graph's input and yet be baked in further on; another size shows it."""
    from edgetl.export.parity import check

    side = size + 32
    images = np.random.default_rng(0).normal(size=(1, 3, side, side)).astype(np.float32)
    try:
        check(model, to_bytes(exported), [images], task=task_of(task), max_difference=1e-2)
    except (ModelError, RuntimeError, ValueError, AssertionError, TypeError) as error:
        raise ModelError(
            f"{type(model).__name__} cannot be exported with an open image size: at {side} px instead of {size},"
            f" {_first_line(error)} Set export.dynamic_size = false."
        ) from error


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    line = text.splitlines()[0].strip()
    return line if line.endswith((".", "!", "?")) else f"{line}."
