"""TrivialAugment and RandAugment on batches, with the operations of torchvision's functional transforms.

torchvision's own classes draw from torch's global generator, which a background thread must not touch; here the
draws come from a generator that the caller gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Operation = Callable[[Tensor, float], Tensor]
"""(image (3, H, W) uint8, magnitude) -> image."""


def trivial_augment(images: Tensor, generator: torch.Generator, *, first: int = 0) -> Tensor:
    """One operation an image, of uniformly drawn strength over a wide range (Müller, Hutter 2021, "wide").

    Args:
        images: (N, 3, H, W) uint8.
        generator: on the CPU.
        first: where the images begin in the batch that the draws are for.

    Returns:
        As `images`.
    """
    return _apply(
        images,
        generator,
        _ranges(shear=0.99, shift=32 / 224, turn=135.0, colour=0.99, bits=6),
        1,
        None,
        first,
    )


def randaugment(
    images: Tensor, generator: torch.Generator, *, operations: int = 2, strength: float = 0.3, first: int = 0
) -> Tensor:
    """Some operations per image, all of one strength (Cubuk et al. 2020; 9 of 30 as in its ImageNet runs).

    Args:
        images: (N, 3, H, W) uint8.
        generator: on the CPU.
        operations: how many after each other.
        strength: 0..1 of each operation's range.
        first: where the images begin in the batch that the draws are for.

    Returns:
        As `images`.
    """
    ranges = _ranges(shear=0.3, shift=150 / 331, turn=30.0, colour=0.9, bits=4)
    return _apply(images, generator, ranges, operations, strength, first)


def _ranges(
    *, shear: float, shift: float, turn: float, colour: float, bits: int
) -> Mapping[str, tuple[float, bool]]:
    """Largest magnitude of each operation, and whether its sign is drawn."""
    return {
        "identity": (0.0, False),
        "shear_x": (shear, True),
        "shear_y": (shear, True),
        "shift_x": (shift, True),
        "shift_y": (shift, True),
        "rotate": (turn, True),
        "brightness": (colour, True),
        "colour": (colour, True),
        "contrast": (colour, True),
        "sharpness": (colour, True),
        "posterize": (float(bits), False),
        "solarize": (1.0, False),
        "autocontrast": (0.0, False),
        "equalize": (0.0, False),
    }


def _apply(
    images: Tensor,
    generator: torch.Generator,
    ranges: Mapping[str, tuple[float, bool]],
    operations: int,
    strength: float | None,
    first: int,
) -> Tensor:
    table = _operations()
    names = list(ranges)
    result = []
    for _ in range(first * operations):  # the draws of images that are not here
        torch.randint(len(names), (), generator=generator)
        torch.rand(2, generator=generator)
    for image in images:
        for _ in range(operations):
            name = names[int(torch.randint(len(names), (), generator=generator))]
            drawn, sign = torch.rand(2, generator=generator).tolist()
            largest, signed = ranges[name]
            magnitude = largest * (drawn if strength is None else strength)
            image = table[name](image, -magnitude if signed and sign < 0.5 else magnitude)
        result.append(image)
    return torch.stack(result)


def _operations() -> Mapping[str, Operation]:
    import torchvision.transforms.v2.functional as v2
    from torchvision.transforms.v2 import InterpolationMode

    def affine(image: Tensor, angle: float, shift: tuple[float, float], shear: tuple[float, float]) -> Tensor:
        moved: Tensor = v2.affine(
            image,
            angle=angle,
            translate=[round(shift[0] * image.shape[-1]), round(shift[1] * image.shape[-2])],
            scale=1.0,
            shear=[57.29578 * s for s in shear],
            interpolation=InterpolationMode.NEAREST,
        )
        return moved

    return {
        "identity": lambda x, m: x,
        "shear_x": lambda x, m: affine(x, 0.0, (0.0, 0.0), (m, 0.0)),
        "shear_y": lambda x, m: affine(x, 0.0, (0.0, 0.0), (0.0, m)),
        "shift_x": lambda x, m: affine(x, 0.0, (m, 0.0), (0.0, 0.0)),
        "shift_y": lambda x, m: affine(x, 0.0, (0.0, m), (0.0, 0.0)),
        "rotate": lambda x, m: affine(x, m, (0.0, 0.0), (0.0, 0.0)),
        "brightness": lambda x, m: v2.adjust_brightness(x, 1.0 + m),
        "colour": lambda x, m: v2.adjust_saturation(x, 1.0 + m),
        "contrast": lambda x, m: v2.adjust_contrast(x, 1.0 + m),
        "sharpness": lambda x, m: v2.adjust_sharpness(x, 1.0 + m),
        "posterize": lambda x, m: v2.posterize(x, 8 - round(m)),
        "solarize": lambda x, m: v2.solarize(x, 255.0 * (1.0 - m)),
        "autocontrast": lambda x, m: v2.autocontrast(x),
        "equalize": lambda x, m: v2.equalize(x),
    }
