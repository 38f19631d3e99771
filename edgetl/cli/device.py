"""Commands of the device side: numpy, Pillow and one inference engine are enough."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, assert_never

import typer

from edgetl.cli.enrol import enrol
from edgetl.cli.oci import oci
from edgetl.cli.options import (
    BadImagesOption,
    BundleArg,
    CoverageOption,
    EngineTarget,
    Json,
    PrecisionOption,
    RequireSignature,
    Threads,
    Variant,
)
from edgetl.cli.serve import serve
from edgetl.records.scores import BadImages
from edgetl.shell import command

if TYPE_CHECKING:
    from edgetl.progress import Progress
    from edgetl.runtime.capture import Capture
    from edgetl.runtime.coco import Ids
    from edgetl.runtime.session import Session
    from edgetl.runtime.targets import Choice

PANEL = "Use a model (no torch needed)"


class ScenarioName(StrEnum):
    """The load, as MLPerf Inference names them."""

    SINGLE_STREAM = "single-stream"
    MULTI_STREAM = "multi-stream"
    OFFLINE = "offline"
    SERVER = "server"


DataDir = Annotated[
    Path,
    typer.Argument(
        help="Labelled images: CLASS/* or SPLIT/CLASS/*, a CSV; of a detector boxes as COCO, YOLO, VOC or CSV.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the app, in the order of their use."""
    examples: dict[Callable[..., None], str] = {
        info: "edgetl info model.edgetl",
        verify: "edgetl verify model.edgetl",
        predict: "edgetl predict model.edgetl photo.jpg --json",
        evaluate: "edgetl eval model.edgetl photos/",
        enrol: "edgetl enrol model.edgetl scratch pictures/*.jpg -o model-2.edgetl",
        drift: "edgetl drift model.edgetl photos/of/today/",
        bench: "edgetl bench model.edgetl --profile --history bench.sqlite",
        tune: "edgetl tune model.edgetl",
        history: "edgetl history bench.sqlite --html trend.html",
        baseline: "edgetl baseline model.edgetl -o baseline.json",
        gate: "edgetl gate new.edgetl --against old.edgetl",
        keygen: "edgetl keygen signing.pem",
        sign: "edgetl sign model.edgetl --key signing.pem",
        serve: "edgetl serve model.edgetl --port 8000",
        oci: "edgetl oci model.edgetl -o model-oci",
        doctor: "edgetl doctor",
    }
    for function, example in examples.items():
        name = "eval" if function is evaluate else function.__name__
        app.command(name, rich_help_panel=PANEL, epilog=f"Example: {example}")(function)
    app.command(rich_help_panel="Learn", epilog="Example: edgetl guide cookbook")(guide)


def info(bundle: BundleArg, json: Json = False) -> None:
    """Show what a bundle holds: labels, preprocessing, variants, figures, provenance; and what would run here."""
    from edgetl.bundle.archive import open_bundle
    from edgetl.cli import output
    from edgetl.errors import BundleError
    from edgetl.runtime.choice import choose_here

    opened = open_bundle(bundle)
    output.emit(opened.manifest, json, "bundle")
    try:
        _tell(choose_here(opened, threads=None))
    except BundleError as error:
        typer.echo(f"Here: {error}", err=True)


def verify(
    bundle: BundleArg,
    target: EngineTarget = "auto",
    variant: Variant = None,
    precision: PrecisionOption = None,
    threads: Threads = None,
    require_signature: RequireSignature = None,
    json: Json = False,
) -> None:
    """Check every hash, and that this machine gives the golden images' outputs. Exit code 1 where it does not."""
    from edgetl.cli import output
    from edgetl.runtime import load

    with load(
        bundle,
        target=target,
        variant=variant,
        precision=precision,
        threads=threads,
        require_signature=require_signature,
    ) as session:
        _tell(session.choice)
        report = session.verify()
    output.emit(report, json, "verify")
    if not report.passed:
        raise typer.Exit(1)


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
        _tell(session.choice)
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
            _tell_watch(session)
    if ids is not None:
        output.emit(ids.results(found), True, "predictions")
    elif not json_lines:
        output.emit(found, json, "predictions")
    if lost is not None:
        raise lost


def evaluate(
    bundle: BundleArg,
    data: DataDir,
    bad_images: BadImagesOption = BadImages.REFUSE,
    coverage: CoverageOption = None,
    unknown: Annotated[
        Path | None,
        typer.Option(
            "--unknown",
            metavar="FOLDER",
            help="Also how well each score tells the images of this folder, which the model should not know, from those"
            " of DATA: AUROC, and how many pass where 95% of the known ones do.",
        ),
    ] = None,
    target: EngineTarget = "auto",
    variant: Variant = None,
    precision: PrecisionOption = None,
    threads: Threads = None,
    require_signature: RequireSignature = None,
    json: Json = False,
) -> None:
    """Score a bundle on labelled images: accuracy, macro-F1, per-class recall, confusion; of boxes mAP and mistakes.

    The test split is scored, else the validation split, else all. A bundle knows the images that it was trained on and
    validated with: a warning counts them, and in a folder without splits they are left out while others remain.
    `--json` has both in `image_set`. baseline, gate and parity do the same.

    With `--coverage` it says how often the sets of labels held the truth, and their mean size.
    """
    from edgetl.cli import output
    from edgetl.cli.progress import open_progress
    from edgetl.runtime import load
    from edgetl.runtime.evaluate import evaluate_folder

    with (
        load(
            bundle,
            target=target,
            variant=variant,
            precision=precision,
            threads=threads,
            require_signature=require_signature,
        ) as session,
        open_progress() as progress,
    ):
        _tell(session.choice)
        output.emit(
            evaluate_folder(
                session,
                data,
                bad_images=bad_images,
                coverage=coverage,
                unknown=unknown,
                progress=progress,
            ),
            json,
            "evaluation",
        )


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
    from edgetl.records.gate import Verdict
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
        _tell(session.choice)
        for result in predict_all(session, source, progress=progress):
            if result.drift and not has_end(images, None):
                break
        state = session.drift
    output.emit(state, json, "drift")
    match state.verdict:
        case Verdict.PASS:
            return
        case Verdict.FAIL:
            raise typer.Exit(1)
        case Verdict.UNSURE:
            raise typer.Exit(3)
        case _:
            assert_never(state.verdict)


def bench(
    bundle: BundleArg,
    scenario: Annotated[
        ScenarioName, typer.Option("--scenario", help="The load.")
    ] = ScenarioName.SINGLE_STREAM,
    runs: Annotated[int, typer.Option("--runs", min=10, help="Samples.")] = 200,
    warmup: Annotated[
        int | None,
        typer.Option(
            "--warmup",
            min=0,
            help="Calls before the first sample, to repeat another tool's protocol.",
            show_default="until steady",
        ),
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", min=1, help="Images per call, offline only.", show_default="32")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option("--rate", help="Arrivals a second, server only.", show_default="half of capacity"),
    ] = None,
    bound_ms: Annotated[float, typer.Option("--bound-ms", help="Bound on p99 in ms, server only.")] = 15.0,
    pin: Annotated[
        str | None,
        typer.Option(
            "--pin",
            metavar="CORES",
            help="One core per thread, e.g. 0,1 or 2-3; Linux only. Sets --threads too.",
        ),
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Also the time of each layer, from the engine's profiler.")
    ] = False,
    roofline: Annotated[
        bool,
        typer.Option(
            "--roofline",
            help="Also this machine's own peaks, in float, in INT8 and in memory, and what share of them each layer and"
            " the model reach.",
        ),
    ] = False,
    loadgen: Annotated[
        bool, typer.Option("--loadgen", help="Also run MLPerf's load generator (the extra `loadgen`).")
    ] = False,
    history_path: Annotated[
        Path | None,
        typer.Option("--history", metavar="FILE", help="Add the figures to this file, for `edgetl history`."),
    ] = None,
    target: EngineTarget = "auto",
    variant: Variant = None,
    threads: Threads = None,
    require_signature: RequireSignature = None,
    json: Json = False,
) -> None:
    """Measure latency, throughput, load time and peak memory on this machine."""
    from edgetl.bench.pin import parse_cores
    from edgetl.bench.scenarios import BenchOptions, Scenario
    from edgetl.bench.stage import BenchInputs, run
    from edgetl.cli import output
    from edgetl.cli.progress import open_progress

    options = BenchOptions(
        scenario=Scenario(scenario.value),
        runs=runs,
        warmup=warmup,
        threads=threads,
        batch=batch,
        rate=rate,
        bound_ms=bound_ms,
        pin=parse_cores(pin) if pin else (),
    )
    inputs = BenchInputs(bundle=bundle, variant=variant, target=target, require_signature=require_signature)
    if history_path is not None and history_path.exists():
        from edgetl.history import read

        read(history_path)  # What cannot be added to is reported before the measurement.
    with open_progress() as progress:
        record = run(
            options,
            inputs,
            profiled=profile,
            against_peaks=roofline,
            with_loadgen=loadgen,
            progress=progress,
        )
    if json:  # The tables show them.
        for warning in record.warnings:
            typer.echo(f"Warning: {warning}", err=True)
    output.emit(record, json, "bench")
    if history_path is not None:
        from edgetl.history import append

        append(history_path, record)
        typer.echo(f"Added to {history_path}. Show it with: {command('history', history_path)}", err=True)


def tune(
    bundle: BundleArg,
    seconds: Annotated[
        float,
        typer.Option("--seconds", min=1.0, help="Time for the timing; more time distinguishes closer ones."),
    ] = 10.0,
    threads: Threads = None,
    require_signature: RequireSignature = None,
    json: Json = False,
) -> None:
    """Find the fastest variant and engine on this machine, and run that from now on wherever no target is named.

    Every variant is tried on every engine that works here: it must give the golden images' outputs, and its accuracy
    must be no lower than the default variant's. What is found is saved in your cache folder.
    """
    from edgetl.bench.tune import tune as measure
    from edgetl.cli import output
    from edgetl.cli.progress import open_progress

    with open_progress() as progress:
        record = measure(
            bundle, threads=threads, seconds=seconds, require_signature=require_signature, progress=progress
        )
    output.emit(record, json, "tune")


def history(
    file: Annotated[Path, typer.Argument(help="A file of `edgetl bench --history`.", show_default=False)],
    last: Annotated[
        int, typer.Option("--last", min=1, max=400, help="Runs of each subject, the latest.")
    ] = 400,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write the trends as a page.")
    ] = None,
    json: Json = False,
) -> None:
    """Show how latency went over many runs, and where its level moved."""
    from edgetl.cli import output
    from edgetl.history import read

    record = read(file, last=last)
    if html is not None:
        from edgetl import files
        from edgetl.report.page.trend import render

        files.write_text(html, render(record))
        typer.echo(f"Wrote {html}.", err=True)
    output.emit(record, json, "history")


def baseline(
    bundle: BundleArg,
    output_path: Annotated[Path, typer.Option("--output", "-o", help="Where to write.")] = Path(
        "baseline.json"
    ),
    data: Annotated[
        Path | None, typer.Option("--data", help="Labelled images to score; else the bundle's figures.")
    ] = None,
    bad_images: BadImagesOption = BadImages.REFUSE,
    target: EngineTarget = "auto",
    variant: Variant = None,
    threads: Threads = None,
    runs: Annotated[int, typer.Option("--runs", min=1, help="Latency samples.")] = 200,
    require_signature: RequireSignature = None,
) -> None:
    """Measure accuracy, latency, size, memory and load time here and keep them for `edgetl gate`."""
    from edgetl.cli.progress import open_progress
    from edgetl.gate.stage import make_baseline

    _require(require_signature, bundle)
    with open_progress() as progress:
        made = make_baseline(
            bundle,
            data=data,
            bad_images=bad_images,
            variant=variant,
            target=target,
            threads=threads,
            runs=runs,
            progress=progress,
        )
    made.save(output_path)
    typer.echo(
        f"Wrote {output_path}. Later: {command('gate', 'NEW_BUNDLE', '--baseline', output_path)}", err=True
    )


def gate(
    bundle: BundleArg,
    baseline_path: Annotated[
        Path | None, typer.Option("--baseline", help="A file of `edgetl baseline`.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option("--against", help="Another bundle, timed side by side.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Labelled images to score; else the bundle's figures.")
    ] = None,
    bad_images: BadImagesOption = BadImages.REFUSE,
    max_accuracy_drop: Annotated[
        float | None,
        typer.Option(
            help="Allowed loss of top-1 and macro-F1, of boxes of mAP, in 0..1.",
            show_default="0.01, or the least that the images can settle",
        ),
    ] = None,
    max_recall_drop: Annotated[
        float, typer.Option(help="Allowed loss of any class's recall, of boxes of its AP, in 0..1.")
    ] = 0.10,
    max_latency_increase: Annotated[
        float, typer.Option(help="Allowed growth of the median latency, as a share.")
    ] = 0.025,
    max_size_increase: Annotated[float, typer.Option(help="Allowed growth of the file, as a share.")] = 0.05,
    max_memory_increase: Annotated[
        float, typer.Option(help="Allowed growth of the peak memory, as a share.")
    ] = 0.10,
    max_load_increase: Annotated[
        float, typer.Option(help="Allowed growth of the load time, as a share.")
    ] = 0.50,
    max_bits_increase: Annotated[
        float, typer.Option(help="Allowed growth of the mean bits that layers compute in, as a share.")
    ] = 0.0,
    report_path: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE", help="Write an HTML page with the images that flipped."),
    ] = None,
    seconds: Annotated[
        float, typer.Option(help="With --against: longest time for the timing; it stops when it can tell.")
    ] = 60.0,
    history: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --baseline: a file of `edgetl bench --history`, to know how this machine differs between runs.",
        ),
    ] = None,
    allow_other_machine: Annotated[
        bool,
        typer.Option("--allow-other-machine", help="Report latency but do not judge it on another machine."),
    ] = False,
    target: EngineTarget = "auto",
    variant: Variant = None,
    threads: Threads = None,
    require_signature: RequireSignature = None,
    json: Json = False,
) -> None:
    """Fail (exit code 1) where accuracy, latency, size, memory, load time or precision got worse.

    Exit code 3 where that cannot be decided.
    """
    from edgetl.cli import output
    from edgetl.cli.progress import open_progress
    from edgetl.gate.compare import Limits
    from edgetl.gate.stage import gate_against, gate_baseline
    from edgetl.records.gate import Verdict

    if (baseline_path is None) == (against is None):
        raise typer.BadParameter("give either --baseline FILE or --against OTHER_BUNDLE")
    _require(require_signature, bundle)
    limits = Limits(
        max_accuracy_drop=max_accuracy_drop,
        max_recall_drop=max_recall_drop,
        max_latency_increase=max_latency_increase,
        max_size_increase=max_size_increase,
        max_memory_increase=max_memory_increase,
        max_load_increase=max_load_increase,
        max_bits_increase=max_bits_increase,
    )
    with open_progress() as progress:
        if against is not None:
            report = gate_against(
                bundle,
                against,
                limits=limits,
                data=data,
                bad_images=bad_images,
                variant=variant,
                target=target,
                threads=threads,
                seconds=seconds,
                progress=progress,
            )
        else:
            assert baseline_path is not None
            report = gate_baseline(
                bundle,
                baseline_path,
                limits=limits,
                data=data,
                bad_images=bad_images,
                variant=variant,
                target=target,
                threads=threads,
                history=history,
                allow_other_machine=allow_other_machine,
                progress=progress,
            )
    if report_path is not None:
        from edgetl.bundle.archive import open_bundle
        from edgetl.report.page.gate import write_page
        from edgetl.tasks.labelling import labelling_of

        manifest = open_bundle(bundle).manifest
        write_page(report, report_path, data, manifest.preprocess, labelling_of(manifest.task))
        typer.echo(f"Wrote {report_path}.", err=True)
    output.emit(report, json, "gate")
    match report.verdict:
        case Verdict.PASS:
            return
        case Verdict.FAIL:
            raise typer.Exit(1)
        case Verdict.UNSURE:
            raise typer.Exit(3)
        case _:
            assert_never(report.verdict)


def keygen(
    private: Annotated[Path, typer.Argument(help="Where to write the private key.", show_default=False)],
    json: Json = False,
) -> None:
    """Make a key pair for `edgetl sign`: the private key, and the public one next to it as FILE.pub."""
    from edgetl.bundle.signature import make_keys
    from edgetl.cli import output

    output.emit(make_keys(private), json, "keys")


def sign(
    bundle: BundleArg,
    key: Annotated[
        Path,
        typer.Option("--key", help="The private key, of `edgetl keygen` or OpenSSL.", show_default=False),
    ],
    output_path: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write.", show_default="in place")
    ] = None,
    json: Json = False,
) -> None:
    """Sign a bundle with Ed25519, so that `--require-signature` accepts it on a device."""
    from edgetl.bundle.signature import sign as sign_bundle
    from edgetl.cli import output

    output.emit(sign_bundle(bundle, key, output_path), json, "signed")


def doctor(json: Json = False) -> None:
    """Say what this machine can run, and what to install for more."""
    from edgetl.cli import output
    from edgetl.runtime.doctor import examine

    output.emit(examine(), json, "doctor")


def guide(
    topic: Annotated[str | None, typer.Argument(help="The page.", show_default="the list of topics")] = None,
    json: Json = False,
) -> None:
    """Read the manual: how to install, each stage and why, a cookbook, the file format, a glossary, the reference."""
    from edgetl import guide as manual
    from edgetl.cli import output

    output.emit(manual.topics() if json and topic is None else manual.page(topic), json, "guide")


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


def _tell_watch(session: Session) -> None:
    """Say on standard error what was kept, and that nothing was seen of drift; an alarm was said when it came."""
    if (watch := session.watch) is None:
        return
    if (drift := watch.drift) is not None and not drift.drifted:
        typer.echo(drift.sentence, err=True)
    if watch.capturer is not None:
        watch.close()
        typer.echo(session.captured.sentence, err=True)


def _tell(choice: Choice) -> None:
    """Say on standard error what runs, and why."""
    # Without a full stop, since the reason may end with a command.
    typer.echo(f"Runs {choice.variant} on {choice.target}: {choice.reason}", err=True)


def _require(key: Path | None, bundle: Path) -> None:
    if key is not None:
        from edgetl.bundle.archive import open_bundle
        from edgetl.bundle.signature import require_signature

        require_signature(open_bundle(bundle), key)
