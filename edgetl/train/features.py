"""Training only the head, on features that the frozen backbone computes once per image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgetl.config import Augment
from edgetl.errors import ModelError, TensorError
from edgetl.files import atomic_path, sha256_bytes
from edgetl.progress import SILENT, Progress
from edgetl.train import state as states
from edgetl.train.augment import normalise_, training_view
from edgetl.train.cores import own_cores
from edgetl.train.devices import device_of
from edgetl.train.seeds import torch_generator
from edgetl.train.sets import FeatureSet, PixelSet

_BATCH, _PLAIN_BATCH = 64, 32


def head_of(model: nn.Module, outputs: Sequence[str], size: int) -> nn.Module:
    """The last layer as a network of its own, features -> outputs (N, D); it shares its weights with `model`.

    Args:
        model: in evaluation mode its output must be that layer's, and nothing after it.
        outputs: the layers that make the outputs (`TrainingTask.output_layers`).
        size: side of the input.

    Raises:
        ModelError: the output is more than one layer's (distilled transformers, for instance).
    """
    head = nn.Sequential(model.get_submodule(outputs[0]), nn.Flatten(1))
    device = device_of(model)
    probe = torch.linspace(-1, 1, 2 * 3 * size * size, device=device).view(2, 3, size, size)
    logits, found = _run(model, head[0], probe)
    with torch.inference_mode():
        own = head(found)
        same = len(outputs) == 1 and own.shape == logits.shape and torch.allclose(own, logits, atol=1e-5)
    if not same:
        raise ModelError(
            f"The logits of {type(model).__name__} do not come from one last layer, so its features cannot be cached."
        )
    return head


def compute(
    model: nn.Module,
    outputs: Sequence[str],
    data: PixelSet,
    folder: Path,
    *,
    views: int = 1,
    augment: Augment = Augment.NONE,
    seed: int = 0,
    progress: Progress = SILENT,
) -> FeatureSet:
    """What the last layer of `model` gets to see, computed once and cached in `folder`.

    Args:
        model: put into evaluation mode.
        outputs: the layers that make its outputs (`TrainingTask.output_layers`); the first one's input is cached.
        data: the images.
        folder: where the file is written; one made from the same images by the same weights, those of the last layer
            aside, is used again.
        views: of each image. One is evaluation's own view; of more, each is an augmented one.
        augment: the policy of the augmented views.
        seed: of the augmented views.
        progress: gets a bar.

    Raises:
        StorageError: the file cannot be written.
    """
    policy = augment if views > 1 else Augment.NONE
    weights = states.fingerprint(model, without=outputs[0])
    made_by = f"{weights} {data.identity} {views} {policy} {seed if views > 1 else ''}"
    digest = sha256_bytes(made_by.encode())
    path = folder / f"features-{digest[:24]}.npy"
    if not path.exists():
        _write(model.eval(), outputs[0], data, path, views=views, policy=policy, seed=seed, progress=progress)
    features: NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
    return FeatureSet(features, data.targets, digest)


def _write(
    model: nn.Module,
    last: str,
    data: PixelSet,
    path: Path,
    *,
    views: int,
    policy: Augment,
    seed: int,
    progress: Progress,
) -> None:
    layer = model.get_submodule(last)
    home = device_of(model)
    device = torch.device("cuda") if torch.cuda.is_available() else home
    model.to(device)
    starts = range(0, len(data), _BATCH)
    kept: np.memmap[tuple[int, ...], np.dtype[np.float32]] | None = None
    with (
        own_cores(device),
        atomic_path(path) as temporary,
        progress.task("features", views * len(starts)) as task,
    ):
        for view in range(views):
            for start in starts:
                rows = slice(start, start + _BATCH)
                generator = torch_generator(seed, "features", view, start)
                images = _views(data, rows, policy, generator, device)
                found = _run(model, layer, images)[1].float().cpu().numpy()
                if kept is None:
                    shape = (views, len(data), *found.shape[1:])
                    kept = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape)
                kept[view, rows] = found
                task.advance()
        if kept is None:
            raise TensorError("pixels: no images came.")
        kept.flush()
    model.to(home)


def plain_views(data: PixelSet, most: int) -> Iterator[Tensor]:
    """Batches (n, 3, S, S) of images as evaluation sees them, of at most `most` evenly spread ones."""
    rows = np.unique(np.linspace(0, len(data) - 1, min(most, len(data))).round().astype(np.int64))
    batches = max(1, math.ceil(len(rows) / _PLAIN_BATCH))
    for first in range(batches):  # classes often stand one after the other: each batch gets some of all
        yield _views(data, rows[first::batches], Augment.NONE, torch.Generator(), torch.device("cpu"))


def _views(
    data: PixelSet,
    rows: slice | NDArray[np.int64],
    policy: Augment,
    generator: torch.Generator,
    device: torch.device,
) -> Tensor:
    spec = data.spec
    pixels = torch.from_numpy(np.array(data.pixels[rows])).to(device)
    images = training_view(pixels, policy, spec.size, generator=generator, view_fraction=data.view_fraction)
    return normalise_(images, spec.mean, spec.std).contiguous(memory_format=torch.channels_last)


def _run(model: nn.Module, layer: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """The logits and what `layer` was given."""
    seen: list[Tensor] = []
    training = model.training
    hook = layer.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    try:
        with torch.inference_mode():
            logits: Tensor = model.eval()(images)
    finally:
        hook.remove()
        model.train(training)
    return logits, seen[0]
