"""The page's gallery of labels that may be wrong: picture, label, what it may be instead, and how sure that is."""

from __future__ import annotations

from pathlib import Path

from edgetl.inputs.spec import PreprocessSpec, SoundSpec
from edgetl.records.codec import from_json
from edgetl.records.doubts import DoubtfulLabel, SplitDoubts
from edgetl.report import units
from edgetl.report.page.boxes import thumbnail
from edgetl.report.page.markup import Column, Markup, Row, sentence, table, tag
from edgetl.report.run import RunReport

_SIDE = 200
_NAMES = {"train": "training", "val": "validation", "test": "test"}


def doubts(report: RunReport, folder: Path | None = None) -> Markup:
    """The candidates and what was looked at; nothing where nobody looked."""
    record = report.doubts
    if record is None:
        return Markup("")
    notes = Markup("".join(tag("p", sentence(note), css="lead") for note in record.notes))
    if not record.splits:
        return notes
    lead = (
        "Candidates for a person to look at, by confident learning (Northcutt et al. 2021): the probability of another"
        " class is as high as it usually is for that class. All probabilities are of models that have not learned from"
        " the image. A rare kind of picture is a candidate, too, and need not be labelled wrong; of a model that often"
        " disagrees with the labels, most candidates are its own mistakes."
    )
    if not record.labels:
        return Markup(tag("p", f"{lead} No label is doubtful.", css="lead") + _splits(record.splits) + notes)
    sound = None if record.sound is None else from_json(SoundSpec, record.sound)
    spec = PreprocessSpec(size=_SIDE, sound=sound)
    items = tag("ul", *(_item(one, folder, spec) for one in record.labels), css="flips")
    return Markup(
        tag("p", lead, css="lead")
        + _splits(record.splits)
        + notes
        + tag("h3", f"The surest {units.counted(len(record.labels), 'candidate')}")
        + items
    )


def _splits(splits: tuple[SplitDoubts, ...]) -> Markup:
    heads = (
        Column(header="Split"),
        Column(header="Images", number=True),
        Column(header="Doubtful", number=True, hint="labels, listed below or not"),
        Column(header="Wrong, estimated", number=True, hint="share of the labels"),
        Column(header="Model agrees", number=True, hint="share of the labels that it finds most probable"),
        Column(header="Probabilities"),
    )
    rows = [
        Row(
            cells=(
                _NAMES.get(one.split, one.split),
                units.count(one.images),
                units.count(one.candidates),
                units.percent(one.share),
                units.percent(one.agrees),
                one.by,
            )
        )
        for one in splits
    ]
    return table(heads, rows, "Labels that were looked at")


def _item(one: DoubtfulLabel, folder: Path | None, spec: PreprocessSpec) -> Markup:
    name = Path(one.file).name
    shown = thumbnail(Path(one.file), _SIDE, spec) if folder is not None else ""
    words = f"{name}, labelled {one.given}, suspected {one.suspected}"
    return tag(
        "li",
        tag("img", src=shown, alt=words) if shown else tag("span", "no picture", css="none"),
        tag("span", f"{one.suspected}?", css="wrong"),
        f" {units.percent(one.score)}; labelled {one.given} ({units.percent(one.given_score)}), "
        f"{_NAMES.get(one.split, one.split)}",
        tag("span", name, css="path"),
    )
