"""Put what stands before and behind a network into its graph, for runtimes that know nothing of preprocessing.

Before: the model then takes pictures as a camera gives them, `images` (batch, S, S, 3) uint8 RGB, and normalises
inside; or `samples` (batch, N) float32, a window of a sound, of which it makes the picture. Behind: probabilities, or
the K best classes, in place of logits; of a detector its boxes without duplicates. Works on any exported graph:
float32, half precision, INT8.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, assert_never

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgetl.errors import ModelError
from edgetl.export.graphs import all_nodes, copy_of, set_nodes
from edgetl.export.spectrogram import Drawing
from edgetl.inputs.image import PreprocessSpec
from edgetl.tasks.base import LOGITS, Classification, Detection, MultiHead, MultiLabel, TaskSpec
from edgetl.tasks.detection.task import BOXES, SCORES

PREFIX = "preprocess"
"""Names of baked nodes and constants start so."""
SAMPLES, PICTURE = "samples", f"{PREFIX}/picture"
"""The input of a model that makes the picture of a sound itself, and that picture: (batch, 1, S, S), 0..255."""
_NORMALISED = f"{PREFIX}/normalised"
DETECTIONS = "detections"
"""The output of a detector that removes duplicates itself."""
_COLUMNS = {"image": [0], "class": [1], "box": [0, 2], "score": [0, 2, 1]}
"""What of (image, class, place) finds each part of a detection."""


class OutputForm(StrEnum):
    """What a model puts out, of each head where there are several.

    `logits`: as exported, (batch, C) float32; `probabilities` (batch, C) float32; `top-k`: `scores` (batch, K) float32,
    best first, and `classes` (batch, K) int64.
    """

    LOGITS = "logits"
    PROBABILITIES = "probabilities"
    TOP_K = "top-k"


def bake_preprocess(model: onnx.ModelProto, spec: PreprocessSpec) -> onnx.ModelProto:
    """A copy that takes (batch, S, S, 3) uint8 RGB in place of (batch, 3, S, S) float32, which it makes itself.

    Pictures are of 8 bits: numbers of more become such before the model, by `spec.window`, as everywhere; the exported
    metadata has it. The arithmetic is `edgetl.inputs.spec.normalise`'s: one product and one sum per channel, in
    float32. The cast comes first, since TensorRT takes uint8 at a network's border only.

    Raises:
        ModelError: the model does not take (batch, 3, H, W) float32.
    """
    copy, (batch, height, width) = _opened(model)
    graph = copy.graph
    images = graph.input[0]
    names = {name: f"{PREFIX}/{name}" for name in ("float", "planes")}
    steps = [
        helper.make_node("Cast", [images.name], [names["float"]], f"{PREFIX}/Cast", to=TensorProto.FLOAT),
        helper.make_node(
            "Transpose", [names["float"]], [names["planes"]], f"{PREFIX}/Transpose", perm=[0, 3, 1, 2]
        ),
    ]
    _put_before(graph, steps, names["planes"], spec)
    images.CopyFrom(helper.make_tensor_value_info(images.name, TensorProto.UINT8, [batch, height, width, 3]))
    return _checked(copy)


def bake_spectrogram(model: onnx.ModelProto, spec: PreprocessSpec) -> onnx.ModelProto:
    """A copy that takes `samples` (batch, N) float32, a window at the spec's rate, in place of normalised pictures.

    It makes the picture as `edgetl.inputs.sound` does, within `edgetl.export.spectrogram.most_steps` of 255, and
    normalises it. What comes before is its caller's: one channel, the rate, and of a longer recording the loudest
    window, a shorter one in the middle of silence.

    Raises:
        ModelError: the model does not take (batch, 3, H, W) float32, or the spec is of images.
    """
    copy, (batch, _, _) = _opened(model)
    drawing = Drawing(spec, source=SAMPLES, picture=PICTURE, prefix=PREFIX)
    assert spec.sound is not None
    copy.graph.initializer.extend(drawing.constants)
    _put_before(copy.graph, drawing.nodes, PICTURE, spec)
    copy.graph.input[0].CopyFrom(
        helper.make_tensor_value_info(SAMPLES, TensorProto.FLOAT, [batch, spec.sound.samples])
    )
    return _checked(copy)


def _opened(model: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[int | str, int | str, int | str]]:
    """A copy whose nodes read `_NORMALISED` in place of the input, and the input's batch, height and width.

    Raises:
        ModelError: the model does not take (batch, 3, H, W) float32.
    """
    copy = copy_of(model)
    images = copy.graph.input[0]
    kind = images.type.tensor_type
    dims = [dim.dim_param or dim.dim_value for dim in kind.shape.dim]
    if len(dims) != 4 or dims[1] != 3 or kind.elem_type != TensorProto.FLOAT:
        raise ModelError(
            f"{images.name} is {dims}, expected (batch, 3, H, W) float32 to bake preprocessing into."
        )
    for node in all_nodes(copy.graph):
        for position, name in enumerate(node.input):
            if name == images.name:
                node.input[position] = _NORMALISED
    return copy, (dims[0], dims[2], dims[3])


def _put_before(
    graph: onnx.GraphProto, steps: Sequence[onnx.NodeProto], planes: str, spec: PreprocessSpec
) -> None:
    """Nodes, which make `planes` (batch, 3 or 1, H, W) float32 in 0..255, and behind them those that normalise it."""
    means, stds = np.array(spec.mean, np.float64), np.array(spec.std, np.float64)
    constants = {"scale": 1.0 / (255.0 * stds), "shift": -means / stds}
    names = {name: f"{PREFIX}/{name}" for name in ("scaled", *constants)}
    last = [
        helper.make_node("Mul", [planes, names["scale"]], [names["scaled"]], f"{PREFIX}/Scale"),
        helper.make_node("Add", [names["scaled"], names["shift"]], [_NORMALISED], f"{PREFIX}/Shift"),
    ]
    set_nodes(graph, [*steps, *last, *graph.node])
    graph.initializer.extend(
        numpy_helper.from_array(value.astype(np.float32).reshape(1, 3, 1, 1), names[name])
        for name, value in constants.items()
    )


def bake_form(model: onnx.ModelProto, task: TaskSpec, form: OutputForm, *, top: int = 5) -> onnx.ModelProto:
    """A copy that puts out `form`; see `OutputForm` for shapes and `named` for the outputs' names.

    A head of one class per image gets a softmax, one of several classes a sigmoid for each.

    Args:
        model: puts out the task's outputs.
        task: what it answers.
        form: what it shall put out.
        top: K, for `OutputForm.TOP_K`; at most C.

    Raises:
        ModelError: an output is missing, there are not so many classes, or the task's outputs have no such form.
    """
    copy = copy_of(model)
    if form is OutputForm.LOGITS:
        return copy
    graph, outputs = copy.graph, list[onnx.ValueInfoProto]()
    given = {value.name: value for value in model.graph.output}
    for name, operator in _operators(task).items():
        if name not in given:
            raise ModelError(f"The model has no output {name!r}; it has {', '.join(given)}.")
        batch, classes = (d.dim_param or d.dim_value for d in given[name].type.tensor_type.shape.dim)
        prefix = "head" if name == LOGITS else f"head/{name}"
        match form:
            case OutputForm.PROBABILITIES:
                result = named(name, "probabilities")
                graph.node.append(_activation(operator, name, result, prefix))
                outputs.append(helper.make_tensor_value_info(result, TensorProto.FLOAT, [batch, classes]))
            case OutputForm.TOP_K:
                if not 1 <= top <= classes:
                    where = "the model" if name == LOGITS else name
                    raise ModelError(f"top: got {top}, {where} has {classes} classes.")
                shares, count = f"{prefix}/probabilities", f"{prefix}/k"
                graph.node.append(_activation(operator, name, shares, prefix))
                graph.initializer.append(numpy_helper.from_array(np.array([top], np.int64), count))
                best = [named(name, "scores"), named(name, "classes")]
                graph.node.append(helper.make_node("TopK", [shares, count], best, f"{prefix}/TopK"))
                kinds = (TensorProto.FLOAT, TensorProto.INT64)
                outputs += [
                    helper.make_tensor_value_info(result, kind, [batch, top])
                    for result, kind in zip(best, kinds, strict=True)
                ]
            case _:
                assert_never(form)
    del graph.output[:]
    graph.output.extend(outputs)
    return _checked(copy)


def bake_nms(model: onnx.ModelProto, task: TaskSpec) -> onnx.ModelProto:
    """A copy of a detector that removes duplicates itself, by ONNX's operator NonMaxSuppression.

    It puts out `detections` (M, 7) float32, M boxes of all images of the batch together: the image's position in the
    batch, x1, y1, x2, y2 in pixels of the input, the score, the class's position. They are ordered by image, class and
    score. Threshold, overlap and the most boxes, here of each class, are the task's.

    ONNX Runtime and OpenVINO take the operator; TensorRT-RTX refuses it.

    Raises:
        ModelError: it is no detector, or an output is missing.
    """
    if not isinstance(task, Detection):
        raise ModelError("Only a detector has boxes to remove duplicates of; leave --nms out.")
    copy = copy_of(model)
    graph, there = copy.graph, {value.name for value in model.graph.output}
    if lacking := {BOXES, SCORES} - there:
        raise ModelError(f"The model has no output {min(lacking)!r}; it has {', '.join(sorted(there))}.")

    def constant(name: str, value: NDArray[Any]) -> str:
        graph.initializer.append(numpy_helper.from_array(value, f"nms/{name}"))
        return f"nms/{name}"

    def node(operator: str, inputs: list[str], result: str, **attributes: Any) -> str:
        graph.node.append(
            helper.make_node(operator, inputs, [result], f"nms/{operator}/{result}", **attributes)
        )
        return result

    by_class = node("Transpose", [SCORES], "nms/by_class", perm=[0, 2, 1])
    limits = [
        constant("most", np.array([task.most], np.int64)),
        constant("overlap", np.array([task.overlap], np.float32)),
        constant("threshold", np.array([task.threshold], np.float32)),
    ]
    chosen = node(
        "NonMaxSuppression", [BOXES, by_class, *limits], "nms/chosen"
    )  # rows of (image, class, place)
    columns = {name: constant(name, np.array(which, np.int64)) for name, which in _COLUMNS.items()}
    picked = {name: node("Gather", [chosen, at], f"nms/{name}_of", axis=1) for name, at in columns.items()}
    boxes = node("GatherND", [BOXES, picked["box"]], "nms/boxes")
    scores = node("GatherND", [SCORES, picked["score"]], "nms/scores")
    parts = [
        node("Cast", [picked["image"]], "nms/image_float", to=TensorProto.FLOAT),
        boxes,
        node("Unsqueeze", [scores, constant("last", np.array([1], np.int64))], "nms/score_column"),
        node("Cast", [picked["class"]], "nms/class_float", to=TensorProto.FLOAT),
    ]
    node("Concat", parts, DETECTIONS, axis=1)
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(DETECTIONS, TensorProto.FLOAT, ["detections", 7]))
    return _checked(copy)


def named(output: str, what: str) -> str:
    """The name of a baked output: `what`, or `HEAD_what` where it is one of several heads'."""
    return what if output == LOGITS else f"{output}_{what}"


def _operators(task: TaskSpec) -> dict[str, str]:
    """The operator that makes probabilities of each output."""
    match task:
        case Classification():
            return {LOGITS: "Softmax"}
        case MultiLabel():
            return {LOGITS: "Sigmoid"}
        case MultiHead():
            return {name: _operators(head)[LOGITS] for name, head in task.heads.items()}
        case Detection():
            raise ModelError("A detector puts out boxes and scores; leave --softmax and --top out.")
        case _:
            assert_never(task)


def _activation(operator: str, source: str, result: str, prefix: str) -> onnx.NodeProto:
    node = helper.make_node(operator, [source], [result], f"{prefix}/{operator}")
    if operator == "Softmax":
        node.attribute.append(helper.make_attribute("axis", -1))
    return node


def _checked(model: onnx.ModelProto) -> onnx.ModelProto:
    onnx.checker.check_model(model, full_check=True)
    return model
