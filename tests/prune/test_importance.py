from __future__ import annotations

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgetl.config import Importance
from edgetl.models import backbones
from edgetl.prune.graph import trace
from edgetl.prune.importance import taylor
from tests.prune.nets import SIZE, Chain, batches, make_scorer, seeded


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


def test_taylor_is_the_squared_effect_of_a_mask_where_channels_are_read() -> None:
    """The hooks' sum over readers against automatic differentiation of a mask on the stream itself."""
    model, teacher = seeded(Chain), seeded(Chain, seed=1)
    images = batches(4, 1)[0]
    graph = trace(model, SIZE)
    group = next(g for g in graph.groups if g.channels == 16)
    measured = taylor(graph, [images], teacher, temperature=3.0, seed=7).channels[group.name]

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
    scores = taylor(graph, batches(), model, temperature=2.0, seed=0).channels[inner.name]
    assert float(scores[9]) == 0.0
    assert float(scores.max()) > 0.0


def test_taylor_leaves_the_network_as_it_was() -> None:
    model = seeded(Chain)
    graph = trace(model, SIZE)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    taylor(graph, batches(), model, temperature=2.0, seed=0)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(not m._forward_pre_hooks for m in model.modules())


def test_no_images_leave_zero_scores_not_an_error() -> None:
    model = seeded(Chain)
    scores = taylor(trace(model, SIZE), [], model, temperature=2.0, seed=0)
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
        taylor(graph, batches(4, 3), seeded(Chain, seed=1), temperature=2.0, seed=0)
        assert len(alive) == 3
        assert [ref() for ref in alive] == [None] * 3
    finally:
        gc.enable()
        hook.remove()
