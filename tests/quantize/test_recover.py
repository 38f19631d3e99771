"""Methods of recovery, and what each does to a network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from edgetl.config import Calibrator, QuantizeConfig, Recovery, Target
from edgetl.errors import ModelError
from edgetl.quantize.affine import INT7_WEIGHTS, for_weights, from_range
from edgetl.quantize.calibrate import observe
from edgetl.quantize.equalise import equalise
from edgetl.quantize.form import Form
from edgetl.quantize.graph import Graph
from edgetl.quantize.plan import make_plan
from edgetl.quantize.ranges import estimate
from edgetl.quantize.reconstruct import corrected, reconstruct
from edgetl.quantize.recover import RecoverySearch
from edgetl.quantize.replay import Network, Stream, unsupported
from edgetl.quantize.sensitivity import sensitivity
from edgetl.quantize.targets import TargetRules, rules_for
from tests.quantize import networks
from tests.quantize.networks import logits

RULES = rules_for(Target.CPU_X86)
node = helper.make_node


def form_of(model: onnx.ModelProto, rules: TargetRules = RULES, keep: frozenset[str] = frozenset()) -> Form:
    graph = Graph(model)
    plan = make_plan(graph, rules, keep=keep)
    batches = [networks.images(8, seed=s, size=_size(model)) for s in range(4)]
    batches = [b[:, : _channels(model)] for b in batches]
    histograms = observe(model, plan.observed, batches, images=32)
    grid = rules.activations
    spans = {n: estimate(h, Calibrator.MINMAX, grid, percentile=99.99) for n, h in histograms.items()}
    activations = {name: from_range(*span, grid) for name, span in (spans | plan.known).items()}
    return Form(graph=graph, rules=rules, plan=plan, activations=activations, calibrator=Calibrator.MSE)


def _size(model: onnx.ModelProto) -> int:
    return int(model.graph.input[0].type.tensor_type.shape.dim[2].dim_value)


def _channels(model: onnx.ModelProto) -> int:
    return int(model.graph.input[0].type.tensor_type.shape.dim[1].dim_value)


def run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    return logits(model, [images])


def noise(model: onnx.ModelProto, reference: onnx.ModelProto, images: np.ndarray) -> float:
    wanted, got = run(reference, images), run(model, images)
    return float(((got - wanted) ** 2).mean() / wanted.var())


def uneven(*, relu6: bool = False, seed: int = 0) -> onnx.ModelProto:
    """A dense, a depthwise and a dense convolution, whose channels differ in size by far."""
    rng = np.random.default_rng(seed)
    scale = np.geomspace(0.05, 20.0, 8).astype(np.float32).reshape(8, 1, 1, 1)

    def activation(source: str, name: str) -> onnx.NodeProto:
        inputs = [source, "low", "high"] if relu6 else [source]
        return node("Clip" if relu6 else "Relu", inputs, [name], name)

    return networks.graph(
        [
            node("Conv", ["images", "w1", "b1"], ["a"], "first", pads=[1, 1, 1, 1]),
            activation("a", "r1"),
            node("Conv", ["r1", "w2", "b2"], ["c"], "depthwise", pads=[1, 1, 1, 1], group=8),
            activation("c", "r2"),
            node("Conv", ["r2", "w3"], ["logits"], "last"),
        ],
        {
            "w1": networks.weights(8, 3, 3, 3, seed=seed) * scale,
            "b1": rng.normal(0, 0.1, 8).astype(np.float32) * scale.ravel(),
            "w2": networks.weights(8, 1, 3, 3, seed=seed + 1),
            "b2": rng.normal(0, 0.1, 8).astype(np.float32) * scale.ravel(),
            "w3": networks.weights(4, 8, 1, 1, seed=seed + 2) / scale.reshape(1, 8, 1, 1),
            **({"low": np.float32(0.0), "high": np.float32(6.0)} if relu6 else {}),
        },
    )


# --- the replay -----------------------------------------------------------------------------------------


def test_the_replay_gives_the_engines_logits() -> None:
    model, images = networks.exported(), networks.images(5)
    assert unsupported(Graph(model)) == ()
    got = Stream(Graph(model), torch.from_numpy(images)).run().numpy()
    np.testing.assert_allclose(got, run(model, images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("target", [Target.CPU_X86, Target.TENSORRT])
def test_the_simulated_network_is_the_written_one(target: Target) -> None:
    form = form_of(networks.exported(), rules_for(target))
    images = networks.images(6, seed=9)
    with torch.no_grad():
        got = Network(form.graph, form.plan, form.rules, form.activations)(torch.from_numpy(images)).numpy()
    wanted = run(form.model(), images)
    assert ((got - wanted) ** 2).mean() < 1e-3 * wanted.var()


def test_an_operator_that_recovery_cannot_run_is_named() -> None:
    model = networks.graph(
        [node("Conv", ["images", "w"], ["a"], "conv"), node("Softplus", ["a"], ["logits"], "soft")],
        {"w": networks.weights(4, 3, 1, 1)},
    )
    assert unsupported(Graph(model)) == ("Softplus",)
    with pytest.raises(
        ModelError, match=r"soft is a Softplus, which recovery cannot run; use quantize\.recovery"
    ):
        Stream(Graph(model), torch.zeros(1, 3, 8, 8)).run()


# --- equalisation ---------------------------------------------------------------------------------------


@given(st.integers(0, 50))
@settings(max_examples=8, deadline=None)
def test_equalisation_keeps_the_function_and_evens_the_channels(seed: int) -> None:
    model, images = uneven(seed=seed), networks.images(3, size=8)
    equalised, pairs = equalise(model)
    assert pairs == 2
    before, after = run(model, images), run(equalised, images)
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-3 * np.abs(before).max())

    def spread(m: onnx.ModelProto) -> float:
        extents = np.abs(Graph(m).constant("w1")).reshape(8, -1).max(axis=1)  # type: ignore[arg-type]
        return float(extents.max() / extents.min())

    assert spread(equalised) < 0.2 * spread(model)


def test_equalisation_makes_the_noise_smaller() -> None:
    model, images = uneven(), networks.images(8, seed=5, size=8)
    equalised, _ = equalise(model)
    assert noise(form_of(equalised).model(), model, images) < 0.5 * noise(
        form_of(model).model(), model, images
    )


def test_equalisation_does_not_lift_the_limit_of_a_relu6() -> None:
    model = uneven(relu6=True)
    equalised, pairs = equalise(model)
    assert pairs == 0
    assert equalised == model
    [clip, _] = [n for n in model.graph.node if n.op_type == "Clip"]
    limited = run(networks.ending_at(model, clip.output[0]), networks.images(3, size=8))
    assert limited.max() == 6.0  # without its limit it would have been another network


def test_equalisation_goes_through_a_clip_without_an_upper_limit() -> None:
    model = uneven(relu6=True)
    for clip in (n for n in model.graph.node if n.op_type == "Clip"):
        del clip.input[2]
    images = networks.images(3, size=8)
    equalised, pairs = equalise(model)
    assert pairs == 2
    before = run(model, images)
    np.testing.assert_allclose(run(equalised, images), before, rtol=1e-3, atol=1e-3 * np.abs(before).max())


def test_equalisation_leaves_shared_tensors_alone() -> None:
    model = networks.graph(
        [
            node("Conv", ["images", "w"], ["a"], "first"),
            node("Conv", ["a", "v"], ["b"], "second"),
            node("Add", ["a", "b"], ["logits"], "add"),
        ],
        {"w": networks.weights(4, 3, 1, 1), "v": networks.weights(4, 4, 1, 1)},
    )
    assert equalise(model)[1] == 0


# --- bias correction and AdaRound -----------------------------------------------------------------------


def test_bias_correction_moves_means_back() -> None:
    form = form_of(networks.exported())
    batches = [networks.images(8, seed=s) for s in range(4)]
    found = reconstruct(form.graph, form.plan, RULES, form.activations, batches, rounding=False)
    assert not found.weights
    graph = Graph(corrected(form.graph, found))
    fixed = replace(form, graph=graph, plan=make_plan(graph, RULES))
    images = np.concatenate(batches)
    wanted = run(networks.exported(), images).mean(0)
    before, after = (run(f.model(), images).mean(0) for f in (form, fixed))
    assert np.abs(after - wanted).max() < 0.5 * np.abs(before - wanted).max()


def test_adaround_rounds_better_than_to_nearest() -> None:
    model = uneven(seed=3)
    form = form_of(model)
    batches = [networks.images(8, seed=s, size=8) for s in range(4)]
    found = reconstruct(form.graph, form.plan, RULES, form.activations, batches, rounding=True)
    assert set(found.weights) == {w.node for w in form.plan.weighted}
    for at, weights in found.weights.items():
        own = form.graph.constant(form.graph.nodes[at].input[1])
        assert own is not None
        affine = for_weights(own, INT7_WEIGHTS, 0)
        integers = weights / affine.scale.reshape(-1, 1, 1, 1)
        np.testing.assert_allclose(integers, np.rint(integers), atol=1e-3)
        assert np.abs(integers).max() <= 64.01
        assert np.abs(integers - own / affine.scale.reshape(-1, 1, 1, 1)).max() < 1.01
    graph = Graph(corrected(form.graph, found))
    rounded = replace(form, graph=graph, plan=make_plan(graph, RULES), grids=found.grids)
    images = networks.images(16, seed=77, size=8)
    assert noise(rounded.model(), model, images) < noise(form.model(), model, images)


# --- sensitivity ----------------------------------------------------------------------------------------


def test_sensitivity_is_what_one_layer_alone_does() -> None:
    """Against the plain way: one layer quantized, the others kept, the logits compared; a pass a layer."""
    model = networks.exported()
    form = form_of(model)
    batches = [networks.images(8, seed=s) for s in range(8)]
    found = sensitivity(form.graph, form.plan, RULES, form.activations, batches)
    assert [layer.divergence for layer in found] == sorted((x.divergence for x in found), reverse=True)
    images = np.concatenate(batches)
    wanted = run(model, images)
    names = [form.graph.label(w.node) for w in form.plan.weighted]
    rules = replace(RULES, integer_outputs=False, integer_operators=frozenset(), gates=frozenset())
    for layer in found:
        alone = form_of(model, rules, frozenset(names) - {layer.name}).model()
        truth = float(((run(alone, images) - wanted) ** 2).sum() / (wanted**2).sum())
        assert layer.divergence == pytest.approx(truth, rel=0.6, abs=1e-6), layer.name
        assert 5.0 < layer.sqnr_db < 80.0


# --- the search -----------------------------------------------------------------------------------------


class _Calibration:
    """Forms without images."""

    def form(self, model: onnx.ModelProto, rules: TargetRules, *, keep: frozenset[str] = frozenset()) -> Form:
        return form_of(model, rules, keep)

    def batches(self, images: int) -> list[np.ndarray]:
        return [networks.images(4)]


def _attempts(
    scores: list[float], recovery: Recovery = Recovery.AUTO, *, teacher: bool = True
) -> tuple[RecoverySearch, list]:
    asked: list[str] = []
    stated = iter(scores)

    def score(model: onnx.ModelProto, target: str) -> float:
        asked.append(target)
        return next(stated)

    attempts = RecoverySearch(
        config=QuantizeConfig(recovery=recovery),
        calibration=_Calibration(),  # type: ignore[arg-type]
        score=score,
        train=(lambda form: form.graph.model) if teacher else None,
        floor=0.9,
    )
    return attempts, asked


@pytest.fixture
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """AdaRound in a few steps, where only the order of things is looked at."""
    monkeypatch.setattr("edgetl.quantize.reconstruct._STEPS", 4)


@pytest.mark.usefixtures("_hasty")
@pytest.mark.parametrize(
    ("scores", "how", "tries"),
    [
        ([0.95], "none", ["none"]),
        ([0.5, 0.91], "equalise", ["none", "equalise"]),
        ([0.5, 0.6, 0.9], "equalise + bias", ["none", "equalise", "equalise + bias"]),
        ([0.5, 0.4, 0.9], "bias", ["none", "equalise", "bias"]),
        ([0.5, 0.4, 0.7, 0.8, 0.95], "qat", ["none", "equalise", "bias", "adaround", "qat"]),
        ([0.5, 0.4, 0.8, 0.8, 0.7], "bias", ["none", "equalise", "bias", "adaround", "qat"]),
    ],
)
def test_auto_climbs_until_the_floor_holds(scores: list[float], how: str, tries: list[str]) -> None:
    attempts, _ = _attempts(scores)
    found = attempts.recover(networks.exported(), RULES)
    assert (found.how, found.score) == (how, max(scores))
    assert [a.name for a in found.attempts] == tries


@pytest.mark.usefixtures("_hasty")
def test_auto_leaves_equalisation_out_where_there_is_nothing_to_equalise() -> None:
    attempts, _ = _attempts([0.5, 0.95])
    found = attempts.recover(uneven(relu6=True), RULES)
    assert [a.name for a in found.attempts] == ["none", "bias"]


@pytest.mark.usefixtures("_hasty")
@pytest.mark.parametrize("recovery", [Recovery.NONE, Recovery.EQUALISE, Recovery.BIAS, Recovery.ADAROUND])
def test_one_recovery_alone(recovery: Recovery) -> None:
    attempts, asked = _attempts([0.5], recovery)
    assert attempts.recover(networks.exported(), RULES).how == recovery
    assert asked == ["cpu-x86"]


@pytest.mark.usefixtures("_hasty")
def test_auto_says_what_it_cannot_try() -> None:
    attempts, _ = _attempts([0.1, 0.2, 0.3, 0.4], teacher=False)
    assert attempts.recover(networks.exported(), RULES).notes == (
        "Quantization-aware training was not tried: there is no teacher.",
    )


@pytest.mark.usefixtures("_hasty")
def test_equalised_and_rounded_models_load() -> None:
    model = uneven()
    attempts, _ = _attempts([0.5, 0.6, 0.7, 0.95])
    found = attempts.recover(model, RULES)
    assert found.how == "equalise + adaround"
    ort.InferenceSession(found.form.model().SerializeToString(), providers=["CPUExecutionProvider"])


def test_a_tensors_span_is_what_its_grid_holds() -> None:
    form = form_of(networks.exported())
    stream = Stream(form.graph, torch.zeros(1), plan=form.plan, activations=form.activations)
    name, source = next(iter(form.plan.ranges.items()))
    affine = form.activations[source]
    edges = np.array([affine.grid.lowest, affine.grid.highest], np.int32)
    wanted = (edges - int(affine.zero_point)) * float(affine.scale)
    assert stream.span(name) == pytest.approx(tuple(wanted))
    assert stream.span("no such tensor") == (-np.inf, np.inf)
