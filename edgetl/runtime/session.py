"""A session: a bundle's model ready to label images, with the preprocessing that it was trained with."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    TypeAlias,
    TypeVar,
    cast,
    overload,
)

import numpy as np
from numpy.typing import NDArray

from edgetl.bundle.archive import Bundle, open_bundle
from edgetl.bundle.manifest import InputForm, Manifest, Precision, Variant
from edgetl.errors import (
    ConfigError,
    EdgetlError,
    ImageError,
    MissingDependencyError,
    ModelError,
    TensorError,
)
from edgetl.process import collector_off, usable_cores
from edgetl.runtime.choice import choose_here, unmeasured_gpus
from edgetl.runtime.engines.base import Backend, Opening, describe, run_pixels
from edgetl.runtime.engines.table import engine_of
from edgetl.runtime.forks import Inheritable, refuse
from edgetl.runtime.stream import GPU_BATCH, Buffers, Seen, Shown, stream
from edgetl.runtime.targets import Choice, EngineName
from edgetl.runtime.video import SUFFIXES as VIDEO_SUFFIXES
from edgetl.shell import command
from edgetl.tasks.all import Prediction, task_of
from edgetl.tasks.base import (
    Classification,
    Detection,
    Outputs,
    TaskSpec,
    TensorSpec,
    joined,
)
from edgetl.tasks.relations import Tree

if TYPE_CHECKING:
    from PIL import Image

    from edgetl.bundle.golden import GoldenCheck
    from edgetl.bundle.reference import Reference
    from edgetl.inputs.frame import Frame
    from edgetl.records.captured import CaptureState
    from edgetl.records.drift import DriftState
    from edgetl.runtime.capture import Capture
    from edgetl.runtime.drift import Drift
    from edgetl.runtime.explain import Explained
    from edgetl.runtime.features import PooledHead
    from edgetl.runtime.unknown.judge import Judge
    from edgetl.runtime.watch import Look, Watch
    from edgetl.tasks.conformal import Conformity


T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)
P = TypeVar("P", bound="Picture")
Picture: TypeAlias = "str | Path | bytes | Image.Image | NDArray[Any]"
"""A file, an encoded image, a Pillow image, or an array: (H, W, 3) or (H, W), uint8, or uint16 or float32, whose
numbers become 8 bits as those of files do, by the bundle's window."""
Channels = Literal["rgb", "bgr"]
"""The order of an array's channels: `bgr` for what OpenCV gives."""


class Session(Inheritable):
    """A loaded model variant. `run` and `predict` may be called from many threads.

    Attributes:
        bundle: the opened bundle.
        variant: which model runs.
        backend: the inference engine.
        task: what its outputs answer.
        choice: which variant and engine were chosen, and why.
        watch: what takes every answer of `predict`, to watch for drift or to keep images; None where nothing does.
    """

    def __init__(
        self,
        bundle: Bundle,
        variant: Variant,
        backend: Backend,
        *,
        choice: Choice,
        single: Callable[[], Backend] | None = None,
        head: PooledHead | None = None,
        showing: Callable[[], Session] | None = None,
        workers: int | None = None,
    ) -> None:
        """Raises ModelError where the model does not fit the manifest; use `load` instead.

        `single` opens the same model on one thread, for workers that each run their own image; where there is
        none, workers share `backend`. `head` is there where the model also gives its feature map; elsewhere
        `showing` opens such a session. `workers` is how many images of many are worked on at once, on the CPU: as
        many as the engine has threads where unset.
        """
        self.bundle, self.variant, self.backend, self.choice = bundle, variant, backend, choice
        self.task = task_of(bundle.manifest.task, variant.temperatures)
        self._spec = bundle.manifest.preprocess
        self._swapped = replace(self._spec, mean=self._spec.mean[::-1])  # Padding is filled with the mean.
        self._conformities: dict[str, Conformity] | None = None
        self._single, self._shared = single, backend if single is None else None
        self._local, self._lock, self._closed = threading.local(), threading.Lock(), False
        self._head, self._open_showing = head, showing
        self._workers = max(1, backend.threads if workers is None else workers)
        self._showing: Session | None = None
        self._known: Reference | None = None
        self._judge: Judge | None = None
        self.watch: Watch | None = None
        self.watch_forks()
        size = self._spec.size
        self._floats = TensorSpec(name=backend.input.name, dtype="float32", shape=(None, 3, size, size))
        self._bytes = TensorSpec(name=backend.input.name, dtype="uint8", shape=(None, size, size, 3))
        self._bakes = variant.input is InputForm.UINT8
        takes, which = self._bytes if self._bakes else self._floats, f"variant {variant.name}"
        if not _fits(backend.input, takes):
            raise ModelError(
                f"{bundle.path}: tensor {backend.input.name} of {which} is {backend.input}, the manifest says {takes}."
            )
        for wanted in self.task.outputs:
            if not any(found.name == wanted.name and _fits(found, wanted) for found in backend.outputs):
                gives = ", ".join(f"{found.name} {found}" for found in backend.outputs)
                raise ModelError(
                    f"{bundle.path}: {which} gives {gives}; the manifest's task, {self.task.spec.kind}, asks for "
                    f"{wanted.name} {wanted}."
                )

    @property
    def head(self) -> PooledHead | None:
        """The end of the network, where the outputs have its feature map; see `with_features`."""
        return self._head

    @property
    def manifest(self) -> Manifest:
        """The bundle's description."""
        return self.bundle.manifest

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names; of several heads each as `head/name`."""
        return self.bundle.manifest.labels

    @property
    def workers(self) -> int:
        """How many threads at once keep the machine busy, each with images of its own."""
        return self._workers if engine_of(self.choice.target).on_cpu else usable_cores()

    @property
    def batch(self) -> int:
        """Images per call that are worth waiting for: the engine's own number where that is fixed."""
        on_cpu = engine_of(self.choice.target).on_cpu
        return self.backend.input.shape[0] or (1 if on_cpu else GPU_BATCH)

    def buffers(self, count: int, *, beside: bool) -> Buffers:
        """Buffers of one thread for up to `count` images per call, for what makes batches of images as they come.

        Args:
            count: images per call; where the engine's number is fixed, that one counts.
            beside: other threads run the model meanwhile, so that on the CPU each call takes one core, not all.
        """
        self._check_open()
        backend = self._workers_backend() if beside else self.backend
        return Buffers(backend, self._spec, backend.input.shape[0] or count)

    def run(self, batch: NDArray[Any]) -> Outputs:
        """The outputs for a batch.

        Args:
            batch: (N, S, S, 3) uint8 RGB, which is normalised here or in the model; or, for a variant that leaves
                that to its caller, (N, 3, S, S) float32, normalised.

        Returns:
            Float32 arrays by name, as `task.outputs` describes them.

        Raises:
            TensorError: another shape or dtype came; the message says which was expected.
        """
        self._check_open()
        if isinstance(batch, np.ndarray) and batch.ndim == 4:
            if batch.dtype == np.float32 and batch.shape[1:] == self._floats.shape[1:] and not self._bakes:
                return self.backend.run(batch)
            if batch.dtype == np.uint8 and batch.shape[1:] == self._bytes.shape[1:]:
                return run_pixels(self.backend, batch, self._spec)
        takes = f"{self._bytes}" if self._bakes else f"{self._floats} or {self._bytes}"
        raise TensorError(f"{self._floats.name}: got {describe(batch)}, expected {takes}.")

    @overload  # A str is a sequence of str, yet it is one path.
    def predict(  # type: ignore[overload-overlap]
        self,
        image: Picture,
        *,
        top_k: int = 1,
        channels: Channels = "rgb",
        sure: float | None = None,
        coverage: float | None = None,
        unknown: float | None = None,
        explain: Literal[False] = False,
    ) -> Prediction: ...
    @overload
    def predict(
        self,
        image: Sequence[Picture],
        *,
        top_k: int = 1,
        channels: Channels = "rgb",
        sure: float | None = None,
        coverage: float | None = None,
        unknown: float | None = None,
        explain: Literal[False] = False,
    ) -> list[Prediction]: ...
    @overload
    def predict(  # type: ignore[overload-overlap]
        self,
        image: Picture,
        *,
        top_k: int = 1,
        channels: Channels = "rgb",
        sure: float | None = None,
        coverage: float | None = None,
        unknown: float | None = None,
        explain: Literal[True],
    ) -> Explained: ...
    @overload
    def predict(
        self,
        image: Sequence[Picture],
        *,
        top_k: int = 1,
        channels: Channels = "rgb",
        sure: float | None = None,
        coverage: float | None = None,
        unknown: float | None = None,
        explain: Literal[True],
    ) -> list[Explained]: ...
    def predict(
        self,
        image: Picture | Sequence[Picture],
        *,
        top_k: int = 1,
        channels: Channels = "rgb",
        sure: float | None = None,
        coverage: float | None = None,
        unknown: float | None = None,
        explain: bool = False,
    ) -> Prediction | list[Prediction] | Explained | list[Explained]:
        """Label one image, or a list of them.

        Args:
            image: one picture or a sequence of them; see `Picture`. A 4-dimensional array (N, H, W, 3) is a
                sequence.
            top_k: how many answers a prediction lists, where the task ranks them.
            channels: the order of an array's channels.
            sure: the least probability of an answer, above 0 and at most 1, where the bundle knows a tree of its
                classes: where the best class has less, the answer is the smallest group around it that has enough.
            coverage: how often the prediction's set of labels, `possible`, is to hold the truth, above 0 and below 1:
                that of an image like the validation images, on average over images. These also chose epochs and
                variant, so that it holds to an approximation (`edgetl.tasks.conformal`).
            unknown: how often an image like the validation images may be called unknown, above 0 and below 1, as 0.05:
                where an answer's `unknown` says so, the image is unlike these (`edgetl.runtime.unknown`). Where the
                variant judges by features, the first such call loads the model as for `explain`.
            explain: give each answer with a class activation map of what it names (`edgetl.runtime.explain`). The
                first such call loads the model once more, with its feature map as a further output; `load` with
                `explain=True` loads that alone.

        Raises:
            BundleError: coverage or unknown is asked of a variant that was made before bundles knew of it.
            ConfigError: sure is out of range, or the bundle knows no tree of its classes; coverage or unknown is out of
                range, asks more than the validation images allow, or is asked of a detector; or a detector is to
                explain.
            ImageError: a picture cannot be used; the message names it.
            ModelError: the network's answers are not linear in its pooled features, so there is no such map.
            TensorError: an array has another shape or dtype.
            ForkError: the session was loaded before the process forked.
            ValueError: top_k is below 1, channels is unknown, or the session is closed.
        """
        if top_k < 1:
            raise ValueError(f"top_k is {top_k}, expected at least 1")
        if channels not in ("rgb", "bgr"):
            raise ValueError(f"channels is {channels!r}, expected 'rgb' or 'bgr'")
        if sure is not None:
            self.check_sure(sure)
        if coverage is not None:
            self.least_conformities(coverage)
        own = self if unknown is None else self.telling(unknown)
        many = _sequence(image)
        if explain:
            return self.explaining()._explain(image, many, top_k, channels, sure, coverage, unknown)
        if many is None:
            seen = own.see(cast("Picture", image), channels=channels)
            return own.answer(seen, top_k, sure, coverage, unknown)
        return [own.answer(seen, top_k, sure, coverage, unknown) for seen in own._rows(many, channels)]

    def outputs_of(self, pictures: Iterable[P]) -> Iterator[tuple[P, Outputs | ImageError]]:
        """Yield each picture, in order, with its outputs (first axis 1), or with the reason why it cannot be used.

        Decoding and the model run side by side, in as many workers as threads were asked for or cores are usable.

        Args:
            pictures: a few are taken ahead, so there may be no end to them.

        Raises:
            TensorError: an array has another shape or dtype.
        """
        for picture, seen in self.seen(pictures, self.framed):
            yield picture, seen if isinstance(seen, ImageError) else seen.outputs

    def seen(
        self,
        items: Iterable[T],
        framed: Callable[[T], tuple[NDArray[np.uint8], Frame]],
        *,
        shown: Callable[[T], Shown] | None = None,
    ) -> Iterator[tuple[T, Seen | ImageError]]:
        """As `outputs_of` for what stands for pictures, with the frame of each; `framed` is called in a worker.

        Where `shown` says what an item shows, `answer` also gives it to `watch`.
        """
        self._check_open()
        self._workers_backend()  # Not in a worker, where the others would wait for it.
        local, batch = threading.local(), self.batch

        def own_buffers() -> Buffers:
            if not hasattr(local, "own_buffers"):
                local.own_buffers = self.buffers(batch, beside=True)
            return cast(Buffers, local.own_buffers)

        look: Callable[[T, NDArray[np.uint8]], Look] | None = None
        if (watch := self.watch) is not None and shown is not None:
            show = shown

            def look(item: T, pixels: NDArray[np.uint8]) -> Look:
                return watch.look(show(item), pixels)

        return stream(items, framed, own_buffers=own_buffers, workers=self.workers, batch=batch, look=look)

    def see(self, picture: Picture, *, channels: Channels = "rgb", name: str = "") -> Seen:
        """One picture's outputs, in buffers of this thread that the next call overwrites; raises as `pixels` does."""
        pixels, frame = self.framed(picture, channels=channels)
        watch = self.watch
        look = None if watch is None else watch.look(Shown(picture, channels, name), pixels)
        return Seen(self._own_buffers().outputs([pixels]), frame, look, pixels)

    def pixels(self, image: Picture, *, channels: Channels = "rgb") -> NDArray[np.uint8]:
        """Decode, resize and crop one picture to (size, size, 3) uint8 RGB.

        Raises:
            ImageError: it cannot be used; the message names it.
            TensorError: it is an array of another shape or dtype, or no picture at all.
        """
        return self.framed(image, channels=channels)[0]

    def framed(self, image: Picture, *, channels: Channels = "rgb") -> tuple[NDArray[np.uint8], Frame]:
        """As `pixels`, and where these lie in the upright picture."""
        # Not at the top: Pillow is imported while the engine loads the model (`edgetl.runtime.engines.onnxruntime`).
        from PIL import Image

        from edgetl.inputs.image import load_framed, to_framed

        if isinstance(image, bytes):
            return load_framed(image, self._spec)
        if isinstance(image, np.ndarray) and channels == "bgr":
            # Resampling treats channels alike: turned after it, there is less to turn.
            pixels, frame = to_framed(image, self._swapped)
            return pixels[..., ::-1], frame
        if isinstance(image, np.ndarray | Image.Image):
            return to_framed(image, self._spec)
        if not isinstance(image, str | Path):
            raise TensorError(
                f"image: got {describe(image)}, expected a path, bytes, a Pillow image or an array (H, W, 3)."
            )
        if Path(image).suffix.lower() in VIDEO_SUFFIXES:
            raise ImageError(
                f"{image} is a video; label its frames with: {command('predict', 'BUNDLE', Path(image))}"
            )
        return load_framed(Path(image), self._spec)

    def check_sure(self, sure: float) -> Tree:
        """The tree of the classes, by which an answer of so much probability is found.

        Raises:
            ConfigError: it is out of range, or the bundle knows no tree of its classes.
        """
        if not 0.0 < sure <= 1.0:
            raise ConfigError(f"sure: got {sure:g}, expected a probability above 0 and at most 1.")
        spec = self.task.spec
        if isinstance(spec, Classification) and isinstance(spec.relation, Tree):
            return spec.relation
        raise ConfigError(
            f"sure: got {sure:g}, but {self.bundle.path} knows no tree of its classes whose groups it could answer;"
            " train it with labels.tree = FILE in the recipe, or leave sure out."
        )

    def least_conformities(self, coverage: float) -> dict[str, float]:
        """The conformity from which a label is in the set that holds the truth so often, by output.

        Raises:
            BundleError: the variant was made before bundles knew of it, or its file was altered.
            ConfigError: the coverage is out of range, more than the validation images allow, or asked of a detector.
        """
        from edgetl.bundle.confidence import conformities
        from edgetl.tasks import confidence

        confidence.check(self.task.spec, coverage)
        if self._conformities is None:
            self._conformities = conformities(self.bundle, self.variant)
        return confidence.least(self._conformities, coverage, str(self.bundle.path))

    def answer(
        self,
        seen: Seen,
        top_k: int = 1,
        sure: float | None = None,
        coverage: float | None = None,
        unknown: float | None = None,
    ) -> Prediction:
        """What one image's outputs say; for `sure` and `coverage` see `predict`, for `unknown`, `telling`."""
        found = cast("Prediction", self.task.predict(seen.outputs, (seen.frame,), top_k=top_k)[0])
        if sure is not None:
            from edgetl.tasks.classification.answers import Prediction as ClassPrediction
            from edgetl.tasks.classification.answers import smallest_sure_group
            from edgetl.tasks.classification.task import ClassificationTask

            tree = self.check_sure(sure)
            chances = cast(ClassificationTask, self.task).probabilities(seen.outputs)[0]
            found = smallest_sure_group(cast(ClassPrediction, found), chances, tree, self.labels, sure)
        if coverage is not None:
            from edgetl.tasks.confidence import with_sets

            found = with_sets(self.task, seen.outputs, found, self.least_conformities(coverage))
        if unknown is not None:
            found = self._own_judge().judged(seen, found, unknown)
        if self.watch is not None:
            self.watch.take(self, seen, found)
        return found

    def telling(self, unknown: float) -> Session:
        """This session where its answers can say whether an image is unknown, else one of the same model whose can.

        Args:
            unknown: see `predict`.

        Raises:
            BundleError: the variant was made before bundles could tell.
            ConfigError: the rate is out of range, lower than the validation images allow, or asked of a detector.
        """
        from edgetl.bundle.unknown import described
        from edgetl.runtime.unknown.judge import check_asked

        check_asked(self.bundle, self.variant, unknown)
        return self.with_features() if described(self.bundle, self.variant).score.by_features else self

    def explaining(self) -> Session:
        """This session where it can explain answers, else one of the same model that can; the first call loads it.

        Raises:
            ConfigError: the task's answers have no maps.
            ModelError: as for `predict`.
        """
        from edgetl.runtime.explain import check_task

        check_task(self.task.spec)
        return self.with_features()

    def with_features(self) -> Session:
        """This session where its outputs have the feature map, else one of the same model whose outputs do.

        The first call loads the model once more. The map costs under 3% of a call (`edgetl.runtime.features`).
        `edgetl.runtime.features.embeddings` makes embeddings of such a session's outputs.

        Raises:
            ModelError: the network does not end in pooling and a linear layer.
        """
        self._check_open()
        if self._head is not None or self._open_showing is None:
            return self
        with self._lock:
            if self._showing is None:
                self._showing = self._open_showing()
                self._showing.watch = self.watch
            return self._showing

    def embedding(self, image: Picture, *, channels: Channels = "rgb") -> NDArray[np.float32]:
        """The embedding (F,) float32 of one picture: its feature map's mean over height and width.

        Raises:
            ImageError, TensorError, ForkError: as for `predict`.
            ModelError: as for `with_features`.
        """
        from edgetl.runtime.features import embeddings

        found = embeddings(self.with_features().see(image, channels=channels).outputs)
        return found.reshape(-1)

    def known_images(self, asked: str) -> Reference:
        """What this model makes of known images; read once. `asked` names what needs it, for the error.

        Raises:
            BundleError: the bundle has nothing of the kind; the message says why, and what to do.
        """
        from edgetl.runtime.known import known_images

        if self._known is None:
            self._known = known_images(self.bundle, self.variant, asked)
        return self._known

    def explained(
        self,
        seen: Seen,
        top_k: int = 1,
        sure: float | None = None,
        coverage: float | None = None,
        unknown: float | None = None,
    ) -> Explained:
        """As `answer`, with maps; of a session that `explaining` gave."""
        from edgetl.runtime.explain import explained

        assert self._head is not None
        found = self.answer(seen, top_k, sure, coverage, unknown)
        return explained(self._head, seen.outputs, found, side=self._spec.size, frame=seen.frame)

    @property
    def drift(self) -> DriftState:
        """What the check for drift knows now; of all images that `predict` answered so far.

        Raises:
            ConfigError: the session was loaded without one.
        """
        if self.watch is None or (state := self.watch.drift) is None:
            raise ConfigError("drift: this session does not watch for it; load it with drift=True.")
        return state

    @property
    def captured(self) -> CaptureState:
        """What was kept so far.

        Raises:
            ConfigError: the session was loaded without a folder for it.
        """
        if self.watch is None or self.watch.capturer is None:
            raise ConfigError("capture: this session keeps no images; load it with capture=Capture(FOLDER).")
        return self.watch.capturer.state()

    def verify(self) -> GoldenCheck:
        """Check the bundle's hashes, then run the golden images from their encoded bytes; compare the outputs.

        So decoding, preprocessing and the engine are proven together; `edgetl.bundle.golden` has the
        tolerance.

        Raises:
            BundleIntegrityError: a file of the bundle was altered.
        """
        from edgetl.bundle.golden import compare, pixels_sha256
        from edgetl.inputs.image import load_pixels

        self.bundle.verify()
        pixels = np.stack([load_pixels(content, self._spec) for content in self.bundle.golden_images()])
        rows = [self.run(pixels[i : i + 1]) for i in range(len(pixels))]
        plain = next((v.name for v in self.manifest.variants if v.precision is Precision.FP32), None)
        return compare(
            variant=self.variant.name,
            precision=self.variant.precision,
            task=self.task,
            recorded=self.bundle.golden_outputs(self.variant.name),
            computed=joined(rows),
            pixels_identical=pixels_sha256(pixels) == self.manifest.golden.pixels_sha256,
            floats=None if plain is None else self.bundle.golden_outputs(plain),
        )

    def close(self) -> None:
        """Free the model and the buffers, and write what is to be kept; a second call does nothing."""
        if self.watch is not None:
            self.watch.close()
        with self._lock:
            self._closed, self._local = True, threading.local()
            if self._showing is not None:
                self._showing.close()
            if self._shared is not None and self._shared is not self.backend:
                self._shared.close()
            self._shared = None
            self.backend.close()

    def in_child(self) -> None:
        """Refuse to run in a forked child, see `edgetl.runtime.forks`."""
        self._closed, self._lock = True, threading.Lock()

    def _explain(
        self,
        image: Picture | Sequence[Picture],
        many: Sequence[Picture] | None,
        top_k: int,
        channels: Channels,
        sure: float | None,
        coverage: float | None,
        unknown: float | None,
    ) -> Explained | list[Explained]:
        if many is None:
            seen = self.see(cast("Picture", image), channels=channels)
            return self.explained(seen, top_k, sure, coverage, unknown)
        return [self.explained(seen, top_k, sure, coverage, unknown) for seen in self._rows(many, channels)]

    def _own_judge(self) -> Judge:
        from edgetl.runtime.unknown.judge import Judge

        if self._judge is None:
            self._judge = Judge(self.bundle, self.variant, self._head)
        return self._judge

    def _rows(self, pictures: Sequence[Picture], channels: Channels) -> Iterator[Seen]:
        # No name holds the generator, which would outlive an error in its traceback, threads and all.
        for _, row in self.seen(
            pictures,
            lambda picture: self.framed(picture, channels=channels),
            shown=lambda picture: Shown(picture, channels, ""),
        ):
            if isinstance(row, ImageError):
                raise row
            yield row

    def _own_buffers(self) -> Buffers:
        """The calling thread's buffers for one image."""
        self._check_open()
        if not hasattr(self._local, "own_buffers"):
            self._local.own_buffers = Buffers(self.backend, self._spec, self.backend.input.shape[0] or 1)
        return cast(Buffers, self._local.own_buffers)

    def _workers_backend(self) -> Backend:
        """The engine that workers share: on one thread, as each of them is one."""
        with self._lock:
            if self._shared is None:
                assert self._single is not None
                self._shared = self._single()
            return self._shared

    def _check_open(self) -> None:
        if self._closed:
            if self.inherited:
                refuse()
            raise ValueError("the session is closed")


def load(
    path: str | Path,
    *,
    target: str = "auto",
    variant: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    require_signature: str | Path | None = None,
    threshold: float | None = None,
    explain: bool = False,
    drift: bool | Drift = False,
    capture: Capture | None = None,
) -> Session:
    """Open a bundle and load the model that suits this machine; `Session.choice` says which and why.

    Args:
        path: the bundle, `NAME.edgetl`.
        target: the engine, one of `EngineName`; nothing else is ever taken in its place. `auto` is what `edgetl tune`
            measured as the fastest on this machine, variant and engine, with this number of threads. Where it did
            not, or a variant or precision is asked for, `auto` is the CPU, and where ONNX Runtime offers a GPU,
            `Session.choice` says that the bundle has no figures for it.
        variant: a variant's name; chosen by its measured figures where unset.
        precision: only variants of this arithmetic, e.g. `int8`.
        threads: threads of the engine on the CPU; where unset, the number that the variant was the fastest with on this
            machine or one like it, else every usable core.
        require_signature: a public key; the bundle must be signed with its private half.
        threshold: of a detector, the least score of a box that is answered, between 0 and 1; the bundle's where unset.
        explain: give the feature map with every answer, for `Session.predict` with `explain=True`.
        drift: watch whether images are still like the validation images, see `Session.drift`; True, or how.
        capture: keep images that are worth labelling, see `edgetl.runtime.capture`; where and how many.

    Raises:
        BundleError: the bundle is missing, broken, altered, unsigned, or has no such variant; or it is to watch for
            drift and was made before bundles knew what images were like.
        ConfigError: the target or precision is unknown, the key cannot be read, or a threshold is out of range or
            given for another task; or a detector is to explain.
        MissingDependencyError: the engine is not installed, or cannot use the device.
        ModelError: the model cannot be loaded, or does not fit the manifest; or what was measured as the fastest
            here cannot be opened any more; or it shall explain and has no class activation maps.
        ValueError: threads is below 1.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"threads is {threads}, expected at least 1")
    bundle = open_bundle(Path(path))
    if require_signature is not None:
        from edgetl.bundle.signature import require_signature as check

        check(bundle, Path(require_signature))
    task = _with_threshold(bundle.manifest.task, threshold)
    if explain:
        from edgetl.runtime.explain import check_task

        check_task(task)
    choice = choose_here(
        bundle,
        threads=threads,
        target=parse_target(target),
        variant=variant,
        precision=None if precision is None else _member(Precision, "precision", precision),
    )
    chosen = bundle.variant(choice.variant)
    auto = target == EngineName.AUTO and not choice.measured_here
    with collector_off():
        try:
            session = _open(
                bundle,
                chosen,
                choice,
                threads or choice.threads or usable_cores(),
                threads or usable_cores(),
                auto=auto,
                signed=require_signature is not None,
                features=explain,
            )
            if task != bundle.manifest.task:
                session.task = task_of(task)
            if drift or capture is not None:
                _watch(session, drift, capture)
            return session
        except (MissingDependencyError, ModelError) as error:
            if not choice.measured_here:
                raise
            cause = (
                f"{error.what} is not available" if isinstance(error, MissingDependencyError) else f"{error}"
            )
            raise ModelError(
                f"edgetl tune found {choice.variant} on {choice.target} the fastest here, but it cannot be opened "
                f"any more ({cause.rstrip('.')}). Name a target, e.g. cpu, or measure again with: "
                f"{command('tune', bundle.path)}"
            ) from error


def _watch(session: Session, drift: bool | Drift, capture: Capture | None) -> None:
    from edgetl.runtime.watch import watch_for

    try:
        session.watch = watch_for(session, drift, capture)
    except EdgetlError:
        session.close()
        raise


def _with_threshold(task: TaskSpec, threshold: float | None) -> TaskSpec:
    """The task with another threshold of its boxes."""
    if threshold is None:
        return task
    if not isinstance(task, Detection):
        raise ConfigError(
            f"threshold: got {threshold}, but the bundle is of the task {task.kind}; it is for boxes alone."
        )
    try:
        return replace(task, threshold=threshold)
    except ValueError as error:
        raise ConfigError(f"threshold: {error}.") from None


def parse_target(name: str) -> EngineName:
    """The engine of that name.

    Raises:
        ConfigError: there is none.
    """
    return _member(EngineName, "target", name)


def _open(
    bundle: Bundle,
    variant: Variant,
    choice: Choice,
    count: int,
    workers: int,
    *,
    auto: bool,
    signed: bool,
    features: bool = False,
) -> Session:
    head = _head(bundle, variant) if features else None
    asked = Opening(
        bundle=bundle, variant=variant, threads=count, signed=signed, shown=head.shown if head else {}
    )
    opened = engine_of(choice.target).open(asked)
    if auto:
        choice = unmeasured_gpus(choice, opened.offered)
    if opened.origin:
        choice = replace(choice, reason=f"{choice.reason}; {opened.origin}")
    try:
        return Session(
            bundle,
            variant,
            opened.backend,
            choice=choice,
            single=opened.single,
            head=head,
            workers=workers,
            showing=lambda: _open(
                bundle, variant, choice, count, workers, auto=False, signed=signed, features=True
            ),
        )
    except EdgetlError:
        opened.backend.close()
        raise


def _head(bundle: Bundle, variant: Variant) -> PooledHead:
    """The end of a variant's network, where its feature map is."""
    from edgetl.runtime.features import pooled_head

    outputs = [tensor.name for tensor in task_of(bundle.manifest.task).outputs]
    return pooled_head(bundle.read(variant.member), outputs)


def _fits(have: TensorSpec, want: TensorSpec) -> bool:
    return (
        have.dtype == want.dtype
        and len(have.shape) == len(want.shape)
        and all(w is None or h in (None, w) for h, w in zip(have.shape[1:], want.shape[1:], strict=True))
    )


def _member(kind: type[E], name: str, value: str) -> E:
    try:
        return kind(value)
    except ValueError:
        raise ConfigError(f"{name}: got {value!r}, expected one of {', '.join(kind)}.") from None


def _sequence(images: Any) -> Sequence[Picture] | None:
    """The images as a sequence, or None where they are one picture."""
    if isinstance(images, np.ndarray):
        return list(images) if images.ndim == 4 else None
    return None if isinstance(images, str | bytes) or not isinstance(images, Sequence) else images
