"""Commands of the host side, where models are made: they need the `train` extra."""

from __future__ import annotations

import os
import re
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgetl.cli.cascade import EXAMPLE as CASCADE_EXAMPLE
from edgetl.cli.cascade import cascade
from edgetl.cli.options import (
    BadImagesOption,
    BundleArg,
    DataArg,
    Json,
    RecipeArg,
    RunDir,
    Set,
    Threads,
    Variant,
)
from edgetl.cli.root import typed
from edgetl.cli.search import EXAMPLE as SEARCH_EXAMPLE
from edgetl.cli.search import search
from edgetl.cli.watch import faults_told, watched
from edgetl.export.tensorrt.options import (
    BuildOptions,
    EnginePrecision,
    EngineTarget,
    HardwareCompatibility,
)
from edgetl.records.scores import BadImages
from edgetl.shell import command

if TYPE_CHECKING:
    from edgetl.config import Recipe
    from edgetl.data.suggest import Suggestion
    from edgetl.pipeline import Outcome
    from edgetl.progress import Progress
    from edgetl.tasks.labelling import Labelling
    from edgetl.transfer.networks import Source

PANEL = "Make a model (needs the train extra)"


def register(app: typer.Typer) -> None:
    """Add the commands to the app, in the order of the flow."""
    data = typer.Typer(help="Look at an image set, and add to it.", no_args_is_help=True)
    data.command("check", epilog="Example: edgetl data check photos/, or edgetl data check recipe.toml")(
        data_check
    )
    data.command(
        "add",
        epilog="Example: edgetl data add captured/ -o to_label/, then edgetl data add to_label/ --labels"
        " to_label/labels.csv --data photos/ -o photos.csv",
    )(data_add)
    app.command(rich_help_panel=PANEL, epilog="Example: edgetl init photos/ -o recipe.toml")(init)
    app.command(
        "suggest",
        rich_help_panel=PANEL,
        epilog="Example: edgetl suggest photos/ --sizes 96,128,160 --latency-ms 5 --page suggest.html",
    )(suggest)
    app.add_typer(data, name="data", rich_help_panel=PANEL)
    app.command("run", rich_help_panel=PANEL, epilog="Example: edgetl run recipe.toml --set train.epochs=4")(
        run
    )
    app.command("search", rich_help_panel=PANEL, epilog=SEARCH_EXAMPLE)(search)
    for function in (finetune, prune, distill, export, quantize):
        name = function.__name__
        app.command(name, rich_help_panel=PANEL, epilog=f"Example: edgetl {name} recipe.toml")(function)
    app.command(
        "extend",
        rich_help_panel=PANEL,
        epilog="Example: edgetl extend runs/parts --add new_parts/ -o runs/parts-2",
    )(extend)
    app.command("cascade", rich_help_panel=PANEL, epilog=CASCADE_EXAMPLE)(cascade)
    app.command(
        "build",
        rich_help_panel=PANEL,
        epilog="Example: edgetl build model.edgetl --target tensorrt-rtx --sm 86,89,120 --precision fp16",
    )(build)
    app.command("parity", rich_help_panel=PANEL, epilog="Example: edgetl parity model.edgetl photos/")(parity)
    app.command(
        "onnx", rich_help_panel=PANEL, epilog="Example: edgetl onnx model.edgetl -o model.onnx --uint8"
    )(onnx)
    app.command(
        "litert", rich_help_panel=PANEL, epilog="Example: edgetl litert model.edgetl -o model.tflite --uint8"
    )(litert)
    app.command("triton", rich_help_panel=PANEL, epilog="Example: edgetl triton model.edgetl -o models/")(
        triton
    )


def _require_train() -> None:
    from edgetl.packages import missing_host

    faults_told()
    if (error := missing_host()) is not None:
        raise error


def init(
    source: DataArg,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the recipe.")] = Path(
        "recipe.toml"
    ),
    force: Annotated[bool, typer.Option("--force", help="Overwrite a recipe that is there.")] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Write every setting, those that keep their defaults as comments.")
    ] = False,
    probe: Annotated[
        bool,
        typer.Option(
            "--suggest",
            help="Also choose backbone and size by linear probes and this machine's clock, as `edgetl suggest` does;"
            " takes minutes.",
        ),
    ] = False,
    latency_ms: Annotated[
        float | None,
        typer.Option(
            "--latency-ms", help="With --suggest: the best that is not slower in the median, uncut."
        ),
    ] = None,
) -> None:
    """Look at the data and write a recipe: what it chose and why, and the settings that people change most."""
    _require_train()
    from edgetl import config
    from edgetl.cli.progress import open_progress
    from edgetl.data import depth
    from edgetl.data.build import index_of
    from edgetl.data.sources import labelling_in
    from edgetl.data.suggest import (
        FEW_STEPS,
        batch_size,
        default_name,
        look,
        suggest,
        suggest_detector,
        suggest_target,
        suggest_task,
        suggest_window,
    )
    from edgetl.data.walk import counted
    from edgetl.errors import ConfigError
    from edgetl.files import write_text
    from edgetl.tasks.base import Detection

    taken = ConfigError(
        f"{output} is there already; overwrite it with --force or choose another name with -o."
    )
    if output.exists() and not force:
        raise taken
    if latency_ms is not None and not probe:
        raise ConfigError("--latency-ms chooses a backbone and size: give --suggest too.")
    _check_budget(latency_ms)
    if probe:
        _refuse_recordings(source)
    labelling = labelling_in(source)
    with open_progress() as progress:
        heard = _heard(source, labelling, progress)
        known = config.parse(_by_section(heard, {"data": {"source": source, "bad_images": "skip"}}))
        sound = known.sound.spec if heard else None
        index = index_of(known.data, labelling=labelling, seed=0, sound=sound, progress=progress)
        numbers = depth.look(index, progress=progress) if sound is None else depth.Depth(images=0)
    seen = look(index)
    boxes = isinstance(index.task, Detection)
    suited = suggest_detector(index) if boxes else [*suggest_task(labelling), *suggest(seen)]
    suited = [*heard, *(item for item in suited if item.key not in {one.key for one in heard})]
    chosen = [*suited, *suggest_window(numbers), *suggest_target()]
    if probe:
        from edgetl.transfer.proposal import proposed_settings

        with open_progress() as progress:
            found = proposed_settings(index, seen, numbers, latency_ms=latency_ms, progress=progress)
        chosen = [*(item for item in chosen if item.key not in {one.key for one in found}), *found]
    values = _by_section(chosen, {"data": {"source": _portable(source, output)}})
    name = default_name(source, _RunsOf(Path("runs"), source))
    recipe = config.parse({"name": name, **values})
    try:
        text = config.commented(recipe, {item.key: item.reason for item in chosen}, full=full)
        write_text(output, text, new=not force)
    except FileExistsError:  # another process wrote it meanwhile
        raise taken from None
    kind = known.data.input.plural
    side = f", median side {seen.median_side} px" if sound is None else ""
    typer.echo(
        f"{seen.train_images} training {kind}, {seen.classes} classes{side}"
        + (
            f"; {len(index.skipped)} {kind} cannot be read, see: {command('data', 'check', source)}"
            if index.skipped
            else ""
        )
        + (f"; besides them {counted(index.others)}" if index.others else "")
    )
    batch, steps = batch_size(seen.train_images)
    if steps < FEW_STEPS:
        typer.echo(
            f"Warning: an epoch has {steps} step{'' if steps == 1 else 's'} of {batch} images, too few to train well.",
            err=True,
        )
    for item in chosen:
        typer.echo(f"  {item.key} = {item.value}: {item.reason}")
    for problem in numbers.with_proposed().problems():
        typer.echo(f"  {problem}")
    typer.echo(f"Wrote {output}. Next: {command('run', output)}")


def _heard(source: str, labelling: Labelling, progress: Progress) -> Sequence[Suggestion]:
    """The settings that suit recordings, where the source holds these; none where it holds images."""
    from edgetl.data.hearing import listen, suggest_sound
    from edgetl.data.sources import find, kind_in
    from edgetl.inputs.spec import InputKind

    if kind_in(source) is InputKind.IMAGE:
        return ()
    return suggest_sound(listen(find(source, labelling, kind=InputKind.SOUND), progress=progress))


def _by_section(
    chosen: Sequence[Suggestion], values: Mapping[str, Mapping[str, object]]
) -> dict[str, dict[str, object]]:
    """Settings as a recipe has them, beside those that are there."""
    found = {section: dict(own) for section, own in values.items()}
    for item in chosen:
        section, _, key = item.key.partition(".")
        found.setdefault(section, {})[key] = item.value
    return found


def suggest(
    source: DataArg,
    backbones: Annotated[
        str | None,
        typer.Option(
            "--backbones",
            metavar="NAME,NAME=FILE,...",
            help="Backbones to look at, as in train.backbone; NAME=FILE takes its weights from a .safetensors or .pth"
            " file.",
            show_default="small ones whose weights are on this machine",
        ),
    ] = None,
    sizes: Annotated[
        str | None,
        typer.Option(
            "--sizes",
            metavar="PX,PX,...",
            help="Sides of the input in pixels.",
            show_default="128,160,224; of small images 48,64,96",
        ),
    ] = None,
    images: Annotated[
        int, typer.Option("--images", min=8, help="Look at no more training and validation images together.")
    ] = 1000,
    latency_ms: Annotated[
        float | None,
        typer.Option(
            "--latency-ms", help="Mark what is slower in the median, and propose the best that is not."
        ),
    ] = None,
    threads: Threads = None,
    page: Annotated[Path | None, typer.Option("--page", help="Also write an HTML page with a plot.")] = None,
    json: Json = False,
) -> None:
    """Which backbone and input size: transferability to the data against latency on this machine. Nothing is trained
    but linear probes, and test images are not looked at."""
    _require_train()
    from edgetl import config
    from edgetl.cli import output
    from edgetl.cli.progress import open_progress
    from edgetl.data import depth
    from edgetl.data.build import boxes_at, index_of
    from edgetl.data.sources import labelling_in
    from edgetl.data.suggest import look, suggest_preprocess
    from edgetl.transfer import stage

    _check_budget(latency_ms)
    asked = stage.RankingConfig(
        sources=None if backbones is None else _sources(backbones),
        sizes=None if sizes is None else _sizes(sizes),
        images=images,
        latency_ms=latency_ms,
        threads=threads,
    )
    stage.check_names(asked)
    data = config.parse({"data": {"source": source, "bad_images": "skip"}}).data
    if boxes_at(source) is not None:
        raise stage.boxes_refused()
    _refuse_recordings(source)
    with open_progress() as progress:
        index = index_of(data, labelling=labelling_in(source), seed=0, progress=progress)
        stage.check_task(index.task)
        if index.skipped:
            unread = len(index.skipped)
            progress.warning(
                f"{unread} image{'' if unread == 1 else 's'} cannot be read, see: {command('data', 'check', source)}"
            )
        chosen = suggest_preprocess(look(index), depth.look(index, progress=progress))
        record = stage.run(
            asked, index, config.parse({"preprocess": chosen}).preprocess, source=source, progress=progress
        )
    output.emit(record, json, "suggest")
    if page is not None:  # Afterwards, so that a page that cannot be written costs no figures.
        from edgetl.report.page.transfer import write_page

        write_page(record, page)
        typer.echo(f"Wrote {page}.", err=True)


def _refuse_recordings(source: str) -> None:
    from edgetl.data.sources import kind_in
    from edgetl.errors import ConfigError
    from edgetl.inputs.spec import InputKind

    if kind_in(source) is InputKind.SOUND:
        raise ConfigError(
            f"{source} holds recordings, and backbones are compared on images; name one in train.backbone of the recipe"
            " that edgetl init writes."
        )


def _check_budget(latency_ms: float | None) -> None:
    from edgetl.errors import ConfigError

    if latency_ms is not None and not 0 < latency_ms < float("inf"):
        raise ConfigError(f"--latency-ms: got {latency_ms:g}, expected milliseconds above 0.")


def _sources(text: str) -> tuple[Source, ...]:
    from edgetl.errors import ConfigError
    from edgetl.transfer.networks import Source

    parts = [part.strip().partition("=") for part in text.split(",")]
    if not all(name and bool(file) == bool(equals) for name, equals, file in parts):
        raise ConfigError(f"--backbones: got {text!r}, expected names parted by commas, or NAME=FILE.")
    found = [
        Source(backbone=name, weights=file) if file else Source(backbone=name) for name, _, file in parts
    ]
    return tuple(dict.fromkeys(found))


def _sizes(text: str) -> tuple[int, ...]:
    from edgetl.errors import ConfigError

    parts = [part.strip() for part in text.split(",")]
    numbers = [int(part) for part in parts if part.isascii() and part.isdecimal() and len(part) < 6]
    if len(numbers) != len(parts) or not all(16 <= number <= 1024 for number in numbers):
        raise ConfigError(
            f"--sizes: got {text!r}, expected whole numbers of pixels from 16 to 1024, parted by commas, as in"
            " 128,160,224."
        )
    return tuple(dict.fromkeys(numbers))


class _RunsOf(Container[str]):
    """Names under which another data set was run."""

    def __init__(self, folder: Path, source: str) -> None:
        self._folder, self._source = folder, source

    def __contains__(self, name: object) -> bool:
        from edgetl.pipeline import other_source

        return other_source(self._folder / str(name), self._source) is not None


def _portable(source: str, recipe: Path) -> str:
    """The source as the recipe should name it: relative to the recipe where it lies below it, else absolute."""
    from edgetl.data.walk import place

    path = place(source)
    if not path.exists():
        return source
    folder = recipe.resolve().parent
    resolved = path.resolve()
    return str(resolved.relative_to(folder)) if resolved.is_relative_to(folder) else str(resolved)


def data_check(
    source: Annotated[
        str,
        typer.Argument(
            metavar="DATA|RECIPE",
            help="A folder SPLIT/CLASS/* or CLASS/*, a CSV, `digits` or `cifar10`; or a recipe (.toml), whose data is"
            " read as its run would: by its label columns, fractions and window.",
            show_default=False,
        ),
    ],
    window: Annotated[
        tuple[float, float] | None,
        typer.Option(
            "--window",
            help="LOW HIGH: a window of numbers of more than 8 bits, to see whether the set keeps to it; the recipe's"
            " preprocess.window where unset.",
        ),
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            "--sheet",
            help="Also write a contact sheet (.jpg or .png): some pictures of each class, with their boxes.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Find corrupt files, duplicates and near-duplicates across splits, imbalance, and boxes that are wrong."""
    _require_train()
    from edgetl import config
    from edgetl.cli import output
    from edgetl.cli.progress import open_progress
    from edgetl.data.audit import audit
    from edgetl.data.build import index_of
    from edgetl.data.relations import related
    from edgetl.data.sheet import check_ending, write_sheet
    from edgetl.data.sources import labelling_in
    from edgetl.data.walk import place
    from edgetl.errors import ConfigError
    from edgetl.inputs.spec import InputKind, is_window

    if window is not None and not is_window(window):
        raise ConfigError(
            f"--window: got {window[0]:g} {window[1]:g}, expected two finite numbers, low below high."
        )

    if sheet is not None:
        check_ending(sheet)
    seed, relation, sound = 0, config.LabelsConfig(), None
    of_recipe = Path(source).suffix.lower() == ".toml" and not place(source).is_dir()
    if of_recipe:
        recipe = config.load(Path(source))
        data, labelling, seed = recipe.data, recipe.task.labelling, recipe.seed
        relation = recipe.labels
        sound = recipe.sound.spec if data.input is InputKind.SOUND else None
        window = recipe.preprocess.window if window is None else window
    else:
        place(source)  # which says what is wrong with a name before the recipe's own check of it
        data, labelling = config.DataConfig(source=source), labelling_in(source)
    data = data.model_copy(update={"bad_images": BadImages.SKIP})  # the report names them
    with open_progress() as progress:
        if not of_recipe and (heard := _heard(source, labelling, progress)):
            known = config.parse(_by_section(heard, {"data": {"source": source, "bad_images": "skip"}}))
            data, sound = known.data, known.sound.spec
        index = related(
            index_of(data, labelling=labelling, seed=seed, sound=sound, progress=progress), relation
        )
        report = audit(index, window=window, progress=progress)
    output.emit(report, json, "audit")
    if sheet is not None:  # Afterwards, so that a sheet that cannot be written costs no report.
        with open_progress() as progress:
            write_sheet(index, sheet, window=window, progress=progress)
            progress.message(f"Wrote {sheet}.")


def data_add(
    captured: Annotated[
        str,
        typer.Argument(help="A folder of `edgetl predict --capture`, or of any images.", show_default=False),
    ],
    output_path: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="Where to write: the CSV with --labels, else the folder, for a person to label or for"
            " distill.unlabelled.",
            show_default=False,
        ),
    ],
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels", metavar="CSV", help="The images' classes: the columns path and label, filled in."
        ),
    ] = None,
    known: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="DATA",
            help="The data set that they join: images that it has, or nearly has, are left out, and its rows stand"
            " first in the CSV.",
        ),
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Of the new rows: train, val or test.")] = "train",
    json: Json = False,
) -> None:
    """Check the images that a device kept, and make them labelled rows, or a folder without labels."""
    _require_train()
    from edgetl import config
    from edgetl.cli import output
    from edgetl.cli.progress import open_progress
    from edgetl.data.add import AddInputs, run
    from edgetl.data.build import index_of
    from edgetl.data.sources import SPLITS, labelling_in
    from edgetl.errors import ConfigError

    own = next((name for name in SPLITS if name == split), None)
    if own is None:
        raise ConfigError(f"--split: got {split!r}, expected {', '.join(SPLITS)}.")
    with open_progress() as progress:
        index = None
        if known is not None:
            data = config.DataConfig(source=known).model_copy(update={"bad_images": BadImages.SKIP})
            index = index_of(data, labelling=labelling_in(known), progress=progress)
        record = run(
            captured, AddInputs(known=index, labels=labels, split=own), out=output_path, progress=progress
        )
    output.emit(record, json, "added")


def run(recipe: RecipeArg, settings: Set = None, out: RunDir = None, json: Json = False) -> None:
    """The whole way: train, prune, distill, export, quantize, measure, bundle, report. Goes on where it stopped."""
    _told(_through(recipe, settings, out, "bundle"), json)


def _told(outcome: Outcome, json: bool) -> None:
    """Show a whole run; end with 1 where what ships is worse than allowed, with 3 where that cannot be decided."""
    from edgetl.cli import output
    from edgetl.records.gate import Verdict

    assert outcome.report is not None
    output.emit(outcome.report, json, "run")
    assert outcome.bundle is not None
    typer.echo(f"Bundle: {outcome.bundle}\nReport: {outcome.run_dir / 'report.html'}", err=True)
    typer.echo(f"Try it: {command('predict', outcome.bundle, 'IMAGE')}", err=True)
    kept = outcome.report.teacher.kept
    verdict = Verdict.PASS if kept is None else kept.verdict
    if not outcome.report.measure.floor_met:
        typer.echo(f"Gate failed: {outcome.report.measure.reason}.", err=True)
    if kept is not None and verdict is not Verdict.PASS:
        typer.echo(
            f"Gate {'failed' if verdict is Verdict.FAIL else 'cannot tell'}: {kept.sentence}", err=True
        )
    if not outcome.report.measure.floor_met or verdict is Verdict.FAIL:
        raise typer.Exit(1)
    if verdict is Verdict.UNSURE:
        raise typer.Exit(3)


def finetune(
    recipe: RecipeArg,
    settings: Set = None,
    out: RunDir = None,
    folds: Annotated[
        int | None,
        typer.Option(
            "--folds", min=2, help="Cross-validate instead: train once a fold, without the test split."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Train the teacher: a pretrained backbone with a new head. With --folds, estimate how well a recipe does."""
    if folds is None:
        _stage(recipe, settings, out, json, "train")
        return
    _require_train()
    from edgetl import config, pipeline
    from edgetl.cli import output
    from edgetl.cli.progress import open_progress
    from edgetl.errors import ConfigError
    from edgetl.train import processes

    if processes.launched().count > 1:
        raise ConfigError("--folds trains in one process; start it without torchrun or accelerate launch.")
    loaded = config.load(recipe, settings or [])
    run_dir = out or Path("runs") / loaded.name
    with watched(typed()) as begins, open_progress() as progress:
        begins("train")
        record = pipeline.cross_validate(loaded, run_dir, folds, progress=progress, resume_hint=typed())
    output.emit(record, json, "folds")


def prune(recipe: RecipeArg, settings: Set = None, out: RunDir = None, json: Json = False) -> None:
    """Remove channels from the teacher, in steps; the run up to and including pruning."""
    _stage(recipe, settings, out, json, "prune")


def distill(recipe: RecipeArg, settings: Set = None, out: RunDir = None, json: Json = False) -> None:
    """Train the student on the teacher's soft targets; the run up to and including distillation."""
    _stage(recipe, settings, out, json, "distill")


def export(recipe: RecipeArg, settings: Set = None, out: RunDir = None, json: Json = False) -> None:
    """Export the student to ONNX and check it; the run up to and including export."""
    _stage(recipe, settings, out, json, "export")


def quantize(recipe: RecipeArg, settings: Set = None, out: RunDir = None, json: Json = False) -> None:
    """Quantize the exported model to INT8; the run up to and including quantization."""
    _stage(recipe, settings, out, json, "quantize")


def extend(
    earlier: Annotated[
        Path, typer.Argument(metavar="RUN", help="The folder of a finished run.", show_default=False)
    ],
    added: Annotated[
        str,
        typer.Option(
            "--add",
            metavar="DATA",
            help="Labelled images, as for `edgetl init`: of new classes, of known ones under new conditions, or both.",
            show_default=False,
        ),
    ],
    settings: Set = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The new run's folder.", show_default="RUN-extended")
    ] = None,
    json: Json = False,
) -> None:
    """Teach a finished run's network new classes or conditions, beside exemplars of what it knows. Then the whole way,
    as `run`. A paired test on the old run's validation images says what became of the known classes: ends with 1 where
    they got worse, 3 where it cannot tell.
    """
    _require_train()
    from edgetl import config
    from edgetl.data.walk import place
    from edgetl.errors import ConfigError

    run_before = place(str(earlier)).absolute()
    folder = out or run_before.with_name(f"{run_before.name}-extended")
    if os.path.normpath(folder.absolute()) == os.path.normpath(run_before):
        raise ConfigError(f"--out: {folder} is the run that goes on; give the new one a folder of its own.")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.name).lstrip("._-") or "extended"
    recipe = config.extended(run_before, _portable(added, Path.cwd() / "recipe.toml"), name, settings or [])
    _told(_run(recipe, folder, "bundle"), json)


def build(
    bundle: BundleArg,
    target: Annotated[EngineTarget, typer.Option("--target", help="The engine.", show_default=False)],
    sm: Annotated[
        list[str] | None,
        typer.Option("--sm", help="Compute capabilities to compile for, e.g. 86,89,120. TensorRT-RTX only."),
    ] = None,
    precision: Annotated[
        EnginePrecision | None,
        typer.Option("--precision", help="What it shall compute in.", show_default="the variant's"),
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(
            "--variant", help="The variant to compile.", show_default="made for the target, or fp32"
        ),
    ] = None,
    batch: Annotated[
        str,
        typer.Option("--batch", metavar="LEAST,TUNED,LARGEST", help="Images per call; one number fixes it."),
    ] = "1,1,8",
    workspace_mib: Annotated[
        int, typer.Option("--workspace-mib", min=1, help="Scratch memory that a layer may use.")
    ] = 1024,
    sparse: Annotated[
        bool, typer.Option("--sparse", help="Use 2:4 sparse kernels where weights fit.")
    ] = False,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Later versions take it too. TensorRT only.")
    ] = False,
    hardware_compatible: Annotated[
        HardwareCompatibility, typer.Option("--hardware-compatible", help="Other GPUs too. TensorRT only.")
    ] = HardwareCompatibility.NONE,
    dla_core: Annotated[
        int | None,
        typer.Option("--dla-core", min=0, help="Compile for a Jetson's DLA; lists what falls back."),
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Compile again, though a cached engine would fit.")
    ] = False,
    output_path: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write.", show_default="next to the bundle")
    ] = None,
    json: Json = False,
) -> None:
    """Compile a TensorRT engine from a bundle's ONNX and prove its precision. TensorRT-RTX needs no GPU for this."""
    from edgetl.cli import output
    from edgetl.cli.progress import open_progress

    faults_told()
    from edgetl.deploy.engine import build_from_bundle

    options = BuildOptions(
        target=target,
        compute_capabilities=tuple(part for text in sm or () for part in text.split(",") if part),
        batch=_batch(batch),
        workspace_bytes=workspace_mib << 20,
        sparse_weights=sparse,
        version_compatible=version_compatible,
        hardware_compatibility=hardware_compatible,
        precision=precision or EnginePrecision.FP32,
        dla_core=dla_core,
    )
    with open_progress() as progress:
        record = build_from_bundle(
            bundle,
            options,
            precision=precision,
            variant=variant,
            output=output_path,
            reuse=not rebuild,
            progress=progress,
        )
    output.emit(record, json, "engine")


def parity(
    bundle: BundleArg,
    data: DataArg,
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", help="The exported network.", show_default="the run folder's, if there"),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Use so many images.", show_default="all")
    ] = None,
    bad_images: BadImagesOption = BadImages.REFUSE,
    json: Json = False,
) -> None:
    """Compare torch, ONNX, variants and engines; name the first that is off (exit code 1), and its layer."""
    faults_told()
    from edgetl.cli import output
    from edgetl.cli.progress import open_progress
    from edgetl.deploy.parity import run

    with open_progress() as progress:
        record = run(
            bundle, Path(data), checkpoint=checkpoint, limit=limit, bad_images=bad_images, progress=progress
        )
    output.emit(record, json, "parity")
    if record.first_outside:
        raise typer.Exit(1)


Uint8 = Annotated[
    bool, typer.Option("--uint8", help="Take (N, S, S, 3) uint8 pictures and normalise inside.")
]
Softmax = Annotated[bool, typer.Option("--softmax", help="Give probabilities in place of logits.")]
Top = Annotated[int, typer.Option("--top", min=0, help="Give the so many best classes; 0 gives all logits.")]


def onnx(
    bundle: BundleArg,
    output_path: Annotated[Path, typer.Option("--output", "-o", help="The file.")] = Path("model.onnx"),
    variant: Variant = None,
    uint8: Uint8 = False,
    softmax: Softmax = False,
    top: Top = 0,
    nms: Annotated[
        bool,
        typer.Option(
            "--nms",
            help="Of a detector: give boxes without duplicates, above the threshold, in one output (M, 7): image, x1,"
            " y1, x2, y2, score, class. ONNX Runtime and OpenVINO take it, TensorRT-RTX does not.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Take a model out of a bundle as ONNX, for any runtime; by option with what stands before and behind it inside."""
    faults_told()
    from edgetl.cli import output
    from edgetl.deploy.serving import ServeOptions, write_onnx

    options = ServeOptions(variant=variant, uint8=uint8, softmax=softmax, top=top, nms=nms)
    output.emit(write_onnx(bundle, options, output_path), json, "serve")


def litert(
    bundle: BundleArg,
    output_path: Annotated[Path, typer.Option("--output", "-o", help="The file.")] = Path("model.tflite"),
    variant: Variant = None,
    uint8: Annotated[
        bool, typer.Option("--uint8", help="Take (1, S, S, 3) uint8 pictures and normalise inside.")
    ] = False,
    softmax: Softmax = False,
    json: Json = False,
) -> None:
    """Take a model out of a bundle as one .tflite file, for LiteRT (TensorFlow Lite) on phones and boards.

    It takes one image at a time with its channels last, and computes on the variant's own scales.
    """
    faults_told()
    from edgetl.cli import output
    from edgetl.deploy.serving import ServeOptions, write_litert

    options = ServeOptions(variant=variant, uint8=uint8, softmax=softmax)
    output.emit(write_litert(bundle, options, output_path), json, "serve")


def triton(
    bundle: BundleArg,
    output_path: Annotated[Path, typer.Option("--output", "-o", help="The model repository.")] = Path(
        "models"
    ),
    variant: Variant = None,
    max_batch: Annotated[
        int, typer.Option("--max-batch", min=1, help="Largest batch that Triton makes.")
    ] = 8,
    gpu: Annotated[bool, typer.Option("--gpu", help="Run on GPUs instead of the CPU.")] = False,
    uint8: Uint8 = False,
    softmax: Softmax = False,
    top: Top = 0,
    json: Json = False,
) -> None:
    """Write a model repository for NVIDIA Triton, or add the model to one."""
    faults_told()
    from edgetl.cli import output
    from edgetl.deploy.serving import ServeOptions, write_triton

    options = ServeOptions(variant=variant, uint8=uint8, softmax=softmax, top=top)
    output.emit(write_triton(bundle, options, output_path, max_batch=max_batch, gpu=gpu), json, "serve")


def _batch(text: str) -> tuple[int, int, int]:
    from edgetl.errors import ConfigError

    parts = text.split(",")
    if len(parts) not in (1, 3) or not all(part.strip().isdecimal() for part in parts):
        raise ConfigError(f"--batch: got {text!r}, expected one number, or LEAST,TUNED,LARGEST as in 1,1,8.")
    numbers = [int(part) for part in parts]
    least, tuned, largest = numbers if len(numbers) == 3 else numbers * 3
    return least, tuned, largest


def _stage(recipe: Path, settings: list[str] | None, out: Path | None, json: bool, stage: str) -> None:
    from edgetl.cli import output
    from edgetl.errors import ConfigError
    from edgetl.pipeline import Stage

    outcome = _through(recipe, settings, out, Stage.ADAPT if stage == Stage.TRAIN else stage)
    record = outcome.records[Stage(stage)]
    if stage == Stage.TRAIN:
        record = outcome.records[Stage.ADAPT] or record
    if record is None:
        raise ConfigError(f"The recipe turns {stage} off; set {stage}.enabled = true, or run another stage.")
    output.emit(record, json, "stage")


def _through(recipe: Path, settings: list[str] | None, out: Path | None, stage: str) -> Outcome:
    _require_train()
    from edgetl import config

    loaded = config.load(recipe, settings or [])
    return _run(loaded, out or Path("runs") / loaded.name, stage)


def _run(loaded: Recipe, run_dir: Path, stage: str) -> Outcome:
    from edgetl import pipeline
    from edgetl.cli.progress import open_progress
    from edgetl.train import processes

    last = pipeline.Stage(stage)
    if not processes.launched().main:
        pipeline.follow(loaded, run_dir)
        raise typer.Exit
    with watched(typed()) as begins, open_progress() as progress:
        return pipeline.run(
            loaded, run_dir, until=last, progress=progress, resume_hint=typed(), begins=begins
        )
