"""Randomness as a function of what it is for, never of what ran before; so a resumed run draws the same."""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def derive(seed: int, *parts: str | int) -> int:
    """A seed in 0..2^63-1 for one purpose, e.g. `derive(0, "full", 3, "order")`."""
    digest = hashlib.sha256(repr((seed, *parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def torch_generator(seed: int, *parts: str | int) -> torch.Generator:
    """A generator on the CPU for one purpose."""
    return torch.Generator().manual_seed(derive(seed, *parts))


def numpy_generator(seed: int, *parts: str | int) -> np.random.Generator:
    """A generator for one purpose."""
    return np.random.default_rng(derive(seed, *parts))
