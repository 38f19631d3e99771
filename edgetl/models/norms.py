"""Batch norms whose statistics are another data set's, put into terms of the data at hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

BatchNorm = nn.modules.batchnorm._BatchNorm


def batch_norms(model: nn.Module) -> dict[str, BatchNorm]:
    """The batch norms that keep statistics, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, BatchNorm) and module.track_running_stats
    }


def rebase(model: nn.Module, names: Sequence[str], batches: Iterable[Tensor]) -> None:
    """Give batch norms the statistics of `batches`, and factors and shifts with which they compute what they did.

    y = w (x - m) / sqrt(v + eps) + b is the same function for other m and v, with
    w' = w sqrt(v' + eps) / sqrt(v + eps) and b' = b + w (m' - m) / sqrt(v + eps). So the logits stay as they are in
    evaluation mode, and measuring the statistics anew, or normalising by a batch's own, changes them only by what
    changed in the network.

    Args:
        model: the network, on any device; it ends in evaluation mode.
        names: of its batch norms; those without factors and shifts are left as they are.
        batches: images (n, 3, H, W) float32 as the network sees them. Statistics are plain averages of theirs.
    """
    found = batch_norms(model)
    chosen = [found[name] for name in names if found[name].affine]
    seen: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {norm: [] for norm in chosen}

    def watch(norm: nn.Module, args: tuple[Tensor, ...]) -> None:
        if args[0][:, 0].numel() > 1:  # one value per channel has no variance
            seen[norm].append(_statistics(args[0]))

    hooks = [norm.register_forward_pre_hook(watch) for norm in chosen]
    device = next(model.parameters()).device
    try:
        with torch.no_grad():
            for batch in batches:
                model.eval()(batch.to(device))
    finally:
        for hook in hooks:
            hook.remove()
    with torch.no_grad():
        for norm in chosen:
            if seen[norm]:
                mean, variance = (torch.stack(values).mean(0) for values in zip(*seen[norm], strict=True))
                _express(norm, mean, variance)


def recalibrate(model: nn.Module, batches: Sequence[Tensor]) -> None:
    """Measure batch norms' means and variances anew, in place, as plain averages over `batches`.

    After a cut the statistics belong to another network, with another camera to other images. The rest of the network
    is in evaluation mode.

    Args:
        model: the network; on any device.
        batches: images (n, 3, H, W) float32.
    """
    norms = list(batch_norms(model).values())
    if not norms or not batches:
        return
    model.eval()
    momenta = [norm.momentum for norm in norms]
    device = next(model.parameters()).device
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        with torch.no_grad():
            for batch in batches:
                model(batch.to(device))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


def _statistics(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (C,) float64 of values (n, C, ...), as torch's own batch norm measures them."""
    mean, variance = values.new_zeros(values.shape[1]), values.new_ones(values.shape[1])
    nn.functional.batch_norm(values, mean, variance, training=True, momentum=1.0)
    return mean.double(), variance.double()


def _express(norm: BatchNorm, mean: Tensor, variance: Tensor) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    if not (torch.isfinite(mean).all() and torch.isfinite(variance).all()):
        return  # the images overflow before it
    slope = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    norm.bias.copy_(norm.bias.double() + slope * (mean - norm.running_mean.double()))
    norm.weight.copy_(slope * (variance + norm.eps).sqrt())
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
