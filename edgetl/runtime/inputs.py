"""From what a user names on the command line to predictions: files, folders, globs, videos, cameras, raw frames, and
where a bundle listens recordings, microphones, raw samples."""

from __future__ import annotations

import glob
import io
import random
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from edgetl.data.walk import counted, images_below, is_image, lookalikes, place
from edgetl.errors import ConfigError, DataError, ImageError, SourceError
from edgetl.inputs.image import MAX_PIXELS, MIN_SIDE, NAMELESS, read_content
from edgetl.inputs.recordings import NAMELESS as NAMELESS_SOUND
from edgetl.inputs.spec import InputKind
from edgetl.progress import SILENT, Progress
from edgetl.records.codec import OPTIONAL
from edgetl.runtime.session import Channels, Picture, Session
from edgetl.runtime.stream import Shown
from edgetl.runtime.video import Live, frames, is_live, is_video, utc
from edgetl.tasks.all import Prediction

if TYPE_CHECKING:
    from edgetl.inputs.frame import Frame
    from edgetl.runtime.explain import ActivationMap, Explained, MapRecord
    from edgetl.runtime.listening import Listening
    from edgetl.runtime.watch import Watch

STANDARD_INPUT = "-"
_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True, kw_only=True)
class ImageResult:
    """What became of one image: a prediction, or None and the reason in `error`.

    A frame has its time as well, see `edgetl.runtime.video.Frame`: `seconds` into the video, or since the live source
    was opened; `time`, the wall clock when it came live; `dropped`, frames left out just before it. `maps` show where
    the picture speaks for the answer, where that was asked for. `drift` says what moved, at the image that shows that
    images are not like the bundle's any more (`edgetl.runtime.drift`), where that is watched for.
    """

    path: str
    prediction: Prediction | None
    error: str = ""
    seconds: float | None = None
    time: str = ""
    dropped: int = 0
    maps: tuple[MapRecord, ...] = field(default=(), metadata=OPTIONAL)
    drift: str = field(default="", metadata=OPTIONAL)


@dataclass(frozen=True, kw_only=True)
class FrameFormat:
    """Raw frames on standard input: `height` rows of `width` pixels of three bytes, one frame after the other."""

    width: int
    height: int
    channels: Channels = "rgb"

    @property
    def size_bytes(self) -> int:
        """Bytes of one frame."""
        return self.width * self.height * 3


@dataclass(frozen=True, slots=True)
class Item:
    """A picture, or why there is none, and what results call it; of frames also the time, as in `ImageResult`."""

    name: str
    picture: Picture | ImageError | SourceError
    channels: Channels = "rgb"
    seconds: float | None = None
    time: str = ""
    dropped: int = 0


@dataclass(frozen=True, kw_only=True)
class Source:
    """Pictures to label.

    `count` is their number, None where it is not known before the end. Those of a `live` source are labelled one by
    one as they come, with all threads: none waits for the next one.
    """

    items: Iterator[Item]
    count: int | None
    live: bool = False


def parse_frame_format(size: str, channels: str) -> FrameFormat:
    """Read `640x480` and `rgb` or `bgr`.

    Raises:
        ConfigError: one of them is neither, or a frame would be too small or too large.
    """
    found = re.fullmatch(r"(\d{1,6})x(\d{1,6})", size)
    if found is None:
        raise ConfigError(f"frame size: got {size!r}, expected WIDTHxHEIGHT, e.g. 640x480.")
    width, height = int(found[1]), int(found[2])
    if min(width, height) < MIN_SIDE or width * height > MAX_PIXELS:
        raise ConfigError(
            f"frame size: got {size}, expected sides of at least {MIN_SIDE} and at most {MAX_PIXELS} pixels."
        )
    if channels not in ("rgb", "bgr"):
        raise ConfigError(f"pixel format: got {channels!r}, expected rgb or bgr.")
    return FrameFormat(width=width, height=height, channels=cast(Channels, channels))


def open_source(
    names: Sequence[str],
    *,
    limit: int | None = None,
    frame_format: FrameFormat | None = None,
    stdin: BinaryIO | None = None,
    live: Live | None = None,
    sounds: Listening | None = None,
    progress: Progress = SILENT,
) -> Source:
    """The pictures behind the names, in their order.

    Args:
        names: files, folders (all images below, sorted), globs, videos, cameras (`camera:0`), network streams
            (`rtsp://...`), or `-`: standard input, raw frames where a format is given, else one encoded image.
        limit: at most so many.
        frame_format: of the frames on standard input.
        stdin: another stream than standard input.
        live: how cameras, microphones and streams are read.
        sounds: how a bundle listens that is for sounds; the names are then recordings, folders and globs of them,
            microphones (`microphone:0`), or `-`.
        progress: as in `find_images`; also says when a live source is lost and tried again.

    Raises:
        ConfigError: a frame format is given without `-`.
        DataError: a name does not exist, or a folder holds no images.
    """
    if frame_format is not None and STANDARD_INPUT not in names:
        raise ConfigError("A frame size is for raw frames on standard input: name - as the image.")
    if sounds is not None:
        return _sounds(names, limit, frame_format, stdin, live or Live(), sounds, progress)
    if any(name == STANDARD_INPUT or is_video(name) for name in names):
        items = _mixed(
            names, frame_format, _standard_input(names) if stdin is None else stdin, live or Live(), progress
        )
        return Source(items=islice(items, limit), count=None, live=any(map(is_live, names)))
    found = find_images(names, limit, progress=progress)
    return Source(items=(Item(str(path), path) for path in found), count=len(found))


def _sounds(
    names: Sequence[str],
    limit: int | None,
    frame_format: FrameFormat | None,
    stdin: BinaryIO | None,
    live: Live,
    sounds: Listening,
    progress: Progress,
) -> Source:
    from edgetl.runtime import listening

    if frame_format is not None:
        raise ConfigError(
            "A frame size is for pictures, and the bundle listens to sounds; for raw samples give --pcm."
        )
    if strangers := [name for name in names if is_video(name)]:
        raise ConfigError(
            f"{strangers[0]} is a video, camera or stream, and the bundle listens to sounds; name recordings, or"
            " microphone:0."
        )
    whole = [STANDARD_INPUT, *filter(listening.is_microphone, names)]
    if sounds.hop is None and not any(name in whole for name in names):
        found = find_images(names, limit, kind=InputKind.SOUND, progress=progress)
        return Source(items=(Item(str(path), path) for path in found), count=len(found))
    standard = _standard_input(names) if stdin is None else stdin

    def windows() -> Iterator[listening.Heard]:
        for name in names:
            if name == STANDARD_INPUT:
                yield from listening.of_standard_input(standard, sounds, live)
            elif listening.is_microphone(name):
                yield from listening.of_microphone(name, sounds, live)
            else:
                for path in find_images([name], kind=InputKind.SOUND, progress=progress):
                    yield from listening.of_recording(path, str(path), sounds)

    items = (Item(h.name, h.sound, "rgb", h.seconds, h.time, h.dropped) for h in windows())
    return Source(items=islice(items, limit), count=None, live=listening.has_no_end(names, sounds.pcm))


def _standard_input(names: Sequence[str]) -> BinaryIO:
    """Standard input, where it is named; there is none in a process that was started without one."""
    if STANDARD_INPUT not in names:
        return io.BytesIO()
    if sys.stdin is None or sys.stdin.closed:
        raise DataError("Standard input is closed: redirect a file to it, or name the image.")
    return sys.stdin.buffer


def has_end(names: Sequence[str], frame_format: FrameFormat | None) -> bool:
    """Whether the pictures behind the names end by themselves."""
    return frame_format is None and not any(map(is_live, names))


def find_images(
    names: Sequence[str],
    limit: int | None = None,
    *,
    kind: InputKind = InputKind.IMAGE,
    progress: Progress = SILENT,
) -> tuple[Path, ...]:
    """Image files for the names given: a file as it is, a folder with all images below it, a glob's matches.

    Args:
        names: files, folders and globs (`*`, `?`, `[`, and `**` for any folders).
        limit: return at most so many.
        kind: what is looked for, images or recordings.
        progress: shows files in a folder that may be pictures but are not read.

    Raises:
        DataError: a name does not exist, or a folder or glob holds no images.
    """
    found: list[Path] = []
    for name in names:
        path = place(name)
        if path.is_dir():
            inside, others = images_below(path, kind)
            if not inside:
                beside = f" It holds {counted(others)}." if others else ""
                raise DataError(f"The folder {path} holds no {kind.plural}.{beside}")
            if missed := lookalikes(others, kind):
                progress.warning(f"{path}: besides the {kind.plural}, {counted(missed)} are not read.")
            found += inside
        elif path.exists():
            found.append(path)
        elif _MAGIC.search(name):
            # Path.glob takes no absolute pattern.
            found_here = map(Path, glob.glob(str(path), recursive=True))  # noqa: PTH207
            matches = sorted(p for p in found_here if is_image(p, kind))
            if not matches:
                raise DataError(f"No {kind.named(1)} matches {name}.")
            found += matches
        else:
            raise DataError(f"There is no {kind.named(1)} or folder at {path}.")
    return tuple(found[:limit])


def sampled(source: Source, *, limit: int | None = None, in_order: bool = False) -> Source:
    """A source's files in a random order, always the same, but for `in_order`; at most `limit` of them.

    Pictures of a video, a camera or standard input stay as they come.
    """
    items = source.items
    if source.count is not None and not in_order:
        files = list(items)
        random.Random(0).shuffle(files)
        items = iter(files)
    count = source.count if source.count is None or limit is None else min(source.count, limit)
    return Source(items=islice(items, limit), count=count, live=source.live)


def predict_all(
    session: Session,
    source: Source,
    *,
    top_k: int = 1,
    sure: float | None = None,
    coverage: float | None = None,
    unknown: float | None = None,
    save: Path | None = None,
    explain: bool = False,
    progress: Progress = SILENT,
) -> Iterator[ImageResult]:
    """Label pictures as they come, in order; one that cannot be used is reported and does not stop the others.

    With `save` each is written into that folder, its answer drawn into it (`edgetl.runtime.drawing`). For `top_k`,
    `sure`, `coverage`, `unknown` and `explain` see `Session.predict`.

    Raises:
        BundleError, ConfigError, ModelError: as in `Session.predict`, for `sure`, `coverage`, `unknown` and
            `explain`.
        ImageError: no picture at all can be used; raised at the end.
        SourceError: a live source closed or gave nothing; raised at the end.
        MissingDependencyError: a video is named and OpenCV is not installed.
        StorageError: a picture cannot be written.
    """
    if sure is not None:
        session.check_sure(sure)
    if coverage is not None:
        session.least_conformities(coverage)
    answering = session if unknown is None else session.telling(unknown)
    session = session.explaining() if explain else answering
    saver = None
    if save is not None:
        from edgetl.runtime.drawing import Saver

        saver = Saver(save, session.manifest.preprocess)
    broken, gone = list[str](), list[str]()
    alarm = _Alarm(session.watch)
    good = dropped = 0
    known = progress if source.count is not None else SILENT
    with known.task("Predicting", total=source.count or 0) as task:
        labelled = _labelled(session, source, top_k, sure, coverage, unknown, explain)
        for number, (item, answer) in enumerate(labelled, start=1):
            dropped += item.dropped
            found, maps = _parts(answer)
            if not isinstance(found, ImageError | SourceError):
                good += 1
                if saver is not None and not isinstance(item.picture, ImageError | SourceError):
                    saver.save(item.name, item.picture, item.channels, found, maps)
                if drift := alarm.new(last=number == source.count):
                    progress.warning(drift)
                yield ImageResult(
                    path=item.name,
                    prediction=found,
                    seconds=item.seconds,
                    time=item.time,
                    dropped=item.dropped,
                    maps=tuple(one.record() for one in maps),
                    drift=drift,
                )
            else:
                if isinstance(found, SourceError):
                    gone.append(str(found))
                else:
                    broken = [*broken, str(found)][:10]
                    progress.warning(str(found))
                yield ImageResult(path=item.name, prediction=None, error=str(found))
            task.advance()
    if drift := alarm.new(last=True):
        progress.warning(drift)
    if dropped:
        progress.warning(
            f"{dropped} of {good + dropped} frames came faster than they could be labelled and were dropped."
        )
    if gone:
        raise SourceError("\n".join(gone))
    if broken and not good:
        raise ImageError("\n".join(broken))


class _Alarm:
    """Says once that images drifted, where that is watched for and was not known before."""

    def __init__(self, watch: Watch | None) -> None:
        self._watch = None if watch is None or watch.monitor is None or watch.monitor.drifted else watch

    def new(self, *, last: bool) -> str:
        """The sentence where there is an alarm now; of the last image also of those that wait to be looked at."""
        watch = self._watch
        if watch is None or watch.monitor is None or not (last or watch.monitor.drifted):
            return ""
        state = watch.drift
        if state is None or not state.drifted:
            return ""
        self._watch = None
        return state.sentence


def _labelled(
    session: Session,
    source: Source,
    top_k: int,
    sure: float | None,
    coverage: float | None,
    unknown: float | None,
    explain: bool,
) -> Iterator[tuple[Item, Prediction | Explained | ImageError | SourceError]]:
    answer = session.explained if explain else session.answer
    if not source.live:
        for item, row in session.seen(source.items, lambda item: _framed(session, item), shown=_shown):
            yield item, row if isinstance(row, ImageError) else answer(row, top_k, sure, coverage, unknown)
        return
    for item in source.items:
        if isinstance(item.picture, ImageError | SourceError):
            yield item, item.picture
            continue
        try:
            seen = session.see(item.picture, channels=item.channels, name=item.name)
            yield item, answer(seen, top_k, sure, coverage, unknown)
        except ImageError as error:
            yield item, error


def _parts(
    answer: Prediction | Explained | ImageError | SourceError,
) -> tuple[Prediction | ImageError | SourceError, tuple[ActivationMap, ...]]:
    """An answer and its maps, where it has some."""
    maps: tuple[ActivationMap, ...] | None = getattr(answer, "maps", None)
    if maps is None:
        return cast("Prediction | ImageError | SourceError", answer), ()
    return cast("Explained", answer).prediction, maps


def _framed(session: Session, item: Item) -> tuple[NDArray[np.uint8], Frame]:
    if isinstance(item.picture, ImageError):
        raise item.picture
    assert not isinstance(item.picture, SourceError)  # Only of live sources.
    try:
        return session.framed(item.picture, channels=item.channels)
    except ImageError as error:
        if isinstance(item.picture, bytes):  # which has no name of its own
            said = str(error).replace(NAMELESS, item.name, 1).replace(NAMELESS_SOUND, item.name, 1)
            raise ImageError(said) from error
        raise


def _shown(item: Item) -> Shown:
    assert not isinstance(item.picture, ImageError | SourceError)
    return Shown(item.picture, item.channels, item.name)


def _mixed(
    names: Sequence[str], frame_format: FrameFormat | None, stdin: BinaryIO, live: Live, progress: Progress
) -> Iterator[Item]:
    for name in names:
        if name == STANDARD_INPUT and frame_format is not None:
            yield from _raw_frames(stdin, frame_format, live)
        elif name == STANDARD_INPUT:
            try:
                yield Item("standard input", read_content(stdin, "standard input"))
            except ImageError as error:
                yield Item("standard input", error)
        elif is_video(name):
            try:
                for f in frames(name, live, say=progress.warning):
                    yield Item(f"{name}#{f.number}", f.pixels, "bgr", f.seconds, f.time, f.dropped)
            except (ImageError, SourceError) as error:
                yield Item(name, error)
        else:
            yield from (Item(str(path), path) for path in find_images([name], progress=progress))


def _raw_frames(stdin: BinaryIO, form: FrameFormat, live: Live) -> Iterator[Item]:
    began = live.clock()
    for number in count():
        # One buffer per frame: the frames before it may still be in the workers' hands.
        content = bytearray(form.size_bytes)
        if not (got := _fill(stdin, content)):
            if number == 0:
                yield Item(STANDARD_INPUT, ImageError("Standard input ended before the first frame."))
            return
        name = f"frame#{number}"
        if got < form.size_bytes:
            yield Item(
                name,
                ImageError(
                    f"{name}: standard input ended after {got} of {form.size_bytes} bytes; "
                    f"is a frame {form.width}x{form.height} pixels of three bytes?"
                ),
            )
            return
        pixels = np.frombuffer(content, dtype=np.uint8).reshape(form.height, form.width, 3)
        yield Item(name, pixels, form.channels, live.clock() - began, utc(live.wall()))


def _fill(stdin: BinaryIO, content: bytearray) -> int:
    """Read until the buffer is full or the stream ends; bytes read."""
    view, got = memoryview(content), 0
    while got < len(content):
        # A pipe gives what it has; `readinto` exists on every binary stream.
        piece = stdin.readinto(view[got:])  # type: ignore[attr-defined]
        if not piece:
            break
        got += piece
    return got
