"""An image set's audit and the records of single stages as tables in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edgetl.data.walk import counted
from edgetl.inputs.spec import InputKind
from edgetl.records.adapt import AdaptRecord
from edgetl.records.captured import AddedRecord
from edgetl.records.lineage import lineage_words
from edgetl.records.parity import ParityRecord, ParityStep
from edgetl.records.prune import PruneRecord, PruneSensitivity
from edgetl.records.scores import Evaluation, value
from edgetl.records.train import DataRecord, EpochRecord, FoldsRecord, TrainRecord, notes_of
from edgetl.records.variants import (
    ExportRecord,
    MeasureRecord,
    QuantizeRecord,
    RknnRecord,
    ServeRecord,
    SpectrogramParity,
)
from edgetl.report import units
from edgetl.report.extension import figures
from edgetl.report.page import widths
from edgetl.report.run import quantized_cells, ratio
from edgetl.report.terminal import unknown
from edgetl.report.terminal.confidence import confidence
from edgetl.report.terminal.run import floor_word, metric_name, variants
from edgetl.report.terminal.tables import HeaderCell, TableLine, Tone, numbers, pairs, say, table, text
from edgetl.shell import command

if TYPE_CHECKING:
    from rich.console import Console

    from edgetl.data.audit import AuditReport

StageRecord = (
    DataRecord | TrainRecord | AdaptRecord | PruneRecord | ExportRecord | QuantizeRecord | MeasureRecord
)

_CLASSES_SHOWN = 30
_LISTED = 10


def stage(console: Console, record: StageRecord) -> None:
    """One stage's record."""
    match record:
        case DataRecord():
            _data(console, record)
        case TrainRecord():
            _train(console, record)
        case AdaptRecord():
            _adapt(console, record)
        case PruneRecord():
            _prune(console, record)
        case ExportRecord():
            _export(console, record)
        case QuantizeRecord():
            _quantize(console, record)
        case MeasureRecord():
            variants(console, record)
            confidence(console, record)
            unknown.chosen(console, record)
            floor = (
                f"{metric_name(record)} {units.percent(record.floor)} {floor_word(record)}: {record.reason}"
            )
            pairs(
                console,
                [("ships", record.default), ("floor", floor), ("machine", record.machine.fingerprint)],
            )


def folds(console: Console, record: FoldsRecord) -> None:
    """Cross-validation: each fold's scores, then mean and deviation."""
    scored = record.folds[0].scores.items()
    names = [name for name, found in scored if found.interval is not None and name in record.spreads]
    spreads = [record.spreads[name] for name in names]
    lines = [
        TableLine(cells=(f"{n}", f"{e.images}", *(units.percent(value(e, name)) for name in names)))
        for n, e in enumerate(record.folds, start=1)
    ]
    lines.append(TableLine(cells=("mean", "", *(units.percent(one.mean) for one in spreads)), tone="strong"))
    lines.append(TableLine(cells=("deviation", "", *(units.percent(one.deviation) for one in spreads))))
    heads = (*text("fold"), *numbers("images", *map(units.metric, names)))
    table(console, heads, lines, "Cross-validation")


def audit(console: Console, report: AuditReport) -> None:
    """What is wrong with a set of images or recordings, and what to do."""
    splits = [s for s in ("train", "val", "test") if any(report.counts.get(s, {}).values())]
    lines = _classes(report.counts, splits)
    if (boxes := report.boxes) is None:
        lines.append(_counts_line("all", [report.sizes[s] for s in splits], "strong"))
    else:
        lines.append(_counts_line("all", [sum(report.counts[s].values()) for s in splits], "strong"))
        lines.append(_counts_line("images", [boxes.images[s] for s in splits]))
        lines.append(_counts_line("images without boxes", [boxes.empty[s] for s in splits]))
    table(console, (*text("class" if boxes is None else "boxes of"), *numbers(*splits, "total")), lines)
    _beside_images(console, report.others)
    _listing(
        console, f"Unreadable {report.kind.plural}", [f"{path}: {reason}" for path, reason in report.skipped]
    )
    _listing(console, "The same file in more than one split", [" = ".join(group) for group in report.leaks])
    alike = [f"{n.first} ~ {n.second}" for n in report.near_duplicates]
    _listing(console, "Near-copies across splits", alike)
    conflicts = "The same file under more than one label"
    if report.boxes is not None:
        conflicts = "The same file with other boxes"
        for title, places in report.boxes.places():
            _listing(console, title, places)
    _listing(console, conflicts, [" = ".join(group) for group in report.conflicts])
    sizes = [f"{odd.path}: {odd.width}x{odd.height}" for odd in report.odd_sizes]
    _listing(console, "Images of an odd size", sizes)
    problems = report.problems()
    for problem in problems:
        say(console, f"- {problem}", "bad")
    if not problems:
        what = f"{units.count(report.images)} {report.kind.named(report.images)}"
        say(console, f"{what}: nothing wrong was found.", "good")


def _data(console: Console, record: DataRecord) -> None:
    splits = [s for s in ("train", "val", "test") if s in record.counts]
    lines = _classes(record.counts, splits)
    lines.append(_counts_line("all", [record.images(s) for s in splits], "strong"))
    table(console, (*text("class"), *numbers(*splits, "total")), lines)
    _beside_images(console, record.others)
    _listing(console, "Skipped files", [f"{path}: {reason}" for path, reason in record.skipped])


def _adapt(console: Console, record: AdaptRecord) -> None:
    lines = []
    for one in record.tries:
        tone: Tone = "strong" if one.method == record.method else "plain"
        figures = ("", "", "")
        if one.val is not None and one.density is not None:
            weighted = "" if one.weighted is None else units.percent(one.weighted)
            figures = (units.percent(one.val), weighted, f"{one.density:.3f}")
        judged = () if not record.labelled else ("" if one.target is None else units.percent(one.target),)
        lines.append(TableLine(cells=(one.method, *figures, *judged), tone=tone))
    heads = [f"{units.metric(record.metric)}, validation", units.without_labels(record), "density"]
    heads += ["top-1, labelled target"] if record.labelled else []
    table(console, (*text("method"), *numbers(*heads)), lines)
    _listing(console, "Notes", [f"{one.method}: {one.note}" for one in record.tries if one.note])
    pairs(
        console,
        [
            ("chosen", record.method),
            ("why", record.reason),
            ("target", units.counted(record.images, "image")),
            (
                "camera explains",
                "" if record.explained is None else units.percent(max(0.0, record.explained)),
            ),
            ("validation", _score_line(record.val)),
            ("test", _score_line(record.test) if record.test else ""),
            ("time", units.duration(record.seconds)),
            ("checkpoint", record.checkpoint),
        ],
    )


def _classes(counts: Mapping[str, Mapping[str, int]], splits: Sequence[str]) -> list[TableLine]:
    """One line per class, by name; of many classes those with the fewest images, and the others in one line."""
    labels = sorted({label for split in counts.values() for label in split})
    by_class = {label: [counts[s].get(label, 0) for s in splits] for label in labels}
    shown = labels
    if len(labels) > _CLASSES_SHOWN:
        shown = sorted(labels, key=lambda label: (sum(by_class[label]), label))[:_CLASSES_SHOWN]
    lines = [_counts_line(label, by_class.pop(label)) for label in shown]
    if by_class:
        sums = [sum(column) for column in zip(*by_class.values(), strict=True)]
        lines.append(_counts_line(f"{len(by_class)} larger classes", sums))
    return lines


def _beside_images(console: Console, others: Mapping[str, int]) -> None:
    if others:
        pairs(console, [("not read", counted(others))])


def _train(console: Console, record: TrainRecord) -> None:
    pairs(
        console,
        [
            ("backbone", record.backbone),
            ("multiply-accumulates", units.count(record.size.macs)),
            ("parameters", units.count(record.size.parameters)),
            ("validation", _score_line(record.val)),
            ("test", _score_line(record.test) if record.test else ""),
            ("taught by", _beside(record.unlabelled) if record.unlabelled else ""),
            ("learned before", lineage_words(record.lineage[:-1])),
            ("pretraining", record.start.note if record.start else ""),
            ("episodes", record.episodes.note if record.episodes else ""),
            *(figures(record.kept) if record.kept else ()),
            ("nearest means", record.nearest.note if record.nearest else ""),
            ("time", units.duration(record.seconds)),
            ("checkpoint", record.checkpoint),
        ],
    )
    _epochs(console, record.epochs)
    _listing(console, "Notes", notes_of(record.epochs))


def _beside(unlabelled: int) -> str:
    return f"{units.counted(unlabelled, 'unlabelled image')} in addition to the labelled ones"


def _epochs(console: Console, epochs: Sequence[EpochRecord]) -> None:
    if not epochs:
        return
    names = list(epochs[0].val.scores)[:2]
    lines = [
        TableLine(
            cells=(
                e.phase,
                str(e.epoch),
                f"{e.loss:.3f}",
                f"{e.val_loss:.3f}",
                *(units.percent(value(e.val, name)) for name in names),
                units.significant(e.images_per_second),
            )
        )
        for e in epochs
    ]
    titles = (f"val {units.metric(name)}" for name in names)
    heads = numbers("epoch", "loss", "val loss", *titles, "images/s")
    table(console, (*text("phase"), *heads), lines)


def _prune(console: Console, record: PruneRecord) -> None:
    if record.note:
        say(console, record.note, "strong")
    whole, measured, title = record.before.macs, record.latency, units.metric(record.metric)
    lines = [
        TableLine(
            cells=(
                units.step(s.step, s.kept, record.network),
                units.count(s.macs),
                units.percent(ratio(s.macs, whole)),
                units.count(s.parameters),
                units.percent(s.cut),
                units.percent(s.score),
                *((_ms(s.predicted_ms), _ms(s.measured_ms)) if measured else ()),
            )
        )
        for s in record.steps
    ]
    if (once := record.one_shot) is not None:
        figures = (
            units.count(once.macs),
            units.percent(ratio(once.macs, whole)),
            units.count(once.parameters),
        )
        times = (_ms(once.predicted_ms), _ms(once.measured_ms)) if measured else ()
        lines.append(TableLine(cells=("one cut", *figures, units.percent(once.cut), "–", *times)))
    timed = ("predicted\nms", "measured\nms") if measured else ()
    left = "of the uncut" if record.network else "of the teacher"
    heads = numbers("step", "MACs", left, "parameters", f"{title} after the cut", "recovered", *timed)
    table(console, heads, lines)
    if (sparse := record.sparse) is not None:
        before, after = units.percent(sparse.near_zero_before), units.percent(sparse.near_zero)
        found = f"{after} of the channels near zero ({before} before), {title} {units.percent(sparse.score)}"
        pairs(console, [("sparse training", found)])
    if record.sensitivity is not None:
        _sensitivity(console, record.sensitivity, title)
    if measured:
        heads = (*text("channels of"), *numbers("before and after", "ms before", "ms after"))
        table(
            console,
            heads,
            [TableLine(cells=tuple(row)) for row in widths.lines(measured)],
            "Widths for the target",
        )
    pairs(
        console,
        [
            ("taken out whole", units.blocks(record.blocks)),
            ("latency", widths.summary(measured) if measured else ""),
            ("latency table", widths.origin(measured) if measured else ""),
            ("2:4 sparsity", units.two_four(record.two_four, record.metric) if record.two_four else ""),
            ("time", units.duration(record.seconds)),
            ("checkpoint", record.checkpoint),
        ],
    )
    _listing(console, "Notes", notes_of(record.epochs))


def _ms(value: float | None) -> str:
    return "" if value is None else units.significant(value)


def _sensitivity(console: Console, record: PruneSensitivity, title: str) -> None:
    shares = [units.percent(share, 0) for share in record.shares]
    lines = [
        TableLine(
            cells=(
                g.name,
                str(g.channels),
                *(
                    "n/a"
                    if cut is None
                    else f"{units.percent(cut.score)} ({100 * (cut.score - record.score):+.1f})"
                    for cut in g.cuts
                ),
            )
        )
        for g in record.groups
    ]
    heads = numbers("channels", *(f"{title} without {share}" for share in shares))
    table(console, (*text("group cut by itself"), *heads), lines)
    pairs(console, [(f"{title} uncut", units.percent(record.score))])


def _export(console: Console, record: ExportRecord) -> None:
    agreed = f"same answer on {units.percent(record.same)} of {units.counted(record.images, 'image')}"
    pairs(
        console,
        [
            ("file", record.onnx),
            ("size", units.bytes_(record.size_bytes)),
            ("opset", str(record.opset)),
            ("against torch", f"largest difference {record.max_difference:.2g}, {agreed}"),
        ],
    )


def _quantize(console: Console, record: QuantizeRecord) -> None:
    lines = [TableLine(cells=quantized_cells(v)) for v in record.variants]
    heads = numbers(
        "variant", "size", "recovery", f"val {units.metric(record.metric)}", "in INT8", "in float"
    )
    table(console, heads, lines)
    pairs(
        console,
        [
            ("range estimator", f"{record.method} on {units.counted(record.calibration_images, 'image')}"),
            ("in float", f"{units.percent(record.float_score)}, floor {units.percent(record.floor)}"),
            ("time", units.duration(record.seconds)),
        ],
    )
    for v in record.variants:
        _listing(console, f"{v.name}: left in float", v.left_in_float)
    _listing(console, "Notes", record.notes)


def _counts_line(name: str, counts: Sequence[int], tone: Tone = "plain") -> TableLine:
    return TableLine(cells=(name, *(units.count(n) for n in counts), units.count(sum(counts))), tone=tone)


def _listing(console: Console, title: str, entries: Sequence[str]) -> None:
    if not entries:
        return
    say(console, title, "strong")
    for entry in entries[:_LISTED]:
        say(console, f"  {entry}")
    if len(entries) > _LISTED:
        say(console, f"  and {len(entries) - _LISTED} more; --json lists all", "faint")
    console.print()


def _score_line(scores: Evaluation) -> str:
    figures = [
        f"{units.metric(name)} {units.percent(found.value)} ({units.interval(found.interval)})"
        for name, found in scores.scores.items()
        if found.interval is not None
    ]
    return f"{', '.join(figures[:2])}, {units.counted(scores.images, 'image')}"


def parity(console: Console, record: ParityRecord) -> None:
    """The parity report: one line per step, then the outcome, then what was not run and why."""
    heads = (
        HeaderCell(text="step", keep=True),
        *text("against"),
        *numbers(
            "largest\nerror",
            "mean\nerror",
            "same\nanswer",
            units.metric(record.metric),
            "95% interval",
            "change",
        ),
        *text("bound"),
    )
    ran = [checked for checked in record.steps if not checked.skipped]
    table(console, heads, [_parity_step(checked) for checked in ran])
    say(console, record.sentence, "bad" if record.first_outside else "good")
    for checked in record.steps:
        if checked.skipped:
            say(console, f"{checked.name} was not run: {checked.skipped}", "faint")


def _parity_step(checked: ParityStep) -> TableLine:
    word = {True: "holds", False: "broken", None: ""}[checked.holds]
    tone: Tone = "bad" if checked.holds is False else "plain"
    first = not checked.against
    return TableLine(
        cells=(
            checked.name,
            checked.against,
            "" if first else _error(checked.max_error),
            "" if first else _error(checked.mean_error),
            "" if checked.same is None else units.percent(checked.same),
            "" if checked.score is None else units.percent(checked.score),
            "" if checked.interval is None else units.interval(checked.interval),
            "" if checked.change is None else units.points(100 * checked.change),
            word,
        ),
        tone=tone,
    )


def _error(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.1e}"


def rknn(console: Console, record: RknnRecord) -> None:
    """A model that the vendor's toolkit made for an NPU."""
    pairs(
        console,
        [
            ("written to", record.path),
            ("model", f"{units.bytes_(record.size_bytes)}, {record.precision} for {record.platform}"),
            ("before it", _spread(record.window)),
            ("made by", f"{record.toolkit}, ranges by {record.calibrated} images"),
            ("same answer", f"{units.percent(record.same)} of {record.compared} images, simulated"),
            ("error", f"{_error(record.mean_error)} in the mean, {_error(record.max_error)} at most"),
        ],
    )
    console.print(record.sentence)


def serve(console: Console, record: ServeRecord) -> None:
    """A model that was written for another runtime."""
    pairs(
        console,
        [
            ("variant", record.variant),
            ("written to", record.path),
            ("files", ", ".join(record.files)),
            ("model", units.bytes_(record.size_bytes)),
            ("before it", _spread(record.window) or _heard(record.spectrogram)),
            ("its picture", _alike(record.spectrogram)),
        ],
    )


def _spread(window: tuple[float, float] | None) -> str:
    if window is None:
        return ""
    return f"numbers beyond 8 bits: spread {window[0]:g} to {window[1]:g} over 0 to 255, rounded and clipped"


def _heard(made: SpectrogramParity | None) -> str:
    if made is None:
        return ""
    return (
        f"one channel of {made.rate:,} samples per second, about -1 to 1; of it a window of {made.samples:,}"
    )


def _alike(made: SpectrogramParity | None) -> str:
    if made is None:
        return ""
    return (
        f"at most {made.steps} of 255 from numpy's (allowed {made.limit}) on {made.recordings} golden recordings;"
        f" {made.same:.0%} of the answers are the same"
    )


def added(console: Console, record: AddedRecord) -> None:
    """What became of captured images, and what to do next."""
    kind = InputKind(record.kind)
    left_out = [
        (len(record.unreadable), "cannot be read"),
        (len(record.copies), "are copies of others"),
        (len(record.near), "look like an image of the data set"),
        (record.unlabelled, "have no class yet"),
    ]
    pairs(
        console,
        [
            (kind.plural, units.count(record.images)),
            ("added", units.count(record.added)),
            ("left out", "; ".join(f"{units.count(count)} {why}" for count, why in left_out if count)),
            ("classes", ", ".join(f"{name} {units.count(count)}" for name, count in record.classes.items())),
            ("new classes", ", ".join(record.new_classes)),
            ("rows before", units.count(record.before) if record.before else ""),
            ("broken lines", units.count(record.torn) if record.torn else ""),
        ],
        title=record.folder,
    )
    for name, reason in record.unreadable[:_LISTED]:
        say(console, f"{name}: {reason}" if name not in reason else reason, "bad")
    if record.classes:
        say(console, f"Wrote {record.out}: name it as data.source in a recipe.", "good")
    else:
        unlabelled = "name it as distill.unlabelled in a recipe; or " if kind is InputKind.IMAGE else ""
        say(
            console,
            f"Wrote {record.out}: {unlabelled}fill in the column label of {record.out}/labels.csv and run: "
            + command(
                "data", "add", record.out, "--labels", f"{record.out}/labels.csv", "-o", "labelled.csv"
            ),
            "good",
        )
