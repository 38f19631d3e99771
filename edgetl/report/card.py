"""A model card in Markdown: what a bundle's model is, what it learned from, where it ends, and how well it does.

In the manner of Mitchell et al. (2019), from what the bundle and its run hold; nothing is written that nobody measured.
A bundle alone knows less than a run: no images by class, no teacher, no warnings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import assert_never

from edgetl import files
from edgetl._version import __version__
from edgetl.bundle.archive import Bundle
from edgetl.bundle.manifest import Manifest, Variant
from edgetl.inputs.spec import InputKind
from edgetl.records.lineage import lineage_words
from edgetl.records.measured import Latency, Machine
from edgetl.records.scores import Score, Scores
from edgetl.report import units
from edgetl.report.run import RunReport
from edgetl.report.sbom import engine_packages
from edgetl.runtime.licences import LicensedPackage, device_packages
from edgetl.tasks.all import task_of
from edgetl.tasks.base import Classification, Detection, HeadSpec, MultiHead, MultiLabel, TaskSpec

CARD_NAME = "model-card.md"
_LABELS_SHOWN = 50
_FEW = 100
"""Fewer images tell only large differences."""
_SPLITS = {"train": "training", "val": "validation", "test": "test"}
_MARKS = re.compile(r"([\\`*\[\]<>|#]|\b_|_\b)")
"""What Markdown may take for its own; an underscore within a word is none."""


def write_card(bundle: Bundle, report: RunReport | None, path: Path) -> None:
    """Write the card atomically.

    Raises:
        StorageError: it cannot be written.
    """
    files.write_text(path, card(bundle, report))


def card(bundle: Bundle, report: RunReport | None = None) -> str:
    """The card, with a line break at the end; `report` is that of the run which made the bundle."""
    manifest = bundle.manifest
    shipped = manifest.variant()
    assert shipped is not None  # A manifest without its default variant was refused.
    packages = device_packages(engine_packages(manifest))
    sections = (
        ("What it is", _what(manifest, shipped, report)),
        ("Limits", _limits(manifest, shipped, report)),
        ("Figures", _figures(manifest, shipped, report)),
        ("Latency and size", _latency(manifest)),
        ("Data", _data(bundle, report)),
        ("Licences", _licences(manifest, packages)),
        ("Provenance", _provenance(bundle, shipped)),
    )
    parts = [f"# {_plain(manifest.name)}", f"Model card, written by edgetl {__version__}."]
    for title, paragraphs in sections:
        parts += [f"## {title}", *paragraphs]
    return "\n\n".join(parts) + "\n"


# --- the sections ------------------------------------------------------------------------------------


def _what(manifest: Manifest, shipped: Variant, report: RunReport | None) -> list[str]:
    spec = manifest.preprocess
    sound = spec.sound
    taken = "pictures" if sound is None else f"recordings, {sound.seconds:g} s of each at {sound.rate} Hz"
    rows = [
        ("answers", _asked(manifest.task, _thing(manifest))),
        ("classes", _classes(manifest.task)),
        ("takes", f"{taken}, as {spec.size} x {spec.size} pixels ({spec.resize}, {spec.interpolation})"),
        ("ships", f"{shipped.name}: {shipped.precision} for {shipped.target}, {shipped.format}"),
    ]
    if report is not None:
        size = report.student.size
        rows += [
            ("teacher", report.teacher.backbone),
            ("network", f"{units.count(size.macs)} MACs, {units.count(size.parameters)} parameters"),
        ]
    rows += [("began with", origin.words) for origin in manifest.provenance.weights]
    return [_table(("", ""), rows)]


def _thing(manifest: Manifest) -> str:
    """What one thing is called that it answers."""
    match manifest.preprocess.kind:
        case InputKind.IMAGE:
            return "picture"
        case InputKind.SOUND:
            return "recording"
        case _:
            assert_never(manifest.preprocess.kind)


def _asked(task: TaskSpec, thing: str) -> str:
    match task:
        case Classification():
            return f"one of {units.counted(len(task.labels), 'class')} for a {thing}"
        case MultiLabel():
            return f"any number of {units.counted(len(task.labels), 'class')} for a {thing}"
        case MultiHead():
            return "several questions: " + "; ".join(
                f"{name}: {_asked(head, thing)}" for name, head in task.heads.items()
            )
        case Detection():
            return (
                f"boxes of {units.counted(len(task.labels), 'class')} that score {task.threshold:.2f} or more"
            )


def _classes(task: TaskSpec) -> str:
    def named(head: HeadSpec | Detection) -> str:
        more = len(head.labels) - _LABELS_SHOWN
        return ", ".join(head.labels[:_LABELS_SHOWN]) + (f" and {more} more" if more > 0 else "")

    if isinstance(task, MultiHead):
        return "; ".join(f"{name}: {named(head)}" for name, head in task.heads.items())
    return named(task)


def _limits(manifest: Manifest, shipped: Variant, report: RunReport | None) -> list[str]:
    thing = _thing(manifest)
    found = [
        f"It knows its classes and no others, and {thing}s like those that it was made from: another device or place"
        f" lowers its scores. `edgetl drift` tells whether {thing}s are still like them.",
        _unknown(shipped, thing),
        "It was scored on the images named below and on no others; nobody looked at how it treats people.",
    ]
    images = [scores.images for scores in (shipped.val, shipped.test) if scores is not None]
    if images and min(images) < _FEW:
        found.append(
            f"Its figures are of few images ({units.count(min(images))} in the smaller split): see the intervals."
        )
    if shipped.val is not None:
        found.append(
            "Epochs, cuts and variants were chosen by the validation images, so the scores on them are better than on"
            " new ones."
        )
    if shipped.target not in ("any", "cpu"):
        found.append(
            f"{shipped.name} is made for {shipped.target}; elsewhere another variant runs, or `edgetl tune` chooses."
        )
    found += [
        f"{origin.network}: its first weights are under {origin.licence}, which forbids commercial use."
        for origin in manifest.provenance.weights
        if origin.restricted
    ]
    if report is not None:
        if not report.measure.floor_met:
            found.append(
                "No variant kept the accuracy floor of its run: this one is not fit to ship by its own recipe."
            )
        if report.data.near_copies:
            found.append(
                f"{units.counted(report.data.near_copies, 'image')} of validation and test have a near-copy in another"
                " split, which flatters the scores."
            )
        found += report.warnings
    return [_list(found)]


def _unknown(shipped: Variant, thing: str) -> str:
    if shipped.unknown is None:
        return f"It does not tell {thing}s of something else: it answers them with what it knows."
    return (
        f"It tells {thing}s of something else by {shipped.unknown.score}, where a rate of false alarms is asked for"
        " (`--unknown`), and not all of them."
    )


def _figures(manifest: Manifest, shipped: Variant, report: RunReport | None) -> list[str]:
    metrics = task_of(manifest.task).metrics
    splits = [
        (split, own)
        for split, own in (("validation", shipped.val), ("test", shipped.test))
        if own is not None
    ]
    if not splits:
        return ["Nothing was measured."]
    heads = ["metric"]
    columns: list[Scores] = []
    teacher = (None, None) if report is None else (report.measure.teacher_val, report.measure.teacher_test)
    for (split, own), taught in zip(splits, teacher, strict=False):
        heads.append(f"{split}, {units.counted(own.images, 'image')}")
        columns.append(own)
        if taught is not None:
            heads.append(f"the teacher on {split}")
            columns.append(taught)
    rows = [
        (metric.title, *(_score(one.scores.get(metric.name), metric.unit == "share") for one in columns))
        for metric in metrics
        if any(metric.name in one.scores for one in columns)
    ]
    return [f"Of {shipped.name}, which ships, with 95% intervals.", _table(tuple(heads), rows)]


def _score(score: Score | None, share: bool) -> str:
    if score is None:
        return ""
    if not share:
        return units.significant(score.value)
    return units.percent(score.value) + (f" ({units.interval(score.interval)})" if score.interval else "")


def _latency(manifest: Manifest) -> list[str]:
    metric = task_of(manifest.task).metrics[0]
    heads = ("variant", "precision", "target", "size", f"validation {metric.title}", "p50", "p99", "threads")
    rows = []
    for variant in manifest.variants:
        name = f"**{_plain(variant.name)}**" if variant.name == manifest.default else _plain(variant.name)
        score = variant.val.scores.get(metric.name) if variant.val else None
        rows.append(
            (
                name,
                variant.precision.value,
                variant.target,
                units.bytes_(variant.size_bytes),
                "" if score is None else units.percent(score.value),
                *_times(variant.latency),
            )
        )
    machines = dict.fromkeys(_machine(v.machine) for v in manifest.variants if v.latency and v.machine)
    thing, where = _thing(manifest), "; ".join(machines)
    where = f"One {thing} at a time, the model alone, on {where}. Elsewhere it takes another time."
    return [where if machines else "No latency was measured.", _table(heads, rows, escaped=1)]


def _times(latency: Latency | None) -> tuple[str, str, str]:
    if latency is None:
        return "", "", ""
    return units.milliseconds(latency.p50_ms), units.milliseconds(latency.p99_ms), str(latency.threads)


def _machine(machine: Machine) -> str:
    return f"{machine.fingerprint}, {units.memory(machine.memory_bytes)}"


def _data(bundle: Bundle, report: RunReport | None) -> list[str]:
    made = bundle.manifest.provenance
    parts = []
    learned = lineage_words(made.lineage)
    if learned:
        parts.append(f"What the teacher learned, in order: {_plain(learned)}.")
    if report is not None:
        counts = report.data.counts
        heads = ("class", *(_SPLITS[split] for split in _SPLITS))
        rows = [
            (label, *(units.count(counts[split].get(label, 0)) for split in _SPLITS))
            for label in report.data.labels
        ]
        what = "Boxes by class" if isinstance(report.task, Detection) else "Images by class"
        sizes = ", ".join(
            f"{units.count(report.data.images(split))} {name}" for split, name in _SPLITS.items()
        )
        parts += [f"Images: {sizes}. {what}:", _table(heads, rows)]
        if report.data.skipped:
            parts.append(
                f"{units.counted(len(report.data.skipped), 'image')} could not be read and were left out."
            )
    elif (known := bundle.splits()) is not None:
        sizes = ", ".join(f"{units.count(known.count(split))} {name}" for split, name in _SPLITS.items())
        parts.append(f"Different images: {sizes}.")
    if made.data_sha256:
        parts.append(f"SHA-256 of the index of all images, labels and splits: `{made.data_sha256}`.")
    return parts or ["The bundle does not say."]


def _licences(manifest: Manifest, packages: Sequence[LicensedPackage]) -> list[str]:
    origins = manifest.provenance.weights
    weights = (
        _table(
            ("weights of", "from", "licence", "as stated by"),
            [(o.network, o.source, o.licence or "not stated", o.stated_by or "nobody") for o in origins],
        )
        if origins
        else "The bundle does not say where its first weights come from."
    )
    return [
        weights,
        "The images' licence is not known to edgetl: add it here.",
        "Packages that a device needs, as installed where this was written:",
        _table(
            ("package", "version", "licence"),
            [(p.name, p.version, p.licence or "not stated") for p in packages],
        ),
    ]


def _provenance(bundle: Bundle, shipped: Variant) -> list[str]:
    made = bundle.manifest.provenance
    versions = ", ".join(f"{name} {version}" for name, version in made.packages.items())
    rows = [
        ("made by", made.created_by),
        ("made with", versions),
        ("commit", made.git_commit),
        ("seed", str(made.seed)),
        ("SHA-256 of the bundle", bundle.sha256()),
        (f"SHA-256 of {shipped.name}", shipped.sha256),
        ("SHA-256 of the recipe", made.recipe_sha256),
        ("SHA-256 of the calibration", made.calibration_sha256),
        ("bundle schema", str(bundle.manifest.schema_version)),
    ]
    return [_table(("", ""), [row for row in rows if row[1]])]


# --- Markdown ----------------------------------------------------------------------------------------


def _plain(text: str) -> str:
    """Text of one line that Markdown takes for nothing else."""
    line = " ".join(text.split())
    return _MARKS.sub(r"\\\1", line)


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]], *, escaped: int = 0) -> str:
    """A table; the first `escaped` cells of a row are Markdown already."""
    lines = [_row(heads), "|" + "---|" * len(heads)]
    lines += [_row((*cells[:escaped], *map(_plain, cells[escaped:]))) for cells in rows]
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _list(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {' '.join(sentence.split())}" for sentence in dict.fromkeys(sentences))
