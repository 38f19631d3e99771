"""`edgetl data`: look at an image set, and add to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgetl.cli.options import Json
from edgetl.cli.watch import require_train
from edgetl.records.scores import BadImages

if TYPE_CHECKING:
    from edgetl.config import Recipe
    from edgetl.data.suggest import Suggestion
    from edgetl.progress import Progress
    from edgetl.tasks.labelling import Labelling


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
    require_train()
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
    from edgetl.inputs.spec import is_window

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
        sound = recipe.heard
        window = recipe.preprocess.window if window is None else window
    else:
        place(source)  # which says what is wrong with a name before the recipe's own check of it
        data, labelling = config.DataConfig(source=source), labelling_in(source)
    with open_progress() as progress:
        if not of_recipe:
            found = known_of(source, labelling, progress)
            data, sound = found.data, found.heard
        data = data.model_copy(update={"bad_images": BadImages.SKIP})  # the report names them
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
    require_train()
    from edgetl import config
    from edgetl.cli import output
    from edgetl.cli.progress import open_progress
    from edgetl.data.add import AddInputs, run
    from edgetl.data.build import index_of
    from edgetl.data.sources import SPLITS, kind_in, labelling_in
    from edgetl.errors import ConfigError
    from edgetl.inputs.spec import InputKind

    own = next((name for name in SPLITS if name == split), None)
    if own is None:
        raise ConfigError(f"--split: got {split!r}, expected {', '.join(SPLITS)}.")
    with open_progress() as progress:
        index = None
        if known is not None:
            labelling = labelling_in(known)
            found = known_of(known, labelling, progress)
            index = index_of(found.data, labelling=labelling, sound=found.heard, progress=progress)
        sound = index.sound if index is not None else None
        if index is None and kind_in(captured) is InputKind.SOUND:
            sound = config.parse({"data": {"input": "sound"}}).heard
        inputs = AddInputs(known=index, labels=labels, split=own, sound=sound)
        record = run(captured, inputs, out=output_path, progress=progress)
    output.emit(record, json, "added")


def known_of(source: str, labelling: Labelling, progress: Progress) -> Recipe:
    """The recipe of a source of which nothing is known but what it holds; what cannot be read is left out."""
    from edgetl import config

    suited = sound_settings(source, labelling, progress)
    return config.parse(by_section(suited, {"data": {"source": source, "bad_images": "skip"}}))


def sound_settings(source: str, labelling: Labelling, progress: Progress) -> Sequence[Suggestion]:
    """The settings that suit recordings, where the source holds these; none where it holds images."""
    from edgetl.data.hearing import listen, suggest_sound
    from edgetl.data.sources import find, kind_in
    from edgetl.inputs.spec import InputKind

    if kind_in(source) is InputKind.IMAGE:
        return ()
    return suggest_sound(listen(find(source, labelling, kind=InputKind.SOUND), progress=progress))


def by_section(
    chosen: Sequence[Suggestion], values: Mapping[str, Mapping[str, object]]
) -> dict[str, dict[str, object]]:
    """Settings as a recipe has them, beside those that are there."""
    found = {section: dict(own) for section, own in values.items()}
    for item in chosen:
        section, _, key = item.key.partition(".")
        found.setdefault(section, {})[key] = item.value
    return found
