from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import nn

from edgetl.config import Optimizer
from edgetl.export.half_precision import to_half
from edgetl.export.half_weights import store_half
from edgetl.export.onnx import to_onnx
from edgetl.export.two_four import two_four_layers
from edgetl.inputs.image import PreprocessSpec
from edgetl.models.two_four import apply_, held, is_sparse, mask, sparse_layers
from edgetl.tasks.base import Classification
from edgetl.train.optimise import MovingAverage, optimiser_of
from tests.prune.nets import SIZE, Chain, batches, seeded

SPARSE = ("expand.0", "project.0")


def test_the_two_largest_of_every_four_inputs_stay() -> None:
    weights = torch.tensor([[1.0, -4.0, 3.0, 2.0, 0.0, 0.0, 0.0, 5.0]])
    assert mask(weights).tolist() == [[False, True, True, False, True, False, False, True]]
    filters = torch.randn(6, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    kept = mask(filters)
    assert kept.unflatten(1, (-1, 4)).sum(2).unique().tolist() == [2]
    least = filters.abs().where(kept, torch.inf).unflatten(1, (-1, 4)).amin(2)
    most = filters.abs().where(~kept, 0.0).unflatten(1, (-1, 4)).amax(2)
    assert bool((least >= most).all())


def test_layers_that_cannot_have_it_are_listed_with_the_reason() -> None:
    model = seeded(Chain)
    found = apply_(model, ("classifier",))
    assert found.layers == SPARSE == sparse_layers(model)
    assert found.left_out == {
        "stem.0": "3 input channels, no multiple of 4",
        "depthwise.0": "depthwise",
        "classifier": "output layer",
    }
    assert is_sparse(model.expand[0].weight)  # type: ignore[index]
    assert not is_sparse(model.classifier.weight)  # type: ignore[arg-type]


def test_a_layer_of_zeros_is_not_held() -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 1))
    nn.init.zeros_(model[0].weight)  # type: ignore[arg-type]
    assert sparse_layers(model) == ()


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_zeros_stay_zero_through_training_and_a_moving_average(decay: float) -> None:
    model = seeded(Chain)
    apply_(model, ("classifier",))
    before = copy.deepcopy(model)
    optimiser, average = (
        optimiser_of(Optimizer.ADAMW, list(model.parameters()), lr=1e-2, weight_decay=decay),
        MovingAverage(model, 0.5),
    )
    with held(model):
        # what a resumed fit does: the same parameters are filled from a file
        model.load_state_dict(copy.deepcopy(model.state_dict()))
        for step in range(3):
            model.train()
            loss = F.cross_entropy(model(batches()[0]), torch.arange(8) % 3)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            optimiser.zero_grad()
            average.update(model, step)
    for trained in (model, average.model):
        assert sparse_layers(trained) == SPARSE
        for name in SPARSE:
            old, new = before.get_parameter(f"{name}.weight"), trained.get_parameter(f"{name}.weight")
            assert torch.equal(old == 0, new == 0)
            assert not torch.equal(old, new)
    loss = F.cross_entropy(model(batches()[0]), torch.arange(8) % 3)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    assert sparse_layers(model) == (), "outside of `held` weights are free again"


def exported(model: nn.Module) -> onnx.ModelProto:
    return to_onnx(
        model, task=Classification(labels=("a", "b", "c")), spec=PreprocessSpec(size=SIZE), opset=18
    )


def test_exported_weights_have_the_pattern_in_float_half_and_int8() -> None:
    model = seeded(Chain)
    assert two_four_layers(exported(model)) == 0
    apply_(model, ("classifier",))
    whole = exported(model)
    assert two_four_layers(whole) == 2
    assert two_four_layers(store_half(whole)) == 2
    assert two_four_layers(to_half(whole, batches()[0].numpy()[:2]).model) == 2


def test_a_linear_layer_and_an_int8_weight_are_read_along_their_inputs() -> None:
    weights = np.arange(1, 33, dtype=np.int8).reshape(4, 8)
    weights[:, [0, 1, 4, 6]] = 3
    for operator, values in (("Gemm", weights), ("MatMul", weights.T.copy())):
        axis = 0 if operator == "Gemm" else 1
        nodes = [
            onnx.helper.make_node("DequantizeLinear", ["w", "scale", "point"], ["float"], axis=axis),
            onnx.helper.make_node(
                operator, ["x", "float"], ["y"], **({"transB": 1} if operator == "Gemm" else {})
            ),
        ]
        constants = {"w": values, "scale": np.ones(4, np.float32), "point": np.full(4, 3, np.int8)}
        graph = onnx.helper.make_graph(
            nodes, "g", [], [], [numpy_helper.from_array(v, n) for n, v in constants.items()]
        )
        assert two_four_layers(onnx.helper.make_model(graph)) == 1
        graph.initializer[2].CopyFrom(numpy_helper.from_array(np.zeros(4, np.int8), "point"))
        assert two_four_layers(onnx.helper.make_model(graph)) == 0
