"""A session: a bundle's model ready to label images, with the preprocessing that it was trained with."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgetl.bundle.archive import Bundle, open_bundle
from edgetl.bundle.golden import GoldenCheck, compare, pixels_sha256
from edgetl.bundle.manifest import InputForm, Manifest, Variant
from edgetl.errors import ImageError, ModelError, TensorError
from edgetl.metrics import softmax, topk
from edgetl.preprocess import load_pixels, to_pixels
from edgetl.runtime.backend import Backend, TensorSpec, describe, run_pixels

Picture = str | Path | bytes | Image.Image | NDArray[np.uint8]
"""A file, an encoded image, a Pillow image, or an array (H, W, 3) RGB uint8."""

BATCH = 32
"""Images that `predict` gives to the engine at once."""
_VIDEO = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".ts"}


@dataclass(frozen=True, slots=True)
class Score:
    """One class's probability (softmax of the logits), in 0..1."""

    label: str
    index: int
    score: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """The best class of an image, and the `top` best, best first."""

    label: str
    index: int
    score: float
    top: tuple[Score, ...]


class Session:
    """A loaded model variant. `run` and `predict` may be called from many threads.

    Attributes:
        bundle: the opened bundle.
        variant: which model runs.
        backend: the inference engine.
    """

    def __init__(self, bundle: Bundle, variant: Variant, backend: Backend) -> None:
        """Raises ModelError where the model does not fit the manifest; use `load` instead."""
        self.bundle, self.variant, self.backend = bundle, variant, backend
        self._spec = bundle.manifest.preprocess
        size, classes = self._spec.size, len(bundle.manifest.labels)
        self._floats = TensorSpec(name=backend.input.name, dtype="float32", shape=(None, 3, size, size))
        self._bytes = TensorSpec(name=backend.input.name, dtype="uint8", shape=(None, size, size, 3))
        self._bakes = variant.input is InputForm.UINT8
        takes = self._bytes if self._bakes else self._floats
        for tensor, dtype, shape in (
            (backend.input, takes.dtype, takes.shape[1:]),
            (backend.output, "float32", (classes,)),
        ):
            fits = all(have in (None, want) for have, want in zip(tensor.shape[1:], shape, strict=True))
            if not fits or tensor.dtype != dtype:
                raise ModelError(
                    f"{bundle.path}: tensor {tensor.name} of variant {variant.name} is {tensor}, "
                    f"the manifest says (N, {', '.join(map(str, shape))}) {dtype}."
                )

    @property
    def manifest(self) -> Manifest:
        """The bundle's description."""
        return self.bundle.manifest

    @property
    def labels(self) -> tuple[str, ...]:
        """`labels[i]` names logit i."""
        return self.bundle.manifest.labels

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Logits of a batch.

        Args:
            batch: (N, S, S, 3) uint8 RGB, which is normalised here or in the model; or, for a variant that leaves
                that to its caller, (N, 3, S, S) float32, normalised.

        Returns:
            (N, C) float32.

        Raises:
            TensorError: another shape or dtype came; the message says which was expected.
        """
        if isinstance(batch, np.ndarray) and batch.ndim == 4:
            if batch.dtype == np.float32 and batch.shape[1:] == self._floats.shape[1:] and not self._bakes:
                return self.backend.run(batch)
            if batch.dtype == np.uint8 and batch.shape[1:] == self._bytes.shape[1:]:
                return run_pixels(self.backend, batch, self._spec)
        takes = f"{self._bytes}" if self._bakes else f"{self._floats} or {self._bytes}"
        raise TensorError(f"{self._floats.name}: got {describe(batch)}, expected {takes}.")

    @overload  # A str is a sequence of str, yet it is one path.
    def predict(self, image: Picture, *, top_k: int = 1) -> Prediction: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, image: Sequence[Picture], *, top_k: int = 1) -> list[Prediction]: ...
    def predict(self, image: Picture | Sequence[Picture], *, top_k: int = 1) -> Prediction | list[Prediction]:
        """Label one image, or a list of them in batches.

        Args:
            image: one picture or a sequence of them; see `Picture`. A 4-dimensional array is a sequence.
            top_k: how many classes `Prediction.top` lists.

        Raises:
            ImageError: a picture cannot be used; the message names it.
            TensorError: an array has another shape or dtype.
            ValueError: top_k is below 1.
        """
        if top_k < 1:
            raise ValueError(f"top_k is {top_k}, expected at least 1")
        many = _sequence(image)
        if many is None:
            return self.rank(self.run(self.pixels(cast(Picture, image))[None]), top_k)[0]
        found: list[Prediction] = []
        with ThreadPoolExecutor(max(1, self.backend.threads)) as pool:
            for start in range(0, len(many), BATCH):
                # Decoding takes longer than a small model does, and Pillow lets go of the interpreter's lock.
                pixels = list(pool.map(self.pixels, many[start : start + BATCH]))
                found += self.rank(self.run(np.stack(pixels)), top_k)
        return found

    def pixels(self, image: Picture) -> NDArray[np.uint8]:
        """Decode, resize and crop one picture to (size, size, 3) uint8.

        Raises:
            ImageError: it cannot be used; the message names it.
            TensorError: it is an array of another shape or dtype, or no picture at all.
        """
        if isinstance(image, np.ndarray | Image.Image):
            return to_pixels(image, self._spec)
        if isinstance(image, bytes):
            return load_pixels(image, self._spec)
        if not isinstance(image, str | Path):
            raise TensorError(
                f"image: got {describe(image)}, expected a path, bytes, a Pillow image or (H, W, 3) uint8."
            )
        path = Path(image)
        if path.suffix.lower() in _VIDEO:
            raise ImageError(
                f"{path} is a video, which this version does not read. Extract its frames first: "
                f"mkdir frames && ffmpeg -i {path.name} frames/%06d.png"
            )
        return load_pixels(path, self._spec)

    def rank(self, logits: NDArray[np.float32], top_k: int = 1) -> list[Prediction]:
        """One prediction for each row of logits (N, C)."""
        probabilities, best = softmax(logits), topk(logits, top_k)
        found = []
        for row, indices in zip(probabilities, best, strict=True):
            top = tuple(Score(self.labels[i], int(i), float(row[i])) for i in indices)
            found.append(Prediction(top[0].label, top[0].index, top[0].score, top))
        return found

    def verify(self) -> GoldenCheck:
        """Check the bundle's hashes, then run the golden images from their encoded bytes; compare the logits.

        So decoding, preprocessing and the engine are proven together; `edgetl.bundle.golden` has the
        tolerance.

        Raises:
            BundleIntegrityError: a file of the bundle was altered.
        """
        self.bundle.verify()
        pixels = np.stack([load_pixels(content, self._spec) for content in self.bundle.golden_images()])
        logits = np.concatenate([self.run(pixels[i : i + 1]) for i in range(len(pixels))])
        return compare(
            variant=self.variant.name,
            precision=self.variant.precision,
            recorded=self.bundle.golden_logits(self.variant.name),
            computed=logits,
            pixels_identical=pixels_sha256(pixels) == self.manifest.golden.pixels_sha256,
        )

    def close(self) -> None:
        """Free the model."""
        self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def load(path: str | Path, *, variant: str | None = None, threads: int | None = None) -> Session:
    """Open a bundle and load one of its models.

    Args:
        path: the bundle, `NAME.edgetl`.
        variant: a variant's name; the bundle's default one where unset.
        threads: threads of the inference engine; every usable core where unset.

    Raises:
        BundleError: the bundle is missing, broken, of a newer schema, or has no such variant.
        MissingDependencyError: ONNX Runtime is not installed.
        ModelError: the model cannot be loaded, or does not fit the manifest.
        ValueError: threads is below 1.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"threads is {threads}, expected at least 1")
    from edgetl.runtime.onnx_backend import OnnxBackend

    bundle = open_bundle(Path(path))
    chosen = bundle.variant(variant)
    return Session(bundle, chosen, OnnxBackend(bundle.read(chosen.member), threads=threads))


def _sequence(images: Any) -> Sequence[Picture] | None:
    """The images as a sequence, or None where they are one picture."""
    if isinstance(images, np.ndarray):
        return list(images) if images.ndim == 4 else None
    return None if isinstance(images, str | bytes) or not isinstance(images, Sequence) else images
