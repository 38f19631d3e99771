"""A detector: a backbone's maps of three sizes, a light neck that mixes them, and heads that give classes and boxes.

Legend: N images, S their side; A places, S/8 * S/8 + S/16 * S/16 + S/32 * S/32 of them; C classes. Anchor-free
(Tian et al. 2019): each place says how far the sides of a box lie from its centre. The neck is a path aggregation
network (Liu et al. 2018) of depthwise separable convolutions with sums in place of concatenations, which cost less when
channels are cut.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgetl.errors import ConfigError, ModelError

STRIDES = (8, 16, 32)
WIDTH = 96
"""Channels of the neck and the heads."""
_DEPTH = 2
_PRIOR = 0.01
"""The score that each place starts with (Lin et al. 2017), so that background does not drown the first steps."""
FARTHEST = 6.0
"""Logarithm of the largest distance in strides, beyond any picture; keeps half precision finite."""


class Detector(nn.Module):
    """Images (N, 3, S, S) to raw maps (N, A, 4 + C): logarithms of distances, and logits of the classes.

    Args:
        backbone: gives a list of maps of strides 8, 16 and 32.
        channels: of these maps.
        classes: C.
        width: channels of neck and heads.
    """

    def __init__(
        self, backbone: nn.Module, channels: tuple[int, ...], classes: int, width: int = WIDTH
    ) -> None:
        super().__init__()
        self.classes = classes
        self.backbone = backbone
        self.lateral = nn.ModuleList(_pointwise(c, width) for c in channels)
        self.down_mix = nn.ModuleList(_separable(width, width) for _ in channels[:-1])
        self.up = nn.ModuleList(_separable(width, width, stride=2) for _ in channels[:-1])
        self.up_mix = nn.ModuleList(_separable(width, width) for _ in channels[:-1])
        self.class_heads = nn.ModuleList(_tower(width) for _ in channels)
        self.box_heads = nn.ModuleList(_tower(width) for _ in channels)
        self.class_out = nn.ModuleList(nn.Conv2d(width, classes, 1) for _ in channels)
        self.box_out = nn.ModuleList(nn.Conv2d(width, 4, 1) for _ in channels)
        for out in self.class_out:
            assert isinstance(out, nn.Conv2d)
            assert out.bias is not None
            nn.init.normal_(out.weight, std=0.01)
            nn.init.constant_(out.bias, -math.log((1 - _PRIOR) / _PRIOR))
        for out in self.box_out:
            assert isinstance(out, nn.Conv2d)
            assert out.bias is not None
            nn.init.normal_(out.weight, std=0.01)
            nn.init.constant_(out.bias, math.log(2.0))

    def maps(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Per stride (N, 4, H, W) and (N, C, H, W): what is pruned, distilled and quantized."""
        levels = [lateral(level) for lateral, level in zip(self.lateral, self.backbone(images), strict=True)]
        for at in range(len(levels) - 2, -1, -1):
            above = nn.functional.interpolate(levels[at + 1], scale_factor=2.0, mode="nearest")
            levels[at] = self.down_mix[at](levels[at] + above)
        for at in range(1, len(levels)):
            levels[at] = self.up_mix[at - 1](levels[at] + self.up[at - 1](levels[at - 1]))
        return [
            (self.box_out[at](self.box_heads[at](level)), self.class_out[at](self.class_heads[at](level)))
            for at, level in enumerate(levels)
        ]

    def forward(self, images: Tensor) -> Tensor:
        """(N, A, 4 + C), the maps one behind the other, row by row."""
        return self.joined(self.maps(images))

    @staticmethod
    def joined(maps: list[tuple[Tensor, Tensor]]) -> Tensor:
        """(N, A, 4 + C) from `maps`."""
        rows = [torch.cat(pair, dim=1).flatten(2) for pair in maps]
        return torch.cat(rows, dim=2).transpose(1, 2)

    def new_layers(self) -> tuple[str, ...]:
        """Names of all parts but the backbone."""
        return tuple(name for name, _ in self.named_children() if name != "backbone")

    def output_layers(self) -> tuple[str, ...]:
        """Names of the convolutions that make the maps."""
        return tuple(f"{kind}.{at}" for kind in ("box_out", "class_out") for at in range(len(self.box_out)))


def places(size: int) -> tuple[Tensor, Tensor]:
    """Centres (A, 2) as (x, y) and strides (A, 1) in pixels of an input of side `size`, in the order of the maps.

    Raises:
        ModelError: the side is no multiple of the largest stride.
    """
    if size % STRIDES[-1]:
        raise ModelError(
            f"A detector's input side is a multiple of {STRIDES[-1]}, got {size}: "
            f"set preprocess.size = {max(1, round(size / STRIDES[-1])) * STRIDES[-1]}."
        )
    centres, strides = [], []
    for stride in STRIDES:
        line = (torch.arange(size // stride, dtype=torch.float32) + 0.5) * stride
        y, x = torch.meshgrid(line, line, indexing="ij")
        centres.append(torch.stack([x, y], dim=-1).reshape(-1, 2))
        strides.append(torch.full((len(line) ** 2, 1), float(stride)))
    return torch.cat(centres), torch.cat(strides)


def check_side(size: int, setting: str) -> None:
    """Refuse an input side whose maps would not fit into one another.

    Args:
        size: the side in pixels.
        setting: the recipe's that says it.

    Raises:
        ConfigError: it is no multiple of the largest stride.
    """
    if beyond := size % STRIDES[-1]:
        below = size - beyond
        fitting = [str(side) for side in (below, below + STRIDES[-1]) if side]
        raise ConfigError(
            f"A detector's input side is a multiple of {STRIDES[-1]}, got {size}: set {setting} ="
            f" {' or '.join(fitting)}."
        )


def decode(raw: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Raw maps (N, A, 4 + C) of images of side `size` to boxes (N, A, 4) in pixels and scores (N, A, C), float32."""
    centres, strides = (tensor.to(raw.device) for tensor in places(size))
    return boxes_of(raw[..., :4].float(), centres, strides), raw[..., 4:].float().sigmoid()


def boxes_of(distances: Tensor, centres: Tensor, strides: Tensor) -> Tensor:
    """Logarithms of distances (..., A, 4), in strides, to boxes (..., A, 4) as (x1, y1, x2, y2) in pixels."""
    reach = distances.clamp(max=FARTHEST).exp() * strides
    return torch.cat([centres - reach[..., :2], centres + reach[..., 2:]], dim=-1)


def create_detector(
    name: str, classes: int, weights: Any = None, *, seed: int = 0, labels: Sequence[str] | None = None
) -> Detector:
    """A detector on a timm backbone; see `edgetl.models.backbones.create` for names, weights and labels.

    Of a detector's checkpoint the neck and the heads are taken too, without the classes where these are others.

    Raises:
        ModelError: timm has no such backbone, or it gives no maps of strides 8, 16 and 32.
        WeightsError: the weights cannot be had or do not fit.
    """
    import timm

    from edgetl.models.backbones import NO_WEIGHTS, PRETRAINED, Library, create, resolve
    from edgetl.models.weights import fit_weights, read_weights

    found = resolve(name)
    if found.source is Library.TORCHVISION:
        raise ModelError(
            f"{name} is torchvision's, whose networks give no maps; name one of timm's, or efficientnet_lite0."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            body = timm.create_model(found.name, pretrained=False, features_only=True, out_indices=(2, 3, 4))
        except (RuntimeError, ValueError, AssertionError, AttributeError, IndexError) as error:
            raise ModelError(f"{name} gives no maps of three sizes ({error}).") from error
        info: Any = body.feature_info
        if tuple(info.reduction()) != STRIDES:
            strides = ", ".join(map(str, info.reduction()))
            raise ModelError(f"{name} gives maps of strides {strides}; 8, 16 and 32 are needed.")
        detector = Detector(body, tuple(info.channels()), classes)
    if weights is not None and str(weights) not in (NO_WEIGHTS, PRETRAINED):
        given = read_weights(Path(weights))
        if given.detector:
            named = f"a detector on {found.name}"
            heads = tuple(f"class_out.{at}" for at in range(len(detector.class_out)))
            fit_weights(detector, given, heads=heads, network=named, origin=str(weights), labels=labels)
            return detector
    if weights is not None and str(weights) != NO_WEIGHTS:
        own, whole = body.state_dict(), create(name, 1000, weights, seed=seed).state_dict()
        fitting = {
            key: whole[key] for key, value in own.items() if key in whole and whole[key].shape == value.shape
        }
        if len(fitting) < 0.9 * len(own):
            raise ModelError(
                f"The weights of {name} fit {len(fitting)} of the {len(own)} tensors of its maps."
            )
        body.load_state_dict(own | fitting)
    return detector


def _norm_act(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.ReLU6(inplace=True)]


def _pointwise(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), *_norm_act(outputs))


def _separable(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
        *_norm_act(inputs),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        *_norm_act(outputs),
    )


def _tower(width: int) -> nn.Sequential:
    return nn.Sequential(*(_separable(width, width) for _ in range(_DEPTH)))
