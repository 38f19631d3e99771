from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from edgetl.errors import ModelError
from edgetl.export.graphs import DECODE
from edgetl.export.onnx import to_bytes, to_onnx
from edgetl.export.parity import check
from edgetl.inputs.image import PreprocessSpec, Resize
from edgetl.models.detector import create_detector
from edgetl.tasks.all import task_of
from edgetl.tasks.base import Detection

TASK = Detection(labels=("a", "b", "c"), threshold=0.5)
SPEC = PreprocessSpec(size=64, resize=Resize.PAD)


def test_a_detectors_graph_gives_its_boxes_and_scores() -> None:
    model = create_detector("test_efficientnet", 3, seed=1).eval()
    with torch.no_grad():
        for out in (*model.box_out, *model.class_out):
            out.weight.mul_(100)  # type: ignore[operator, union-attr]
    exported = to_onnx(model, task=TASK, spec=SPEC, opset=17)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim][1:] for v in exported.graph.output}
    assert shapes == {"boxes": [84, 4], "scores": [84, 3]}
    assert [n.op_type for n in exported.graph.node if n.name.startswith(DECODE)].count("Sigmoid") == 1
    assert not {"Shape", "Gather"} & {node.op_type for node in exported.graph.node}
    images = np.random.default_rng(0).normal(size=(3, 3, 64, 64)).astype(np.float32)
    found = check(model, to_bytes(exported), [images[:1], images], task=task_of(TASK), max_difference=1e-4)
    assert (found.images, found.same) == (4, 1.0)
    wrong = to_onnx(model, task=TASK, spec=SPEC, opset=17)
    [centres] = [tensor for tensor in wrong.graph.initializer if tensor.name == f"{DECODE}centres"]
    swapped = onnx.numpy_helper.to_array(centres)[:, ::-1].copy()
    centres.CopyFrom(onnx.numpy_helper.from_array(swapped, centres.name))
    with pytest.raises(ModelError, match="The exported graph differs from the network"):
        check(model, to_bytes(wrong), [images], task=task_of(TASK), max_difference=1e-4)


@pytest.mark.slow
def test_a_newer_opset_gives_the_same() -> None:
    model = create_detector("test_efficientnet", 3, seed=1).eval()
    exported = to_onnx(model, task=TASK, spec=SPEC, opset=21)
    images = np.random.default_rng(0).normal(size=(3, 3, 64, 64)).astype(np.float32)
    check(model, to_bytes(exported), [images[:1], images], task=task_of(TASK), max_difference=1e-4)


def test_a_detector_is_exported_for_one_size_and_its_classes() -> None:
    model = create_detector("test_efficientnet", 2)
    with pytest.raises(ModelError, match=r"images of one size; set export.dynamic_size = false"):
        to_onnx(model, task=TASK, spec=SPEC, opset=17, dynamic_size=True)
    with pytest.raises(ModelError, match=r"gives \(2, 84, 6\) for two images, expected boxes and scores"):
        to_onnx(model, task=TASK, spec=SPEC, opset=17)
