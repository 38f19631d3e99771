"""Several heads that share a trunk but not its last features: an adapter each, between the trunk and the head.

Legend: N images, F features, D outputs of all heads together.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgetl.errors import ModelError
from edgetl.models.backbones import classifier_names

WIDTH = 32
"""Hidden units of an adapter. Pruning leaves them: only adapters of one shape can be compared."""


class Adapter(nn.Module):
    """Features (N, F) plus what a bottleneck makes of them.

    Houlsby et al., "Parameter-Efficient Transfer Learning for NLP" (ICML 2019), section 2.1: it starts as the
    identity, since the second layer's weights are zero.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.down = nn.Linear(features, WIDTH)
        self.activation = nn.ReLU()
        self.up = nn.Linear(WIDTH, features)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(N, F) to (N, F)."""
        change: Tensor = self.up(self.activation(self.down(features)))
        return features + change


class AdaptedHeads(nn.Module):
    """Features (N, F) to the outputs (N, D) of all heads side by side, each through its own adapter.

    Args:
        features: F.
        widths: outputs of each head, D in sum.
    """

    def __init__(self, features: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.adapters = nn.ModuleList(Adapter(features) for _ in widths)
        self.heads = nn.ModuleList(nn.Linear(features, width) for width in widths)
        for adapter in self.adapters[1:]:
            adapter.load_state_dict(self.adapters[0].state_dict())

    def forward(self, features: Tensor) -> Tensor:
        """(N, F) to (N, D)."""
        pairs = zip(self.adapters, self.heads, strict=True)
        return torch.cat([head(adapter(features)) for adapter, head in pairs], dim=1)

    @property
    def widths(self) -> tuple[int, ...]:
        """Outputs of each head."""
        return tuple(head.out_features for head in self.heads if isinstance(head, nn.Linear))

    def spread(self) -> Tensor:
        """How far the adapters are from their mean: 1/T sum over the T heads of ||v - mean||^2, a scalar float32.

        v are all weights of a head's adapter. Evgeniou, Pontil, "Regularized Multi-Task Learning" (KDD 2004), section
        2.1, with the mean in place of a vector of its own, which is what that problem's solution makes of it.
        """
        total = torch.zeros((), device=next(self.parameters()).device)
        for weights in zip(*(adapter.parameters() for adapter in self.adapters), strict=True):
            stacked = torch.stack([weight.float() for weight in weights])
            total = total + (stacked - stacked.mean(0)).square().sum() / len(weights)
        return total


def adapted_heads(model: nn.Module) -> tuple[str, AdaptedHeads] | None:
    """A network's heads with adapters, and their name in it; None where it has none."""
    found = ((name, part) for name, part in model.named_modules() if isinstance(part, AdaptedHeads))
    return next(found, None)


def uncut_layers(model: nn.Module) -> tuple[str, ...]:
    """Layers whose own channels stay, since the other adapters have the same."""
    if (found := adapted_heads(model)) is None:
        return ()
    name, heads = found
    return tuple(f"{name}.adapters.{at}.down" for at in range(len(heads.adapters)))


def adapt_(model: nn.Module, widths: Sequence[int], *, seed: int = 0) -> nn.Module:
    """Put adapters before the heads of a network, in place: at first it computes what it did.

    Args:
        model: images (N, 3, H, W) to (N, D), by one linear layer at its end.
        widths: which of the D outputs are whose: so many of each head, in order.
        seed: of the adapters' weights.

    Returns:
        The network.

    Raises:
        ModelError: its outputs come from more than one layer, or from a convolution.
    """
    names = classifier_names(model)
    last = model.get_submodule(names[0])
    if len(names) > 1 or not isinstance(last, nn.Linear):
        raise ModelError(
            f'{type(model).__name__} does not end in one linear layer, before which task.sharing = "soft" puts'
            ' adapters; take another backbone, or task.sharing = "hard".'
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        heads = AdaptedHeads(last.in_features, widths)
    rows = zip(last.weight.split(list(widths)), last.bias.split(list(widths)), strict=True)  # type: ignore[no-untyped-call]
    for head, (weight, bias) in zip(heads.heads, rows, strict=True):
        head.load_state_dict({"weight": weight.detach(), "bias": bias.detach()})
    model.set_submodule(names[0], heads)
    return model
