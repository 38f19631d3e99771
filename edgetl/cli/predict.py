"""`edgetl predict` and `edgetl drift`: a bundle on images, videos, cameras and sounds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgetl.cli.options import (
    BundleArg,
    CoverageOption,
    EngineTarget,
    Json,
    PrecisionOption,
    RequireSignature,
    Threads,
    Variant,
)
from edgetl.cli.outcome import end_by, say_choice

if TYPE_CHECKING:
    from edgetl.progress import Progress
    from edgetl.runtime.capture import Capture
    from edgetl.runtime.coco import Ids
    from edgetl.runtime.session import Session


def predict(
    bundle: BundleArg,
    images: Annotated[
        list[str],
        typer.Argument(
            help="Images, folders, globs, videos, cameras (camera:0), streams (rtsp://...), or - for standard input; of"
            " a bundle for sounds recordings, microphones (microphone:0), or -.",
            show_default=False,
        ),
    ],
    top: Annotated[int, typer.Option("--top", min=1, help="Labels per image.")] = 1,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            metavar="SCORE",
            help="Detectors: the least score of a box, between 0 and 1.",
            show_default="the bundle's",
        ),
    ] = None,
    sure: Annotated[
        float | None,
        typer.Option(
            "--sure",
            metavar="SHARE",
            help="Where the best class's probability is below this, answer the smallest group of the bundle's tree that"
            " reaches it.",
            show_default="always a class",
        ),
    ] = None,
    coverage: CoverageOption = None,
    unknown: Annotated[
        float | None,
        typer.Option(
            "--unknown",
            metavar="SHARE",
            help="Also whether an image is like none that the model was made from, at this rate of false alarms, e.g."
            " 0.05: so often an image like the validation images is called unknown. These images also chose epochs and"
            " variant: an approximation.",
            show_default="not asked",
        ),
    ] = None,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Say where the picture speaks for its answer: the place that does most, with --json the whole map,"
            " with --save in colour over the picture.",
        ),
    ] = False,
    save: Annotated[
        Path | None,
        typer.Option("--save", metavar="DIR", help="Write each picture with its answer drawn into it."),
    ] = None,
    coco: Annotated[
        Path | None,
        typer.Option(
            "--coco",
            metavar="ANNOTATIONS",
            help="Detectors: print COCO's results as JSON, with the ids of this annotation file.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Stop after so many images.")] = None,
    frame_size: Annotated[
        str | None,
        typer.Option("--frame-size", metavar="WxH", help="Standard input holds raw frames of this size."),
    ] = None,
    pixel_format: Annotated[
        str, typer.Option("--pixel-format", help="Of raw frames, one byte per channel: rgb or bgr.")
    ] = "rgb",
    hop: Annotated[
        float | None,
        typer.Option(
            "--hop",
            metavar="SECONDS",
            help="Sounds: label a window every so many seconds, and not each recording as one by its loudest window.",
            show_default="of microphones and raw samples half a window",
        ),
    ] = None,
    pcm: Annotated[
        int | None,
        typer.Option(
            "--pcm",
            metavar="RATE",
            help="Sounds: standard input holds raw samples of 16 bits, little-endian, one channel, so many per second.",
        ),
    ] = None,
    json_lines: Annotated[
        bool, typer.Option("--json-lines", help="Print one JSON object per image, as soon as it is known.")
    ] = False,
    every_frame: Annotated[
        bool,
        typer.Option(
            "--every-frame",
            help="Cameras and streams: wait for the model; else it takes the newest frame, and those dropped are "
            "counted. Files give every frame anyway.",
        ),
    ] = False,
    reconnect: Annotated[
        float,
        typer.Option(
            "--reconnect",
            min=0.0,
            metavar="SECONDS",
            help="Cameras and streams: try for so long to open again what closed or fell silent.",
        ),
    ] = 0.0,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout",
            min=0.1,
            metavar="SECONDS",
            help="Cameras and streams: silent after so long without a frame.",
        ),
    ] = 10.0,
    drift: Annotated[
        bool,
        typer.Option(
            "--drift",
            help="Watch whether images are still like those that the bundle was made with; say what moved.",
        ),
    ] = False,
    capture: Annotated[
        Path | None,
        typer.Option(
            "--capture",
            metavar="DIR",
            help="Keep the images that are worth labelling there, none like another: those that it is not sure of, and"
            " with --drift those that show a change.",
        ),
    ] = None,
    capture_mb: Annotated[
        float, typer.Option("--capture-mb", metavar="MIB", help="With --capture: what the folder may hold.")
    ] = 100.0,
    capture_per_hour: Annotated[
        int, typer.Option("--capture-per-hour", help="With --capture: images in any hour.")
    ] = 60,
    target: EngineTarget = "auto",
    variant: Variant = None,
    precision: PrecisionOption = None,
    threads: Threads = None,
    require_signature: RequireSignature = None,
    json: Json = False,
) -> None:
    """Label images, frames of videos and cameras, raw frames on standard input; or sounds.

    Frames have their time in the output: `seconds` into the video, or since the camera was opened, and there also
    `time`, UTC. Exit code 2 where nothing could be labelled, or a camera or stream closed or fell silent.
    """
    from edgetl.cli import output
    from edgetl.cli.progress import open_progress
    from edgetl.errors import ConfigError, SourceError
    from edgetl.runtime import load
    from edgetl.runtime.inputs import ImageResult, has_end, open_source, parse_frame_format, predict_all
    from edgetl.runtime.listening import has_no_end, listening
    from edgetl.runtime.video import Live

    form = parse_frame_format(frame_size, pixel_format) if frame_size else None
    endless = has_no_end(images, pcm) or not has_end(images, form)
    if endless and not (json_lines or limit):
        raise ConfigError("A camera, microphone or stream may have no end: give --json-lines, or --limit.")
    if coco is not None and (json or json_lines):
        raise typer.BadParameter("--coco prints JSON of its own; leave --json and --json-lines out")
    live = Live(timeout=timeout, reconnect=reconnect, every_frame=every_frame)
    found, lost = list[ImageResult](), None
    with (
        open_progress() as progress,
        load(
            bundle,
            target=target,
            variant=variant,
            precision=precision,
            threads=threads,
            require_signature=require_signature,
            threshold=threshold,
            explain=explain,
            drift=drift,
            capture=_capture(capture, capture_mb, capture_per_hour, progress),
        ) as session,
    ):
        sounds = listening(session.manifest.preprocess, images, hop=hop, pcm=pcm)
        source = open_source(
            images, limit=limit, frame_format=form, live=live, sounds=sounds, progress=progress
        )
        say_choice(session.choice)
        ids = _coco_ids(coco, session)
        results = predict_all(
            session,
            source,
            top_k=top,
            sure=sure,
            coverage=coverage,
            unknown=unknown,
            save=save,
            explain=explain,
            progress=progress,
        )
        try:
            if json_lines:
                output.emit_lines(results)
            else:
                found.extend(results)
        except SourceError as error:
            lost = error  # What came before it is still worth its table.
        finally:
            _say_watched(session)
    if ids is not None:
        output.emit(ids.results(found), True, "predictions")
    elif not json_lines:
        output.emit(found, json, "predictions")
    if lost is not None:
        raise lost


def drift(
    bundle: BundleArg,
    images: Annotated[
        list[str],
        typer.Argument(
            help="Images, folders, globs, videos, cameras (camera:0) or streams (rtsp://...).",
            show_default=False,
        ),
    ],
    rate: Annotated[
        float,
        typer.Option(
            "--rate", help="Chance, at most, of an alarm although images come as the validation images did."
        ),
    ] = 0.01,
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            "--ignore",
            metavar="NAME",
            help="Leave this out, e.g. classes where other parts come than the set shows. Repeatable. Of: brightness,"
            " highlights, contrast, sharpness, saturation, warmth, tint, confidence, classes.",
            show_default="watch all",
        ),
    ] = None,
    in_order: Annotated[
        bool,
        typer.Option(
            "--in-order",
            help="Take files by their names, where they came in that order: then it says since which one. Else they are"
            " shuffled, since a folder class by class looks like a change.",
        ),
    ] = False,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Stop after so many images.")] = None,
    target: EngineTarget = "auto",
    variant: Variant = None,
    precision: PrecisionOption = None,
    threads: Threads = None,
    require_signature: RequireSignature = None,
    json: Json = False,
) -> None:
    """Is this still the world that the model was made for? Exit code 1 where images changed, and it says what moved.

    A sequential test of light, contrast, sharpness, colour, confidence and class mix against the validation images: it
    may be looked at after every image, and ever gives a false alarm with a chance of at most --rate. Exit code 3 where
    there are too few images to tell. A camera or stream is watched until an alarm, or --limit.
    """
    from edgetl.cli import output
    from edgetl.cli.progress import open_progress
    from edgetl.runtime import load
    from edgetl.runtime.drift import Drift
    from edgetl.runtime.inputs import has_end, open_source, predict_all, sampled
    from edgetl.runtime.listening import listening

    settings = Drift(rate=rate, ignore=tuple(ignore or ()))
    with (
        open_progress() as progress,
        load(
            bundle,
            target=target,
            variant=variant,
            precision=precision,
            threads=threads,
            require_signature=require_signature,
            drift=settings,
        ) as session,
    ):
        sounds = listening(session.manifest.preprocess, images)
        source = open_source(images, sounds=sounds, progress=progress)
        source = sampled(source, limit=limit, in_order=in_order)
        say_choice(session.choice)
        for result in predict_all(session, source, progress=progress):
            if result.drift and not has_end(images, None):
                break
        state = session.drift
    output.emit(state, json, "drift")
    end_by(state.verdict)


def _coco_ids(annotations: Path | None, session: Session) -> Ids | None:
    if annotations is None:
        return None
    from edgetl.errors import ConfigError
    from edgetl.runtime.coco import Ids
    from edgetl.tasks.base import Detection

    if not isinstance(session.task.spec, Detection):
        raise ConfigError(
            f"--coco is for the boxes of a detector; the bundle is of the task {session.task.spec.kind}."
        )
    return Ids(annotations, session.labels)


def _capture(folder: Path | None, limit_mb: float, per_hour: int, progress: Progress) -> Capture | None:
    if folder is None:
        return None
    from edgetl.runtime.capture import Capture

    return Capture(folder, limit_mb, per_hour, say=progress.warning)


def _say_watched(session: Session) -> None:
    """Say on standard error what was kept, and that nothing was seen of drift; an alarm was said when it came."""
    if (watch := session.watch) is None:
        return
    if (drift := watch.drift) is not None and not drift.drifted:
        typer.echo(drift.sentence, err=True)
    if watch.capturer is not None:
        watch.close()
        typer.echo(session.captured.sentence, err=True)
