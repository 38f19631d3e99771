"""Many images through a session: each worker decodes an image and runs the model on it while the others do the same.

On a CPU, engines give as many images per second one by one as in batches, so a worker takes one image at a time, on one
thread, and as many workers as threads keep all cores busy. On a GPU a worker takes `GPU_BATCH` of them.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import ImageError
from edgetl.inputs.spec import PreprocessSpec, normalise
from edgetl.runtime.forks import refuse
from edgetl.tasks.base import Outputs

if TYPE_CHECKING:
    from concurrent.futures import Future

    from edgetl.inputs.frame import Frame
    from edgetl.runtime.engines.base import Backend
    from edgetl.runtime.session import Channels, Picture
    from edgetl.runtime.watch import Look

T = TypeVar("T")

GPU_BATCH = 8
"""Images per call where the engine is not on the CPU."""
_WAITING = 2
"""Tasks a worker that may wait or be finished: enough that no worker idles, few enough that frames do not age."""


class Shown(NamedTuple):
    """A picture as it was given, the order of an array's channels, and what results call it."""

    picture: Picture
    channels: Channels
    name: str


class Seen(NamedTuple):
    """One image's outputs (first axis 1), where its pixels lie in the picture, what watches keep of it, and the pixels
    (S, S, 3) uint8 where there are some."""

    outputs: Outputs
    frame: Frame
    look: Look | None = None
    pixels: NDArray[np.uint8] | None = None


class Buffers:
    """One thread's buffers, reused for every image: the engine reads its input where preprocessing writes it."""

    def __init__(self, backend: Backend, spec: PreprocessSpec, count: int) -> None:
        self._backend, self._spec = backend, spec
        self._bakes = backend.input.dtype == "uint8"  # the model normalises itself
        shape = (count, spec.size, spec.size, 3) if self._bakes else (count, 3, spec.size, spec.size)
        self._images = np.zeros(shape, dtype=np.uint8 if self._bakes else np.float32)
        self._fixed = backend.input.shape[0] is not None
        self._call = backend.bind(self._images)

    def outputs(self, pixels: Sequence[NDArray[np.uint8]]) -> Outputs:
        """The outputs for up to `count` images (S, S, 3) uint8; where all are given, the next call overwrites them."""
        for row, image in enumerate(pixels):
            if self._bakes:
                self._images[row] = image
            else:
                normalise(image[None], self._spec, out=self._images[row : row + 1])
        return self._filled(len(pixels))

    def tensors(self, images: Sequence[NDArray[np.float32]]) -> Outputs:
        """As `outputs` for images (3, S, S) float32 that are normalised already, of a model that takes these."""
        for row, image in enumerate(images):
            self._images[row] = image
        return self._filled(len(images))

    def _filled(self, count: int) -> Outputs:
        if count == len(self._images):
            return self._call()
        if self._fixed:  # The other rows are of earlier images, and their outputs are nobody's.
            return {name: array[:count] for name, array in self._call().items()}
        return self._backend.run(self._images[:count])


def _rows(outputs: Outputs) -> list[Outputs]:
    """Each image's outputs, copied out of buffers."""
    kept = {name: np.array(array) for name, array in outputs.items()}
    count = len(next(iter(kept.values())))
    return [{name: array[at : at + 1] for name, array in kept.items()} for at in range(count)]


def stream(
    items: Iterable[T],
    framed: Callable[[T], tuple[NDArray[np.uint8], Frame]],
    *,
    own_buffers: Callable[[], Buffers],
    workers: int,
    batch: int,
    look: Callable[[T, NDArray[np.uint8]], Look] | None = None,
) -> Iterator[tuple[T, Seen | ImageError]]:
    """Yield each item, in order, with what the model gave, or with the reason why its image cannot be used.

    Args:
        items: what stands for images; taken a few ahead of what is yielded, so it may be endless.
        framed: gives an item's pixels (S, S, 3) and their frame; called in the workers.
        own_buffers: the calling worker's buffers.
        workers: threads.
        batch: images a task.
        look: what watches keep of an item and its pixels; called in the workers.

    Raises:
        ForkError: it was begun before the process forked.
    """
    from concurrent.futures import ThreadPoolExecutor

    def work(part: Sequence[T]) -> list[tuple[T, Seen | ImageError]]:
        found: list[tuple[NDArray[np.uint8], Frame] | ImageError] = []
        for item in part:
            try:
                found.append(framed(item))
            except ImageError as error:
                found.append(error)
        usable = [one[0] for one in found if not isinstance(one, ImageError)]
        rows = iter(_rows(own_buffers().outputs(usable)) if usable else ())
        return [
            (
                item,
                one
                if isinstance(one, ImageError)
                else Seen(next(rows), one[1], None if look is None else look(item, one[0]), one[0]),
            )
            for item, one in zip(part, found, strict=True)
        ]

    process = os.getpid()
    remaining, waiting = iter(items), deque["Future[list[tuple[T, Seen | ImageError]]]"]()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="edgetl")
    try:
        while True:
            while len(waiting) < _WAITING * workers and (part := list(islice(remaining, batch))):
                waiting.append(pool.submit(work, part))
                while waiting and waiting[0].done():  # The next item may be long in coming.
                    yield from waiting.popleft().result()
            if not waiting:
                return
            if os.getpid() != process:  # The workers stayed with the parent.
                refuse()
            yield from waiting.popleft().result()
    finally:
        # Not waited for: a stream that was left is cleaned up by the garbage collector, in whatever thread that runs,
        # and a thread that is just starting must not join another.
        pool.shutdown(wait=False, cancel_futures=True)
