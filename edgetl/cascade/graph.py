"""Two classifiers as one ONNX graph: the larger one stands in an `If`, for the images that the small one hands on.

So a cascade is a model file like any other, and whatever runs, times, checks and serves a model takes it as it is. The
condition of `If` is evaluated once a call: of a batch the rows that are handed on are gathered, run together, and
scattered back, so that an image's answer does not depend on its neighbours.

Legend: N images, C classes, S the larger model's side, s the small one's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgetl.bundle.manifest import InputForm
from edgetl.errors import ModelError
from edgetl.export.bake import PREFIX
from edgetl.inputs.spec import Interpolation, PreprocessSpec
from edgetl.tasks.base import LOGITS

IMAGES, HANDED_ON = "images", "handed_on"
"""The input, and the output beside the logits: (N, 1) float32, 1 where an image was handed on."""
_OPSET = 18
"""The least operator set: since then `ReduceMax` takes its axes as an input."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One of the two models.

    Attributes:
        model: an ONNX file's bytes, one image tensor in and `logits` (N, C) out.
        spec: its preprocessing.
        form: what it takes.
        temperature: by which its logits are divided.
    """

    model: bytes
    spec: PreprocessSpec
    form: InputForm
    temperature: float


def small_alone(small: Member, large: Member) -> bytes:
    """The small model with the larger one's input: pictures are made smaller inside. Its logits are divided already.

    Raises:
        ModelError: a model is not one image tensor in and `logits` out.
    """
    parts = _Parts(small, large)
    nodes = [*parts.before(), helper.make_node("Identity", [parts.logits], [LOGITS])]
    return parts.model(nodes, [parts.of_logits])


def cascade(small: Member, large: Member, threshold: float) -> bytes:
    """The file of a cascade: `logits` (N, C), divided by the temperatures, and `HANDED_ON`.

    Args:
        small: answers where its two best logits, divided by its temperature, are `threshold` or more apart.
        large: answers the other images; its input is the cascade's.
        threshold: in natural logarithms: of how many times likelier the best class is than the second.

    Raises:
        ModelError: a model is not one image tensor in and `logits` out.
    """
    parts = _Parts(small, large)
    constant, node = parts.constant, helper.make_node
    last = constant("axis", np.array([1], np.int64))
    two, signs = constant("two", np.array([2], np.int64)), constant("signs", np.array([1, -1], np.float32))
    rows = constant("rows", np.array([-1], np.int64))
    column = constant("column", np.array([-1, 1], np.int64))
    nodes = [
        *parts.before(),
        node("TopK", [parts.logits, two], ["cascade/best", "cascade/classes"], axis=1),
        node("Mul", ["cascade/best", signs], ["cascade/signed"]),
        node("ReduceSum", ["cascade/signed", last], ["cascade/margin"], keepdims=1),
        node("Less", ["cascade/margin", constant("threshold", np.float32(threshold))], ["cascade/unsure"]),
        node("Cast", ["cascade/unsure"], [HANDED_ON], to=TensorProto.FLOAT),
        node("ReduceMax", [HANDED_ON], ["cascade/most"], keepdims=0),
        node("Cast", ["cascade/most"], ["cascade/any"], to=TensorProto.BOOL),
        node("Reshape", ["cascade/unsure", rows], ["cascade/flat"]),
    ]
    inside = _renamed(parts.large, "large/", {parts.large.input[0].name: "cascade/part"})
    handed = [
        node("NonZero", ["cascade/flat"], ["cascade/places"]),
        node("Reshape", ["cascade/places", rows], ["cascade/which"]),
        node("Gather", [IMAGES, "cascade/which"], ["cascade/part"], axis=0),
        *inside.node,
        node("Div", [f"large/{LOGITS}", constant("large", np.float32(large.temperature))], ["cascade/large"]),
        node("Reshape", ["cascade/places", column], ["cascade/at"]),
        node("ScatterND", [parts.logits, "cascade/at", "cascade/large"], ["cascade/merged"]),
    ]
    # The larger model's constants stand where it does: engines arrange for their kernels what lies beside a node.
    hand = helper.make_graph(
        handed, "hand_on", [], [_like(parts.of_logits, "cascade/merged")], inside.initializer
    )
    keep = helper.make_graph(
        [node("Identity", [parts.logits], ["cascade/kept"])],
        "answer",
        [],
        [_like(parts.of_logits, "cascade/kept")],
    )
    nodes.append(node("If", ["cascade/any"], [LOGITS], "cascade/If", then_branch=hand, else_branch=keep))
    batch = parts.of_logits.type.tensor_type.shape.dim[0]
    share = helper.make_tensor_value_info(
        HANDED_ON, TensorProto.FLOAT, [batch.dim_param or batch.dim_value, 1]
    )
    return parts.model(nodes, [parts.of_logits, share])


class _Parts:
    """Both graphs, and what stands before the small one."""

    def __init__(self, small: Member, large: Member) -> None:
        models = [_read(one.model) for one in (small, large)]
        versions = [{one.domain: one.version for one in model.opset_import} for model in models]
        target = max(_OPSET, *(own.get("", 1) for own in versions))
        models = [
            model if own.get("", 1) == target else onnx.version_converter.convert_version(model, target)
            for model, own in zip(models, versions, strict=True)
        ]
        self._opsets = {**versions[0], **versions[1], "": target}
        self._ir = max(model.ir_version for model in models)
        self._small, self.large = models[0].graph, models[1].graph
        self._specs, self._forms = (small.spec, large.spec), (small.form, large.form)
        self._temperature, self._constants = small.temperature, list[onnx.TensorProto]()
        self.logits = "cascade/small"
        self.of_logits = next(value for value in self.large.output if value.name == LOGITS)

    def constant(self, name: str, value: NDArray[Any] | np.float32) -> str:
        """Keep a constant; its name in the graph."""
        self._constants.append(numpy_helper.from_array(np.asarray(value), f"constant/{name}"))
        return f"constant/{name}"

    def before(self) -> list[onnx.NodeProto]:
        """From the pictures to the small model's logits, divided by its temperature."""
        steps, prepared = self._prepared()
        inside = _renamed(self._small, "small/", {self._small.input[0].name: prepared})
        self._constants.extend(inside.initializer)
        divided = helper.make_node(
            "Div",
            [f"small/{LOGITS}", self.constant("temperature", np.float32(self._temperature))],
            [self.logits],
        )
        return [*steps, *inside.node, divided]

    def _prepared(self) -> tuple[list[onnx.NodeProto], str]:
        """The small model's input, of the larger one's."""
        (small, large), (takes, given) = self._specs, self._forms
        same = takes is given and small.size == large.size
        if same and (given is InputForm.UINT8 or (small.mean, small.std) == (large.mean, large.std)):
            return [], IMAGES
        steps, name = list[onnx.NodeProto](), IMAGES

        def step(operator: str, inputs: list[str], what: str, **attributes: Any) -> None:
            nonlocal name
            steps.append(helper.make_node(operator, [name, *inputs], [f"cascade/{what}"], **attributes))
            name = f"cascade/{what}"

        def per_channel(what: str, values: NDArray[np.float64]) -> str:
            return self.constant(what, values.astype(np.float32).reshape(1, 3, 1, 1))

        numbers = (
            np.zeros(3),
            np.full(3, 1 / 255),
        )  # the mean and deviation by which 0 to 255 stay as they are
        have, want = (
            numbers if form is InputForm.UINT8 else (np.array(spec.mean), np.array(spec.std))
            for spec, form in ((large, given), (small, takes))
        )
        if given is InputForm.UINT8:
            step("Cast", [], "numbers", to=TensorProto.FLOAT)
            step("Transpose", [], "planes", perm=[0, 3, 1, 2])
        if small.size != large.size:
            weights = _resampling(large.size, small.size, small.interpolation)
            rows, columns = self.constant("rows_of", weights), self.constant("columns_of", weights.T.copy())
            steps.append(helper.make_node("MatMul", [rows, name], ["cascade/lower"], f"{PREFIX}/rows"))
            steps.append(
                helper.make_node(
                    "MatMul", ["cascade/lower", columns], ["cascade/resized"], f"{PREFIX}/columns"
                )
            )
            name = "cascade/resized"
        if not all(map(np.array_equal, have, want)):
            step("Mul", [per_channel("scale", have[1] / want[1])], "scaled")
            step("Add", [per_channel("shift", (have[0] - want[0]) / want[1])], "normalised")
        if takes is InputForm.UINT8:
            bounds = [self.constant("least", np.float32(0)), self.constant("largest", np.float32(255))]
            step("Round", [], "rounded")
            step("Clip", bounds, "clipped")
            step("Transpose", [], "pixels", perm=[0, 2, 3, 1])
            step("Cast", [], "bytes", to=TensorProto.UINT8)
        return steps, name

    def model(self, nodes: list[onnx.NodeProto], outputs: list[onnx.ValueInfoProto]) -> bytes:
        """The file, checked."""
        images = _like(self.large.input[0], IMAGES)
        graph = helper.make_graph(nodes, "cascade", [images], outputs, self._constants)
        opsets = [helper.make_opsetid(domain, version) for domain, version in sorted(self._opsets.items())]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=self._ir)
        onnx.checker.check_model(made)
        return bytes(made.SerializeToString())


def _resampling(given: int, wanted: int, interpolation: Interpolation) -> NDArray[np.float32]:
    """(wanted, given): what each place along a side takes of the places before, as Pillow resizes.

    As a product of matrices engines agree on it, which they do not on `Resize`.
    """
    from PIL import Image

    rows = Image.fromarray(np.eye(given, dtype=np.float32)).resize(
        (given, wanted), Image.Resampling[interpolation.name]
    )
    return np.asarray(rows, dtype=np.float32)


def _read(content: bytes) -> onnx.ModelProto:
    model = onnx.load_from_string(content)
    there = [value.name for value in model.graph.output]
    if len(model.graph.input) != 1 or LOGITS not in there or model.functions:
        raise ModelError(
            f"A model with {len(model.graph.input)} inputs and the outputs {', '.join(there)} cannot be part of a"
            f" cascade, expected one input and {LOGITS}."
        )
    return model


def _like(value: onnx.ValueInfoProto, name: str) -> onnx.ValueInfoProto:
    copy = onnx.ValueInfoProto()
    copy.CopyFrom(value)
    copy.name = name
    return copy


def _renamed(graph: onnx.GraphProto, prefix: str, given: Mapping[str, str]) -> onnx.GraphProto:
    """A copy whose tensors and nodes have names of their own, but for those given from outside."""
    copy = onnx.GraphProto()
    copy.CopyFrom(graph)

    def name(old: str) -> str:
        return given.get(old, prefix + old) if old else ""

    for tensor in copy.initializer:
        tensor.name = name(tensor.name)
    for node in copy.node:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise ModelError(f"The model has the operator {node.op_type}, which cannot be part of a cascade.")
        node.name = prefix + node.name if node.name else ""
        for names in (node.input, node.output):
            names[:] = [name(old) for old in names]
    return copy
