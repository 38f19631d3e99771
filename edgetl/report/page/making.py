"""The page's parts about how it came to be: training, pruning, deployment files, data, machine, recipe."""

from __future__ import annotations

from edgetl.data.walk import counted
from edgetl.records.adapt import NO_METHOD
from edgetl.records.prune import PruneStep
from edgetl.records.scores import value
from edgetl.records.train import NetworkSize
from edgetl.report import units
from edgetl.report.page import widths
from edgetl.report.page.curves import (
    LOSSES,
    all_epochs,
    phase_group,
    pruning_steps,
    score_lines,
    training_curves,
)
from edgetl.report.page.markup import (
    HALF,
    Column,
    Markup,
    Row,
    columns,
    definitions,
    disclosure,
    figure,
    legend,
    meter,
    sentence,
    table,
    tag,
)
from edgetl.report.page.pruning import sensitivity
from edgetl.report.page.quantization import quantized
from edgetl.report.run import RunReport, ratio
from edgetl.tasks.all import task_of
from edgetl.tasks.base import Classification, Detection

_SKIPPED_SHOWN = 50
_CLASSES_OPEN = 30


def training(report: RunReport) -> Markup:
    """Loss and scores over every epoch of the run."""
    epochs = all_epochs(report.teacher, report.prune, report.student)
    if not epochs:
        return Markup("")
    pruned = report.prune.epochs if report.prune else ()
    sparse = sum(phase_group(e.phase) == "sparse training" for e in pruned)
    recovery = len(pruned) - sparse
    cuts = f"{recovery} of recovery after cuts"
    further = report.student.unlabelled
    beside = (
        f", with {units.counted(further, 'unlabelled image')} in addition to the labelled ones"
        if further
        else ""
    )
    lead = (
        f"{units.counted(len(epochs), 'epoch')}: {len(report.teacher.epochs)} of the teacher, "
        f"{f'{sparse} of sparse training, {cuts}' if sparse else cuts}, "
        f"{len(report.student.epochs)} of distillation{beside}. "
        "Losses of different phases are of different kinds; compare them within a band."
    )
    loss = tag(
        "div",
        tag("h3", "Loss"),
        legend([(line.name, line.css, "line") for line in LOSSES]),
        figure(lambda width: training_curves(epochs, LOSSES, "Loss", False, width), wide=HALF),
    )
    lines = score_lines(task_of(report.task).metrics)
    score = tag(
        "div",
        tag("h3", "Validation scores"),
        legend([(line.name, line.css, "line") for line in lines]),
        figure(lambda width: training_curves(epochs, lines, "Validation score", True, width), wide=HALF),
    )
    return Markup(tag("p", lead, css="lead") + columns(loss, score) + _networks(report))


def _networks(report: RunReport) -> Markup:
    adapted = report.adapt is not None and report.adapt.method != NO_METHOD
    first, *others = task_of(report.task).metrics[:2]
    heads = (
        Column(header="Network"),
        Column(header="Backbone"),
        Column(header="MACs", number=True, hint="multiply-accumulates for one image"),
        Column(header="Parameters", number=True),
        Column(header="Checkpoint", number=True),
        Column(header=f"Val {first.title}", number=True),
        Column(header=f"Test {first.title}", number=True),
        *(Column(header=f"Val {m.title}", number=True) for m in others),
        Column(header="Time", number=True),
    )
    rows = [
        Row(
            cells=(
                name,
                record.backbone,
                units.count(record.size.macs),
                units.count(record.size.parameters),
                units.bytes_(record.size.size_bytes),
                units.percent(value(record.val, first.name)),
                units.percent(value(record.test, first.name)) if record.test else "–",
                *(units.percent(value(record.val, m.name)) for m in others),
                units.duration(record.seconds),
            )
        )
        for name, record in (
            ("Teacher", report.teacher),
            *([("Teacher, adapted", report.followed)] if adapted else []),
            ("Student", report.student),
        )
    ]
    return table(heads, rows, "Teacher and student in float32")


def pruning(report: RunReport) -> Markup:
    """What each cut cost and what recovery gave back."""
    prune = report.prune
    if prune is None:
        return Markup("")
    if prune.note:
        return tag("p", sentence(prune.note), css="lead")
    before, after, measured = prune.before, prune.after, prune.latency
    title, begun = units.metric(prune.metric), value(report.followed.val, prune.metric)
    cuts = [step for step in prune.steps if step.step > 0]
    kept = sum(step.kept for step in cuts)
    lead = (
        f"Channels were removed in {units.counted(kept, 'step')}: "
        f"{units.count(before.macs)} to {units.count(after.macs)} multiply-accumulates "
        f"({units.percent(ratio(after.macs, before.macs), 0)} left), "
        f"{units.count(before.parameters)} to {units.count(after.parameters)} parameters."
    )
    if prune.network:
        lead = f"{prune.network} was taught by the teacher, then cut. {lead}"
    if kept < len(cuts):
        lead += " The last cut cost too much and was taken back."
    if (once := prune.one_shot) is not None and kept:
        lead += (
            f" One cut to {units.percent(ratio(once.macs, before.macs), 0)} leaves {title}"
            f" {units.percent(once.cut)}; the steps end at {units.percent(cuts[kept - 1].score)}."
        )
    if (sparse := prune.sparse) is not None:
        lead += (
            f" Sparse training before the first cut brought {units.percent(sparse.near_zero)} of the channels near"
            f" zero ({units.percent(sparse.near_zero_before)} before)."
        )
    if prune.two_four:
        lead += f" 2:4 sparsity: {units.two_four(prune.two_four, prune.metric)}."
    chance = 1 / len(report.task.labels) if isinstance(report.task, Classification) else None
    marks = [
        ("teacher", "st", "diamond"),
        ("after recovery", "c-val", "line"),
        ("right after the cut", "c-cut", "hollow"),
    ]
    if prune.one_shot is not None:
        marks.append(("one cut to the target", "c-once", "diamond"))
    if report.student.epochs:
        marks.append(("after distillation", "c-f1", "dot"))
    chart = figure(
        lambda width: pruning_steps(prune, report.followed, report.student, chance, width), wide=HALF
    )
    heads = (
        Column(header="Step", number=True),
        Column(header="MACs", number=True, hint="multiply-accumulates for one image"),
        Column(
            header="left",
            number=True,
            hint=f"of the {'uncut' if prune.network else 'teacher'}'s multiply-accumulates",
        ),
        # the table has half the page
        Column(header="ms", number=True, hint="measured in the runtime")
        if measured
        else Column(header="Params", number=True, hint="parameters"),
        Column(header="After cut", number=True, hint=f"validation {title} before any recovery"),
        Column(header="Recovered", number=True, hint=f"validation {title} after recovery"),
        Column(header="Points", number=True, hint=f"{title} less the teacher's, in percentage points"),
    )

    def row(
        name: str,
        size: NetworkSize | PruneStep,
        ms: float | None,
        cut: float | None,
        end: float | None,
        css: str = "",
    ) -> Row:
        cells = (
            name,
            units.count(size.macs),
            units.percent(ratio(size.macs, before.macs)),
            (units.significant(ms) if ms else "") if measured else units.count(size.parameters),
            units.percent(cut) if cut is not None else "",
            units.percent(end) if end is not None else "",
            f"{100 * (end if end is not None else cut or 0.0) - 100 * begun:+.1f}",
        )
        return Row(cells=cells, css=css)

    steps = [
        row(units.step(s.step, s.kept, prune.network), s, s.measured_ms, s.cut, s.score) for s in prune.steps
    ]
    learned = len(steps) - len(cuts)
    first = f"teacher's {title}" if prune.network else "teacher"
    rows = [
        row(first, before, measured.measured_before_ms if measured else None, None, begun),
        *steps[:learned],
    ]
    if sparse is not None:
        rows.append(row("sparse", before, None, None, sparse.score))
    rows += steps[learned:]
    if once is not None:
        rows.append(row("one cut", once, once.measured_ms, once.cut, None))
    if report.student.epochs:
        rows.append(
            row(
                "distilled", report.student.size, None, None, value(report.student.val, prune.metric), "total"
            )
        )
    left = tag("div", legend(marks), chart)
    return Markup(
        tag("p", lead, css="lead")
        + columns(left, table(heads, rows, "Pruning step by step"))
        + (tag("p", f"Taken out whole: {units.blocks(prune.blocks)}.") if prune.blocks else "")
        + (widths.chosen(measured) if measured else "")
        + sensitivity(prune.sensitivity, prune.metric)
    )


def deployment(report: RunReport) -> Markup:
    """The exported and the quantized file: checks and calibration."""
    export, quantize = report.export, report.quantize
    exported = definitions(
        [
            ("File", export.onnx),
            ("Size", units.bytes_(export.size_bytes)),
            ("ONNX operator set", str(export.opset)),
            ("Largest difference from torch", f"{export.max_difference:.2g} on {export.images} images"),
            ("Same answer as torch", units.percent(export.same)),
            ("SHA-256", tag("code", export.sha256)),
        ]
    )
    parts = tag("div", tag("h3", "ONNX export, float32"), exported)
    return Markup(
        parts + (quantized(quantize, adapted=report.adapt is not None) if quantize is not None else "")
    )


def data(report: RunReport) -> Markup:
    """Images a split and class, and what was skipped."""
    counts, labels = report.data.counts, report.data.labels
    splits = [
        *(s for s in ("train", "val", "test") if s in counts),
        *sorted(set(counts) - {"train", "val", "test"}),
    ]
    totals = {split: report.data.images(split) for split in splits}
    whole = sum(totals.values())
    listed = ", ".join(f"{units.count(totals[s])} {s}" for s in splits)
    found = f"{units.counted(whole, 'image')} of {units.counted(len(labels), 'class')}"
    lead = f"{found}: {listed}. {_imbalance(report)}"
    heads = (
        Column(header="Class"),
        *(Column(header=s, number=True) for s in splits),
        Column(header="total", number=True),
        Column(header="share"),
    )
    sums = {label: sum(counts[s].get(label, 0) for s in splits) for label in labels}
    what, last = "Images", "All"
    if isinstance(report.task, Detection):  # A picture's boxes are counted, and lie in many classes.
        what, last = "Boxes", "All boxes"
        totals = {split: sum(counts[split].values()) for split in splits}
        whole = sum(totals.values())
    most = max(sums.values(), default=0)
    rows = [
        Row(
            cells=(
                label,
                *(units.count(counts[s].get(label, 0)) for s in splits),
                units.count(sums[label]),
                meter(ratio(sums[label], most)),
            )
        )
        for label in sorted(labels, key=lambda label: (-sums[label], label))
    ]
    total = Row(cells=(last, *(units.count(totals[s]) for s in splits), units.count(whole), ""), css="total")
    if len(rows) > _CLASSES_OPEN:
        shown = table(heads, [total], f"{what} a split")
        shown = Markup(
            shown + disclosure(f"All {len(rows)} classes", table(heads, rows, "Images per class and split"))
        )
    else:
        shown = table(heads, [*rows, total], "Images per class and split")
    return Markup(
        tag("p", lead.strip(), css="lead") + shown + _near_copies(report) + _skipped(report) + _others(report)
    )


def _imbalance(report: RunReport) -> str:
    train = [n for n in report.data.counts.get("train", {}).values() if n]
    if not train or min(train) == max(train):
        return ""
    what = "boxes" if isinstance(report.task, Detection) else "images"
    return (
        f"The largest class has {units.times(max(train) / min(train))} the training {what} of the smallest."
    )


def _near_copies(report: RunReport) -> Markup:
    near = report.data.near_copies
    if near is None:
        return Markup("")
    if not near:
        return tag("p", "No image of val or test has a near-copy in another split.", css="lead")
    scored = report.data.images("val", "test")
    return tag(
        "p",
        f"{units.count(near)} of {units.counted(scored, 'image')} of val and test have a near-copy in another split; "
        "edgetl data check names them. If they show the same thing, the scores flatter.",
        css="lead",
    )


def _skipped(report: RunReport) -> Markup:
    skipped = report.data.skipped
    if not skipped:
        return tag("p", "No image was skipped.", css="lead")
    heads = (Column(header="File"), Column(header="Reason"))
    rows = [Row(cells=(path, reason)) for path, reason in skipped[:_SKIPPED_SHOWN]]
    title = f"{units.counted(len(skipped), 'image')} skipped"
    if len(skipped) > _SKIPPED_SHOWN:
        title += f", the first {_SKIPPED_SHOWN} listed"
    return disclosure(title, table(heads, rows, "Skipped images"))


def _others(report: RunReport) -> Markup:
    others = report.data.others
    return tag("p", f"Besides the images: {counted(others)}.", css="lead") if others else Markup("")


def provenance(report: RunReport) -> Markup:
    """The machine, where everything came from, and where the time went."""
    machine = report.measure.machine
    facts = definitions(
        [
            ("CPU", f"{machine.cpu}, {machine.cores} cores"),
            ("Memory", units.memory(machine.memory_bytes)),
            ("GPU", machine.gpu),
            ("System", machine.system),
            ("Python", machine.python),
            ("CPU governor", machine.governor),
            ("Data SHA-256", tag("code", report.data.sha256)),
            ("Bundle", report.bundle.path),
            ("Bundle SHA-256", tag("code", report.bundle.sha256)),
            *report.provenance.items(),
        ]
    )
    return columns(facts, _stages(report))


def _stages(report: RunReport) -> Markup:
    if not report.stage_seconds:
        return Markup("")
    whole = sum(report.stage_seconds.values())
    heads = (Column(header="Stage"), Column(header="Time", number=True), Column(header="share"))
    most = max(report.stage_seconds.values())
    rows = [
        Row(cells=(stage, units.duration(seconds), meter(ratio(seconds, most))))
        for stage, seconds in report.stage_seconds.items()
    ]
    rows.append(Row(cells=("All", units.duration(whole), ""), css="total"))
    return tag("div", tag("h3", "Time by stage"), table(heads, rows, "Time by stage"))


def recipe(report: RunReport) -> Markup:
    """The recipe with every default explicit, folded."""
    if not report.recipe:
        return Markup("")
    return disclosure(
        "The recipe with every default made explicit", tag("pre", tag("code", report.recipe), tabindex="0")
    )
