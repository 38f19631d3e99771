from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from edgetl.config import Importance
from edgetl.errors import ModelError
from edgetl.models import backbones
from edgetl.prune.graph import ChannelGraph, trace
from edgetl.prune.groups import ChannelGroup
from edgetl.prune.importance import bn_scale, fpgm, lamp, magnitude, taylor, without_batch_norm
from tests.prune.nets import SIZE, Chain, batches, make_scorer, seeded
from tests.train.tiny import TASK


@pytest.mark.parametrize("kind", Importance)
def test_every_importance_scores_every_channel_and_repeats_itself(kind: Importance) -> None:
    model = backbones.create("torchvision/mobilenet_v3_small", 4, "none")
    graph = trace(model, SIZE)
    score = make_scorer(kind, model, batches())
    scores, again = score(graph), score(graph)
    assert scores.channels.keys() == {g.name for g in graph.groups}
    for group in graph.groups:
        values = scores.channels[group.name]
        assert values.shape == (group.channels,)
        assert torch.isfinite(values).all()
        assert (values >= 0).all()
        assert torch.equal(values, again.channels[group.name])


def test_magnitude_finds_the_channel_without_weights() -> None:
    model = seeded(Chain)
    with torch.no_grad():
        for layer in (model.expand[0], model.depthwise[0]):  # type: ignore[index]
            layer.weight[5] = 0.0
        model.project[0].weight[:, 5] = 0.0  # type: ignore[index]
        model.expand[1].weight[5] = model.depthwise[1].weight[5] = 0.0  # type: ignore[index]
    graph = trace(model, SIZE)
    inner = next(g for g in graph.groups if g.channels == 32)
    scores = make_scorer(Importance.MAGNITUDE, model)(graph).channels[inner.name]
    assert int(scores.argmin()) == 5
    assert float(scores.mean()) == pytest.approx(1.0)


def chain() -> tuple[nn.Module, ChannelGraph, ChannelGroup, ChannelGroup]:
    """The network, its graph, the group of the residual stream (16) and that of the inner channels (32)."""
    model = seeded(Chain)
    graph = trace(model, SIZE)
    stream, inner = sorted(graph.groups, key=lambda g: g.channels)
    return model, graph, stream, inner


def weights(model: nn.Module, *names: str) -> list[NDArray[np.float64]]:
    """Weights by the layer's name, each (outputs, -1)."""
    parameters = dict(model.named_parameters())
    found = [parameters[f"{name}.weight"].detach().double().numpy() for name in names]
    return [w.reshape(len(w), -1) for w in found]


def test_bn_scale_is_the_mean_factor_over_that_of_the_network() -> None:
    model, graph, stream, inner = chain()
    stem, project, expand, depthwise = (
        w[:, 0] for w in weights(model, "stem.1", "project.1", "expand.1", "depthwise.1")
    )
    factors = {stream.name: (stem + project) / 2, inner.name: (expand + depthwise) / 2}
    mean = np.concatenate(list(factors.values())).mean()
    assert without_batch_norm(graph) == ()
    for name, expected in factors.items():
        np.testing.assert_allclose(bn_scale(graph).channels[name].numpy(), expected / mean, rtol=1e-6)


def test_bn_scale_keeps_the_level_of_a_layer() -> None:
    """A layer whose factors are all small goes before others: no group is brought to a mean of its own."""
    model, graph, stream, inner = chain()
    with torch.no_grad():
        for layer in (model.expand, model.depthwise):  # type: ignore[union-attr]
            layer[1].weight *= 0.01  # type: ignore[index, operator]
    scores = bn_scale(graph).channels
    assert float(scores[inner.name].max()) < float(scores[stream.name].min())


def test_bn_scale_ranks_groups_without_norms_by_magnitude() -> None:
    model = seeded(backbones.create, "torchvision/mobilenet_v3_small", 4, "none")
    graph = trace(model, SIZE)
    lacking = without_batch_norm(graph)
    assert 0 < len(lacking) < len(graph.groups)
    assert all("fc" in name for name in lacking if "features" in name), lacking
    scores, sizes = bn_scale(graph).channels, magnitude(graph).channels
    for name in lacking:
        assert torch.equal(scores[name], sizes[name])


def test_bn_scale_is_refused_for_a_network_without_batch_norm() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3)
    )
    with pytest.raises(
        ModelError,
        match=r"^Sequential has no batch norm in any channel group, so prune\.importance = bn_scale cannot rank its"
        r" channels\. Take magnitude or taylor\.$",
    ):
        bn_scale(trace(model, SIZE))


def test_fpgm_is_the_sum_of_distances_between_filters() -> None:
    model, graph, stream, inner = chain()
    for group, layers in ((stream, ("stem.0", "project.0")), (inner, ("expand.0", "depthwise.0"))):
        filters = np.concatenate(weights(model, *layers), axis=1)
        sums = np.sqrt(((filters[:, None] - filters[None]) ** 2).sum(2)).sum(1)
        np.testing.assert_allclose(fpgm(graph).channels[group.name].numpy(), sums / sums.mean(), rtol=1e-6)


def test_fpgm_takes_the_filter_among_the_others_not_the_small_one() -> None:
    """He et al., figure 1: a large filter that the others can stand for goes before a small one of its own kind."""
    model, graph, _, inner = chain()
    with torch.no_grad():
        for layer in (model.expand[0], model.depthwise[0]):  # type: ignore[index]
            flat = layer.weight.view(32, -1)
            flat[:] = torch.randn_like(flat) + 5.0
            flat[3] = flat[4:].mean(0)
            flat[7] = 0.0
    assert int(fpgm(graph).channels[inner.name].argmin()) == 3
    assert int(magnitude(graph).channels[inner.name].argmin()) == 7


def test_lamp_is_the_share_of_what_remains() -> None:
    model, graph, _, inner = chain()
    expand, project = weights(model, "expand.0", "project.0")
    norms = [weights(model, f"{name}.1")[0][:, 0] ** 2 for name in ("expand", "depthwise")]
    squares = ((expand**2).sum(1) + sum(norms) + (project**2).sum(0)) / 4
    expected = [s / squares[squares >= s].sum() for s in squares]
    scores = lamp(graph).channels[inner.name]
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-5)
    assert float(scores.max()) == 1.0


def test_lamp_spares_the_last_channels_of_a_layer_however_small() -> None:
    model, graph, _, inner = chain()
    before = lamp(graph).channels
    with torch.no_grad():
        for parameter in [*model.expand.parameters(), *model.depthwise.parameters()]:  # type: ignore[union-attr]
            parameter *= 1e-3
        model.project[0].weight *= 1e-3  # type: ignore[index, operator]
    after = lamp(graph).channels
    torch.testing.assert_close(after[inner.name], before[inner.name])


def test_scores_stay_finite_where_no_weight_is_left() -> None:
    model, graph, _, inner = chain()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    for importance in (bn_scale, fpgm, lamp):
        assert torch.equal(importance(graph).channels[inner.name], torch.zeros(32, dtype=torch.float64))


def test_taylor_is_the_squared_effect_of_a_mask_where_channels_are_read() -> None:
    """The hooks' sum over readers against automatic differentiation of a mask on the stream itself."""
    model, teacher = seeded(Chain), seeded(Chain, seed=1)
    images = batches(4, 1)[0]
    graph = trace(model, SIZE)
    group = next(g for g in graph.groups if g.channels == 16)
    measured = taylor(graph, [images], teacher, TASK, temperature=3.0, seed=7).channels[group.name]

    generator = torch.Generator().manual_seed(7)
    drawn = torch.multinomial(F.softmax(teacher(images) / 3.0, 1), 1, generator=generator)[:, 0]
    mask = torch.zeros(4, 16, requires_grad=True)
    stream = model.stem(images)  # type: ignore[operator]
    read = stream + mask[:, :, None, None] * (stream - stream.mean((0, 2, 3), keepdim=True)).detach()
    joined = stream + model.project(model.depthwise(model.expand(read)))  # type: ignore[operator]
    pooled = joined.mean((2, 3))
    pooled = pooled + mask * (pooled - pooled.mean(0)).detach()
    F.cross_entropy(model.classifier(pooled) / 3.0, drawn, reduction="sum").backward()  # type: ignore[operator]
    assert mask.grad is not None
    expected = mask.grad.double().square().mean(0)
    torch.testing.assert_close(measured, expected, rtol=1e-4, atol=1e-12)


def test_taylor_sees_that_an_unread_channel_does_not_matter() -> None:
    model = seeded(Chain)
    with torch.no_grad():
        model.project[0].weight[:, 9] = 0.0  # type: ignore[index]
    graph = trace(model, SIZE)
    inner = next(g for g in graph.groups if g.channels == 32)
    scores = taylor(graph, batches(), model, TASK, temperature=2.0, seed=0).channels[inner.name]
    assert float(scores[9]) == 0.0
    assert float(scores.max()) > 0.0


def test_taylor_leaves_the_network_as_it_was() -> None:
    model = seeded(Chain)
    graph = trace(model, SIZE)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    taylor(graph, batches(), model, TASK, temperature=2.0, seed=0)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(not m._forward_pre_hooks for m in model.modules())


def test_no_images_leave_zero_scores_not_an_error() -> None:
    model = seeded(Chain)
    scores = taylor(trace(model, SIZE), [], model, TASK, temperature=2.0, seed=0)
    assert all(float(v.sum()) == 0.0 for v in scores.channels.values())
    assert isinstance(model, nn.Module)


def test_taylor_lets_go_of_every_batch() -> None:
    """Without the garbage collector's help: activations caught in a cycle would pile up to gigabytes."""
    model, alive = seeded(Chain), []
    graph = trace(model, SIZE)
    hook = model.expand[0].register_forward_pre_hook(  # type: ignore[index]
        lambda _, args: alive.append(weakref.ref(args[0]))
    )
    gc.disable()
    try:
        taylor(graph, batches(4, 3), seeded(Chain, seed=1), TASK, temperature=2.0, seed=0)
        assert len(alive) == 3
        assert [ref() for ref in alive] == [None] * 3
    finally:
        gc.enable()
        hook.remove()
