"""Batches of augmented images; for a GPU, prepared in the background while the step runs."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from edgetl.config import Augment
from edgetl.train.augment import BatchPart, normalise_
from edgetl.train.episodes import Episodic, episode_order
from edgetl.train.objective import Batch
from edgetl.train.processes import SINGLE, Group
from edgetl.train.seeds import derive, numpy_generator, torch_generator
from edgetl.train.sets import FeatureSet, PixelSet, Unlabelled
from edgetl.train.tasks.base import FitTask
from edgetl.train.tasks.mixing import Mixing, mix


def epoch_order(
    strata: NDArray[np.int64],
    *,
    class_balance: bool,
    generator: np.random.Generator,
    weights: NDArray[np.float64] | None = None,
) -> NDArray[np.int64]:
    """The order in which an epoch's images are drawn; as many as there are.

    Args:
        strata: (N,) int64, the class of each, or what stands for it (`FitTask.strata`).
        class_balance: draw each class equally often (within one): rare classes' images repeat, of frequent
            classes a random part is drawn. Otherwise each image comes once.
        generator: of this epoch.
        weights: (N,), how often each image is drawn in terms of the others of its class, or of all.
    """
    n = len(strata)
    if weights is not None:
        if class_balance:
            sums = np.bincount(strata, weights=weights, minlength=int(strata.max()) + 1)
            weights = weights / np.maximum(sums[strata], 1e-12)
        return generator.choice(n, n, p=weights / weights.sum())
    if not class_balance:
        return generator.permutation(n)
    classes = np.unique(strata)
    more = generator.permutation(len(classes)) < n % len(classes)
    drawn = []
    for stratum, extra in zip(classes, more, strict=True):
        own = np.flatnonzero(strata == stratum)
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


def step_sizes(
    images: int, batch_size: int, share: float | None = None, *, least: int = 2
) -> list[tuple[int, int]]:
    """Labelled and unlabelled images of each step of an epoch, which is one pass over the labelled ones.

    A full step holds `batch_size` of both, at least one of each; the last one holds them in the same proportion.

    Args:
        images: labelled ones.
        batch_size: of both kinds together; 2 or more where there are unlabelled ones.
        share: of a step's images, in (0, 1), those that are unlabelled; there are none where None.
        least: as in `split_batches`, where there are none; with them, a step never holds one image.
    """
    if share is None:
        return [(len(rows), 0) for rows in split_batches(np.arange(images), batch_size, least=least)]
    beside = min(max(1, round(batch_size * share)), batch_size - 1)
    own = batch_size - beside
    counts = [len(rows) for rows in split_batches(np.arange(images), own, least=1)]
    return [(count, max(1, round(count * beside / own))) for count in counts]


def endless_order(images: int, start: int, count: int, seed: int) -> NDArray[np.int64]:
    """Places `start` to `start + count` of an endless row of shuffles of all images: (count,) int64."""
    first, last = start // images, (start + count - 1) // images
    shuffles = [numpy_generator(seed, n).permutation(images) for n in range(first, last + 1)]
    return np.concatenate(shuffles)[start - first * images :][:count]


class Loader:
    """One phase's batches, of images or of cached features.

    Attributes:
        waited: seconds that the last epoch spent waiting for batches.
    """

    def __init__(
        self,
        task: FitTask,
        data: PixelSet | FeatureSet,
        *,
        batch_size: int,
        augment: Augment,
        class_balance: bool,
        seed: int,
        phase: str,
        device: torch.device,
        mixing: Mixing | None = None,
        group: Group = SINGLE,
        unlabelled: Unlabelled | None = None,
        episodic: Episodic | None = None,
        prefetch: int = 2,
    ) -> None:
        assert unlabelled is None or (mixing is None and group.count == 1)
        self._task, self._data, self._augment = task, data, augment
        self._class_balance, self._seed, self._phase = class_balance, seed, phase
        self._device, self._mixing, self._prefetch = device, mixing, prefetch
        self._group, self._unlabelled, self._episodic = group, unlabelled, episodic
        share = None if unlabelled is None else unlabelled.share
        self._steps = step_sizes(len(data), batch_size, share, least=2 * group.count)
        self.waited = 0.0

    def __len__(self) -> int:
        return len(self._steps)

    def sizes(self) -> list[int]:
        """Images of each batch, over all processes together."""
        return [sum(step) for step in self._steps]

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """This process's share of the batches of one epoch, a function of only (seed, phase, epoch)."""
        generator = numpy_generator(self._seed, self._phase, epoch, "order")
        strata, sizes = self._task.strata(self._data.targets), [labelled for labelled, _ in self._steps]
        order = (
            epoch_order(
                strata,
                class_balance=self._class_balance,
                generator=generator,
                weights=self._data.weights,
            )
            if self._episodic is None
            else episode_order(strata, sizes, self._episodic, generator)
        )
        batches = np.split(order, np.cumsum(sizes)[:-1])
        self.waited = 0.0
        if isinstance(self._data, FeatureSet):
            for rows in batches:  # so cheap that a thread would cost more
                yield _features(self._data, epoch, rows[self._group.share(len(rows))], self._device)
            return
        steps = enumerate(zip(batches, self._beside(epoch), strict=True))
        calls = (partial(self._prepare, self._data, epoch, number, *rows) for number, rows in steps)
        # on a CPU a thread would take the cores from the step
        yield from map(self._made, calls) if self._device.type == "cpu" else self._ahead(calls)

    def _made(self, call: Callable[[], Batch]) -> Batch:
        """The call's batch; the time that it takes is waited for."""
        start = time.perf_counter()
        batch = call()
        self.waited += time.perf_counter() - start
        return batch

    def _ahead(self, calls: Iterable[Callable[[], Batch]]) -> Iterator[Batch]:
        """Batches that a thread makes while earlier ones are in use."""
        pending: deque[Future[Batch]] = deque()
        pool = ThreadPoolExecutor(1, thread_name_prefix="edgetl-loader")
        try:
            for call in calls:
                pending.append(pool.submit(call))
                if len(pending) > self._prefetch:
                    yield self._made(pending.popleft().result)
            while pending:
                yield self._made(pending.popleft().result)
        finally:
            # Not waited for: a generator that was left may be collected in a thread that is just starting.
            pool.shutdown(wait=False, cancel_futures=True)

    def _beside(self, epoch: int) -> list[NDArray[np.int64]]:
        """The unlabelled rows of each of an epoch's steps. Epochs go on where the one before ended."""
        counts = [count for _, count in self._steps]
        rows: NDArray[np.int64] = np.arange(0)
        if self._unlabelled is not None:
            seed = derive(derive(self._seed, "unlabelled"), self._phase)
            rows = endless_order(len(self._unlabelled.pixels), epoch * sum(counts), sum(counts), seed)
        return np.split(rows, np.cumsum(counts)[:-1])

    def _prepare(
        self, data: PixelSet, epoch: int, number: int, rows: NDArray[np.int64], beside: NDArray[np.int64]
    ) -> Batch:
        spec, own = data.spec, self._group.share(len(rows))
        # the partner of a mixed image may be another process's
        seen = slice(0, len(rows)) if self._mixing is not None else own
        taken, right, labelled, domain = data.pixels[rows[seen]], data.targets[rows[seen]], None, None
        if (further := self._unlabelled) is not None:
            taken = np.concatenate([taken, further.pixels[beside]])
            guessed = None if further.guessed is None else further.guessed[beside]
            blank = np.zeros((len(beside), *right.shape[1:]), right.dtype)
            right = np.concatenate([right, blank if guessed is None else guessed])
            own_rows = (torch.arange(len(right)) < len(rows)).to(self._device)
            labelled = own_rows if guessed is None else None
            domain = (~own_rows).long() if further.target_domain else None
            if domain is not None and data.domains is not None:
                domain[: len(rows)] = torch.from_numpy(data.domains[rows]).to(self._device)
        pixels = torch.from_numpy(np.ascontiguousarray(taken)).to(self._device)
        targets = torch.from_numpy(right).to(self._device)
        images, targets = self._task.view(
            pixels,
            targets,
            self._augment,
            spec.size,
            generator=torch_generator(self._seed, self._phase, epoch, "view", number),
            view_fraction=data.view_fraction,
            part=BatchPart(seen.start, len(rows) + len(beside)),
        )
        images = normalise_(images, spec.mean, spec.std)
        if self._mixing is not None:
            drawn = numpy_generator(self._seed, self._phase, epoch, "mix", number)
            images, targets = mix(images, self._task.shares(targets), self._mixing, drawn)
            images, targets = images[own], targets[own]
        images = images.contiguous(memory_format=torch.channels_last)
        return Batch(images=images, targets=targets, labelled=labelled, domain=domain)


def _features(data: FeatureSet, epoch: int, rows: NDArray[np.int64], device: torch.device) -> Batch:
    """A batch of the view whose turn it is in this epoch."""
    view = data.features[epoch % len(data.features)]
    targets = torch.from_numpy(data.targets[rows])
    return Batch(images=torch.from_numpy(view[rows]).to(device), targets=targets.to(device))
