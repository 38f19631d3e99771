"""Batches of augmented images, prepared in the background while the step runs."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgetl.config import Augment
from edgetl.train.augment import Part, normalise_, training_view
from edgetl.train.mixing import Mixing, mix
from edgetl.train.processes import ALONE, Group
from edgetl.train.seeds import numpy_generator, torch_generator
from edgetl.train.sets import FeatureSet, PixelSet

Batch = tuple[Tensor, Tensor]
"""images (N, 3, S, S) float32, channels last, or features (N, ...) float32; labels (N,) int64, or (N, C) float32
shares where images are mixed."""


def epoch_order(
    labels: NDArray[np.int64], *, class_balance: bool, generator: np.random.Generator
) -> NDArray[np.int64]:
    """The order in which an epoch's images are drawn; as many as there are labels.

    Args:
        labels: (N,) int64.
        class_balance: draw each class equally often (within one): rare classes' images repeat, of frequent
            classes a random part is drawn. Otherwise each image comes once.
        generator: of this epoch.
    """
    n = len(labels)
    if not class_balance:
        return generator.permutation(n)
    classes = np.unique(labels)
    more = generator.permutation(len(classes)) < n % len(classes)
    drawn = []
    for label, extra in zip(classes, more, strict=True):
        own = np.flatnonzero(labels == label)
        count = n // len(classes) + int(extra)
        rounds = [generator.permutation(own) for _ in range(-(-count // len(own)))]
        drawn.append(np.concatenate(rounds)[:count] if rounds else own[:0])
    return generator.permutation(np.concatenate(drawn))


def split_batches(order: NDArray[np.int64], batch_size: int, *, least: int = 2) -> list[NDArray[np.int64]]:
    """Cut an epoch into batches. Fewer than `least` images left over join the batch before: batch norm needs two."""
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    if len(batches) > 1 and len(batches[-1]) < least <= batch_size:
        batches[-2:] = [np.concatenate(batches[-2:])]
    return batches


class Loader:
    """One phase's batches, of images or of kept features.

    Attributes:
        waited: seconds that the last epoch spent waiting for batches.
    """

    def __init__(
        self,
        data: PixelSet | FeatureSet,
        *,
        batch_size: int,
        augment: Augment,
        class_balance: bool,
        seed: int,
        phase: str,
        device: torch.device,
        mixing: Mixing | None = None,
        group: Group = ALONE,
        prefetch: int = 2,
    ) -> None:
        self._data, self._batch_size, self._augment = data, batch_size, augment
        self._class_balance, self._seed, self._phase = class_balance, seed, phase
        self._device, self._mixing, self._prefetch = device, mixing, prefetch
        self._group, self._least = group, 2 * group.count
        self.waited = 0.0

    def __len__(self) -> int:
        return len(self.sizes())

    def sizes(self) -> list[int]:
        """Images of each batch, over all processes together."""
        whole = np.arange(len(self._data))
        return [len(rows) for rows in split_batches(whole, self._batch_size, least=self._least)]

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """This process's share of the batches of one epoch, a function of (seed, phase, epoch) alone."""
        generator = numpy_generator(self._seed, self._phase, epoch, "order")
        order = epoch_order(self._data.labels, class_balance=self._class_balance, generator=generator)
        batches = split_batches(order, self._batch_size, least=self._least)
        self.waited = 0.0
        if isinstance(self._data, FeatureSet):
            for rows in batches:  # so cheap that a thread would cost more
                yield _features(self._data, epoch, rows[self._group.share(len(rows))], self._device)
            return
        pending: deque[Future[Batch]] = deque()
        pool = ThreadPoolExecutor(1, thread_name_prefix="edgetl-loader")
        try:
            for number, rows in enumerate(batches):
                pending.append(pool.submit(self._prepare, self._data, epoch, number, rows))
                if len(pending) > self._prefetch:
                    yield self._take(pending)
            while pending:
                yield self._take(pending)
        finally:
            # Not waited for: a generator that was left may be collected in a thread that is just starting.
            pool.shutdown(wait=False, cancel_futures=True)

    def _take(self, pending: deque[Future[Batch]]) -> Batch:
        start = time.perf_counter()
        batch = pending.popleft().result()
        self.waited += time.perf_counter() - start
        return batch

    def _prepare(self, data: PixelSet, epoch: int, number: int, rows: NDArray[np.int64]) -> Batch:
        spec, own = data.spec, self._group.share(len(rows))
        # the partner of a mixed image may be another process's
        seen = slice(0, len(rows)) if self._mixing is not None else own
        pixels = torch.from_numpy(np.ascontiguousarray(data.pixels[rows[seen]])).to(self._device)
        labels = torch.from_numpy(data.labels[rows[seen]].astype(np.int64)).to(self._device)
        images = training_view(
            pixels,
            self._augment,
            spec.size,
            generator=torch_generator(self._seed, self._phase, epoch, "view", number),
            view_fraction=data.view_fraction,
            part=Part(seen.start, len(rows)),
        )
        images = normalise_(images, spec.mean, spec.std)
        if self._mixing is not None:
            drawn = numpy_generator(self._seed, self._phase, epoch, "mix", number)
            images, labels = mix(images, labels, self._mixing, drawn)
            images, labels = images[own], labels[own]
        return images.contiguous(memory_format=torch.channels_last), labels


def _features(data: FeatureSet, epoch: int, rows: NDArray[np.int64], device: torch.device) -> Batch:
    """A batch of the view whose turn it is in this epoch."""
    view = data.features[epoch % len(data.features)]
    labels = torch.from_numpy(data.labels[rows].astype(np.int64))
    return torch.from_numpy(view[rows]).to(device), labels.to(device)
