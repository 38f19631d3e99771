"""The device side's records as tables in the terminal. Every function prints to the rich console that it is given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, assert_never

from edgetl.records.bench import BenchRecord
from edgetl.records.gate import BoxTurn, BoxTurns, Flips, GateCheck, GateReport, Verdict
from edgetl.records.measured import Latency
from edgetl.records.scores import value
from edgetl.records.variants import EngineRecord
from edgetl.report import units
from edgetl.report.terminal.bench import details
from edgetl.report.terminal.tables import HeaderCell, TableLine, Tone, numbers, pairs, say, table, text
from edgetl.tasks.all import Prediction, task_of
from edgetl.tasks.base import Classification, Detection, TaskSpec
from edgetl.tasks.classification.answers import Prediction as ClassPrediction
from edgetl.tasks.classification.answers import listed, nearest
from edgetl.tasks.detection.answers import Detections
from edgetl.tasks.multihead.answers import HeadsPrediction
from edgetl.tasks.multilabel.answers import TagsPrediction
from edgetl.tasks.relations import Graph, Tree

if TYPE_CHECKING:
    from rich.console import Console

    from edgetl.bench.tune import TuneRecord
    from edgetl.bundle.golden import GoldenCheck
    from edgetl.bundle.manifest import Manifest, Variant
    from edgetl.bundle.signature import KeyPair, Signed
    from edgetl.deploy.server.running import Serving
    from edgetl.runtime.doctor import Checkup
    from edgetl.runtime.inputs import ImageResult

_LABELS_SHOWN = 12
_BOXES_SHOWN = 20
_FLIPS_SHOWN = 8


def _window(window: tuple[float, float] | None) -> str:
    if window is None:
        return ""
    return f"{window[0]:g} becomes black, {window[1]:g} white"


def _boxes_asked(task: TaskSpec) -> str:
    if not isinstance(task, Detection):
        return ""
    return (
        f"those that score {task.threshold:.2f} or more, at most {task.most} of an image; of two of a class that "
        f"overlap by more than {task.overlap:.2f} the better one"
    )


def _relation(task: TaskSpec) -> str:
    match task.relation if isinstance(task, Classification) else None:
        case None:
            return ""
        case Tree(parents=parents):
            groups = len(set(parents.values()))
            return f"a tree of {units.counted(groups, 'group')}; --sure answers one where no class is sure enough"
        case Graph(edges=edges):
            return f"a graph of {units.counted(len(edges), 'edge')}"


def _temperatures(variant: Variant | None) -> str:
    if variant is None or variant.confidence is None:
        return ""
    found = variant.confidence
    heads = len(found.temperatures) > 1
    parts = [f"{name} {t:.2f}" if heads else f"{t:.2f}" for name, t in found.temperatures.items()]
    fewest = min(found.images.values())
    return (
        f"by temperature {', '.join(parts)}; --coverage up to {fewest / (fewest + 1):.3g} by"
        f" {units.counted(fewest, 'validation image')}"
    )


def _unknown(variant: Variant | None) -> str:
    if variant is None or variant.unknown is None:
        return ""
    images = variant.unknown.images
    return (
        f"by {variant.unknown.score}; --unknown from {math.ceil(1e4 / (images + 1)) / 1e4:.4g} by"
        f" {units.counted(images, 'validation image')}"
    )


def bundle(console: Console, manifest: Manifest) -> None:
    """What a bundle holds."""
    spec, made = manifest.preprocess, manifest.provenance
    labels = ", ".join(manifest.labels[:_LABELS_SHOWN])
    if len(manifest.labels) > _LABELS_SHOWN:
        labels += f" and {len(manifest.labels) - _LABELS_SHOWN} more"
    machine = next((v.machine for v in manifest.variants if v.machine), None)
    pairs(
        console,
        [
            ("task", manifest.task.kind),
            ("labels", f"{len(manifest.labels)}: {labels}"),
            ("boxes", _boxes_asked(manifest.task)),
            ("relation", _relation(manifest.task)),
            ("input", f"{spec.size}x{spec.size} pixels, {spec.resize}, {spec.interpolation}"),
            ("more than 8 bits", _window(spec.window)),
            ("default variant", manifest.default),
            ("scores", _temperatures(manifest.variant())),
            ("unknown images", _unknown(manifest.variant())),
            ("cascade", _cascade(manifest.variant())),
            ("golden images", str(len(manifest.golden.images))),
            ("measured on", machine.fingerprint if machine else ""),
            ("made by", made.created_by + (f", {made.created}" if made.created else "")),
            ("git commit", made.git_commit),
            ("recipe SHA-256", made.recipe_sha256),
            ("data SHA-256", made.data_sha256),
            ("schema", str(manifest.schema_version)),
        ],
        title=manifest.name,
    )
    metric = task_of(manifest.task).metrics[0].name
    title = units.metric(metric)
    heads = (
        HeaderCell(text="variant", keep=True),
        *text("precision", "target"),
        *numbers("size", f"val\n{title}", f"test\n{title}", "p50\nms", "p90\nms"),
    )
    lines = []
    for v in manifest.variants:
        times = _times(v.latency)[:2] if v.latency else ("-", "-")
        scores = (units.percent(value(e, metric)) if e else "-" for e in (v.val, v.test))
        cells = (v.name, v.precision, v.target, units.bytes_(v.size_bytes), *scores, *times)
        lines.append(TableLine(cells=cells, tone="strong" if v.name == manifest.default else "plain"))
    table(console, heads, lines)
    if manifest.engines:
        rows = [
            TableLine(
                cells=(
                    e.target,
                    e.variant,
                    ", ".join(e.compute_capabilities),
                    e.tensorrt_version,
                    "/".join(map(str, e.batch)),
                    units.bytes_(e.size_bytes),
                )
            )
            for e in manifest.engines
        ]
        table(
            console,
            (*text("engine", "variant", "compute capability", "version", "batch"), *numbers("size")),
            rows,
        )


def _cascade(variant: Variant | None) -> str:
    if variant is None or (found := variant.cascade) is None:
        return ""
    from edgetl.report.terminal.cascade import rule  # nothing else of it is shown on a device

    ours, large = variant.latency, found.large_latency
    times = f"mean {ours.mean_ms:.3g} ms, p99 {ours.p99_ms:.3g} ms" if ours else "not timed"
    return f"{rule(found)}; {times}, where that alone takes {large.mean_ms:.3g} and {large.p99_ms:.3g}"


def verify(console: Console, check: GoldenCheck) -> None:
    """Whether this machine computes what was recorded."""
    say(console, f"{'OK' if check.passed else 'FAILED'}: {check.reason}", "good" if check.passed else "bad")


def predictions(console: Console, results: Sequence[ImageResult]) -> None:
    """One row per image, with its best classes, or why it has none; one row per box for detectors."""
    if any(isinstance(result.prediction, Detections) for result in results):
        _boxes(console, results)
        return
    answers = [_told(r.prediction) if r.prediction else [] for r in results]
    most = max(1, *map(len, answers)) if answers else 1
    timed = any(result.seconds is not None for result in results)
    heads: list[HeaderCell] = [*text("image"), *(numbers("s") if timed else ())]
    for place in range(1, most + 1):
        heads += [*text("label" if place == 1 else f"{place}."), *numbers("score")]
    shares = [_usual(r.prediction) for r in results]
    heads += numbers("as strange") if any(shares) else ()
    sets = [_set_of(r.prediction) if r.prediction else "" for r in results]
    heads += text("one of") if any(sets) else ()
    explained = any(result.maps for result in results)
    heads += text("peak x, y") if explained else ()
    lines = []
    for result, found, share, inside in zip(results, answers, shares, sets, strict=True):
        if result.prediction is None:
            first = (result.path, *([""] if timed else []))
            rest = len(heads) - len(first) - 1
            lines.append(TableLine(cells=(*first, "not readable", *[""] * rest), tone="bad"))
            continue
        cells = [result.path]
        if timed:
            cells.append("-" if result.seconds is None else f"{result.seconds:.2f}")
        for label, score in found:
            cells += [label, score]
        cells += [""] * (len(heads) - len(cells))
        last = [*([share] if any(shares) else []), *([inside] if any(sets) else [])]
        if explained:
            last.append("; ".join(f"{one.peak[0]:.0f}, {one.peak[1]:.0f}" for one in result.maps))
        lines.append(TableLine(cells=(*cells[: len(heads) - len(last)], *last)))
    table(console, heads, lines)
    for result in results:
        if result.prediction is None:
            say(console, result.error, "bad")


def _set_of(prediction: Prediction) -> str:
    """The set that holds the truth as often as asked; empty where it was not asked for."""
    match prediction:
        case ClassPrediction() | TagsPrediction():
            return "" if prediction.possible is None else listed(prediction.possible)
        case HeadsPrediction():
            own = [(name, _set_of(found)) for name, found in prediction.heads.items()]
            return "; ".join(f"{name}: {found}" for name, found in own if found)
        case Detections():
            return ""
        case _:
            assert_never(prediction)


def _usual(prediction: Prediction | None) -> str:
    """The share of known images that look at least as strange; empty where it was not asked for."""
    if prediction is None or isinstance(prediction, Detections) or prediction.usual is None:
        return ""
    return units.percent(prediction.usual)


def _told(prediction: Prediction) -> list[tuple[str, str]]:
    """As `_answers`, behind `unknown` where the image is."""
    found = _answers(prediction)
    if isinstance(prediction, Detections) or not prediction.unknown:
        return found
    (label, score), *rest = found
    return [(nearest(label), score), *rest]


def _boxes(console: Console, results: Sequence[ImageResult]) -> None:
    timed = any(result.seconds is not None for result in results)
    heads = (
        *text("image"),
        *(numbers("s") if timed else ()),
        *text("label"),
        *numbers("score", "x1", "y1", "x2", "y2"),
    )
    lines = []
    for result in results:
        first = [
            result.path,
            *(["-" if result.seconds is None else f"{result.seconds:.2f}"] if timed else []),
        ]
        empty = [""] * len(first)
        if not isinstance(result.prediction, Detections):
            lines.append(TableLine(cells=(*first, "not readable", *[""] * 5), tone="bad"))
            continue
        items = result.prediction.items
        for place, item in enumerate(items[:_BOXES_SHOWN]):
            sides = (f"{value:.1f}" for value in item.box)
            lines.append(
                TableLine(cells=(*(empty if place else first), item.label, f"{item.score:.3f}", *sides))
            )
        if not items:
            lines.append(TableLine(cells=(*first, "nothing", *[""] * 5), tone="faint"))
        if len(items) > _BOXES_SHOWN:
            rest = f"and {len(items) - _BOXES_SHOWN} more; --json gives all"
            lines.append(TableLine(cells=(*empty, rest, *[""] * 5), tone="faint"))
    table(console, heads, lines)
    for result in results:
        if result.prediction is None:
            say(console, result.error, "bad")


def _answers(prediction: Prediction) -> list[tuple[str, str]]:
    """What a row shows of a prediction: (class, probability) each."""
    match prediction:
        case ClassPrediction():
            top = [(one.label, f"{one.score:.3f}") for one in prediction.top]
            if not prediction.classes:
                return top
            group = (f"{prediction.label}, {prediction.either}", f"{prediction.score:.3f}")
            return [group, *(top if len(top) > 1 else ())]
        case TagsPrediction():
            return [(one.label, f"{one.score:.3f}") for one in prediction.tags] or [("none", "")]
        case HeadsPrediction():
            return [
                (f"{name}: {label}", score)
                for name, found in prediction.heads.items()
                for label, score in _answers(found)
            ]
        case Detections():
            return [(one.label, f"{one.score:.3f}") for one in prediction.items] or [("nothing", "")]
        case _:
            assert_never(prediction)


def bench(console: Console, record: BenchRecord) -> None:
    """Latency, throughput, load time and peak memory."""
    timed, footprint = record.latency, record.footprint
    figure = f"{units.significant(record.value)} " + ("images/s" if record.metric == "throughput" else "ms")
    name = {"p90_ms": "p90 latency", "p99_ms": "p99 latency", "throughput": "throughput"}.get(
        record.metric, record.metric
    )
    server = ""
    if record.rate is not None and record.bound_ms is not None:
        met = "met" if record.holds else "NOT met"
        bound = f"p99 bound {units.milliseconds(record.bound_ms)} {met}"
        server = f"{units.significant(record.rate)} queries per second, {bound}"
    pairs(
        console,
        [
            ("scenario", f"{record.scenario}, batch {timed.batch}, {units.counted(timed.threads, 'thread')}"),
            (name, figure),
            ("server", server),
            (
                "handed on",
                "" if record.handed_on is None else f"{units.percent(record.handed_on)} of the images",
            ),
            ("load", units.milliseconds(footprint.load_ms)),
            ("first inference", units.milliseconds(footprint.first_ms)),
            (
                "peak memory",
                f"{units.bytes_(footprint.peak_memory_bytes)}, of which Python and numpy "
                f"{units.bytes_(footprint.base_memory_bytes)}",
            ),
            ("machine", record.machine.fingerprint),
        ],
        title=f"{record.bundle}, variant {record.variant}",
    )
    rows = [("model", timed)]
    if record.end_to_end is not None:
        rows.append(("end to end", record.end_to_end))
    lines = [
        TableLine(
            cells=(
                name,
                *_times(latency),
                units.significant(latency.mean_ms),
                units.significant(latency.throughput),
                units.count(latency.runs),
                units.count(latency.warmup),
            )
        )
        for name, latency in rows
    ]
    heads = numbers("p50 ms", "p90 ms", "p99 ms", "mean ms", "images/s", "calls", "warm-up")
    table(console, (*text("timed"), *heads), lines)
    details(console, record)


def tune(console: Console, record: TuneRecord) -> None:
    """A row a candidate, the timed ones first and by their time, then what was chosen and why."""
    both = any(trial.other_latency for trial in record.trials)
    heads = (
        *text("engine", "variant"),
        *numbers(*(("threads",) if both else ()), "p50\nms", "p90\nms", "calls"),
        *numbers(*(("other\nms",) if both else ())),
        HeaderCell(text="result", keep=True),
        *text("why"),
    )
    ranked = sorted(record.trials, key=lambda t: t.latency.p50_ms if t.latency else math.inf)
    lines = []
    for trial in ranked:
        times: tuple[str, ...] = ("-",) * (5 if both else 3)
        if trial.latency is not None:
            times = (*_times(trial.latency)[:2], units.count(trial.latency.runs))
            if both:
                times = (units.count(trial.latency.threads), *times, units.other_time(trial.other_latency))
        tone: Tone = "strong" if trial.outcome == "chosen" else "plain" if trial.latency else "faint"
        cells = (trial.target, trial.variant or "-", *times, trial.outcome, trial.note)
        lines.append(TableLine(cells=cells, tone=tone))
    number = f"1 or {record.threads} threads" if both else units.counted(record.threads, "thread")
    title = f"{record.bundle}, batch 1, {number}, from pixels to outputs"
    table(console, heads, lines, title=title)
    say(console, f"{record.reason}.", "good")
    say(console, f"Saved in {record.saved}: it runs from now on wherever no target or variant is named.")


def gate(console: Console, report: GateReport) -> None:
    """What regressed, by how much, and the verdict."""
    heads = (
        HeaderCell(text="check", keep=True),
        *numbers("baseline", "now", "change", "allowed"),
        *text("result"),
    )
    lines = []
    for check in report.checks:
        result = check.verdict.text if check.judged else "not judged"
        tone: Tone = "bad" if check.judged and check.verdict is Verdict.FAIL else "plain"
        before, now = check_figure(check, check.baseline), check_figure(check, check.current)
        cells = (check.name, before, now, check_change(check), check_limit(check), result)
        lines.append(TableLine(cells=cells, tone=tone))
    table(
        console,
        heads,
        lines,
        title=f"{report.current} (variant {report.variant} on {report.target}) against {report.baseline}",
    )
    for sentence in report.sentences():
        say(console, f"- {sentence}")
    if report.flips is not None:
        flipped_images(console, report.flips)
    if report.boxes is not None:
        turned_images(console, report.boxes)
    names = ", ".join(c.name for c in report.checks if c.judged and c.verdict is report.verdict)
    match report.verdict:
        case Verdict.PASS:
            say(console, "Gate passed.", "good")
        case Verdict.FAIL:
            say(console, f"Gate FAILED: {names}.", "bad")
        case Verdict.UNSURE:
            say(console, f"Gate cannot tell: {names}.", "strong")
        case _:
            assert_never(report.verdict)


def flipped_images(console: Console, flips: Flips, names: tuple[str, str] = ("before", "now")) -> None:
    """The first images that flipped between the two that `names` calls; a page shows more of them."""
    if not flips.images:
        return
    lost = [flip for flip in flips.images if flip.lost]
    won = [flip for flip in flips.images if not flip.lost]
    shown = [*lost[:_FLIPS_SHOWN], *won[: max(0, _FLIPS_SHOWN - len(lost))]]
    console.print()
    table(
        console,
        text("flipped image", "class", *names),
        [
            TableLine(
                cells=(flip.path, flip.label, flip.before, flip.after), tone="bad" if flip.lost else "plain"
            )
            for flip in shown
        ],
        title=f"{flips.lost} right to wrong, {flips.won} wrong to right; {len(shown)} of them:",
    )


def turned_images(console: Console, turned: BoxTurns) -> None:
    """The images whose boxes changed most; a page shows more of them."""
    if not turned.changed:
        return
    shown = turned.images[:_FLIPS_SHOWN]
    console.print()
    table(
        console,
        (*text("changed image"), *numbers("lost", "won", "new wrong", "wrong gone")),
        [
            TableLine(
                cells=(image.path, *(units.count(image.count(turn)) for turn in BoxTurn)),
                tone="bad" if image.count(BoxTurn.LOST) or image.count(BoxTurn.NEW) else "plain",
            )
            for image in shown
        ],
        title=(
            f"{units.counted(turned.lost, 'object')} lost, {turned.won} won, {turned.new} new wrong boxes, "
            f"{turned.gone} gone, in {units.counted(turned.changed, 'image')}; {len(shown)} of them:"
        ),
    )


def doctor(console: Console, checkup: Checkup) -> None:
    """What this machine can run, and what to install for more."""
    say(console, checkup.machine)
    console.print()
    lines = [
        TableLine(
            cells=("yes" if part.available else "no", part.name, part.detail, part.remedy),
            tone="plain" if part.available else "faint",
        )
        for part in checkup.parts
    ]
    table(console, (HeaderCell(text="", keep=True), *text("part", "found", "to get it")), lines)
    if checkup.install:
        sizes = [
            TableLine(cells=(package.name, package.version, units.bytes_(package.size_bytes)))
            for package in checkup.install
        ]
        total = units.bytes_(sum(package.size_bytes for package in checkup.install))
        sizes.append(TableLine(cells=("the device's install", "", total), tone="strong"))
        table(console, (*text("package", "version"), *numbers("size")), sizes)
    if checkup.differences:
        say(console, "Other versions than edgetl was tried with:")
        rows = [TableLine(cells=(each.name, each.installed, each.tried)) for each in checkup.differences]
        table(console, text("package", "installed", "tried"), rows)


def keys(console: Console, pair: KeyPair) -> None:
    """A new key pair."""
    pairs(
        console,
        [
            ("private key, keep it secret", pair.private),
            ("public key, for --require-signature", pair.public),
            ("Ed25519", pair.public_hex),
        ],
    )


def signed(console: Console, record: Signed) -> None:
    """A signed bundle."""
    say(console, f"{record.path} is signed with the key {record.public_hex}.", "good")


def serving(console: Console, record: Serving) -> None:
    """A server that listens."""
    say(console, f"Serves {', '.join(record.models)} at {record.url}")


def engine(console: Console, record: EngineRecord) -> None:
    """A compiled TensorRT engine."""
    pairs(
        console,
        [
            ("target", f"{record.target} {record.tensorrt_version}"),
            ("compute capability", ", ".join(record.compute_capabilities)),
            ("compiled on", " ".join(filter(None, (record.gpu, record.driver)))),
            ("variant", record.variant),
            ("precision", _engine_precision(record)),
            ("other precision", "; ".join(record.exceptions)),
            ("proved by", record.evidence),
            ("left to the GPU", ", ".join(record.dla_fallback)),
            ("batch", f"{record.batch[0]} to {record.batch[2]}, tuned for {record.batch[1]}"),
            ("size", units.bytes_(record.size_bytes)),
            ("SHA-256", record.sha256),
            ("built in", units.duration(record.seconds) + (", earlier" if record.cached else "")),
            ("file", record.path),
        ],
    )


def _engine_precision(record: EngineRecord) -> str:
    counted = ", ".join(f"{number} in {name}" for name, number in record.layers.items())
    return (
        f"{record.precision}: {counted} (convolutions and matrix products)" if counted else record.precision
    )


def _times(latency: Latency) -> tuple[str, str, str]:
    return (
        units.significant(latency.p50_ms),
        units.significant(latency.p90_ms),
        units.significant(latency.p99_ms),
    )


def check_figure(check: GateCheck, value: float) -> str:
    """One of a check's figures in its unit."""
    match check.unit:
        case "ms":
            return units.milliseconds(value)
        case "bytes":
            return units.bytes_(round(value))
        case unit:
            return units.percent(value) if check.is_share else f"{units.significant(value)} {unit}"


def check_change(check: GateCheck) -> str:
    """A check's change with its sign: points of a score, per cent of what else."""
    return units.points(100 * check.change) if check.is_share else f"{100 * check.change:+.1f}%"


def check_limit(check: GateCheck) -> str:
    """The change for the worse that a check allows; a dash where it is not judged."""
    if not check.judged:
        return "-"
    return units.points(-100 * check.limit) if check.is_share else f"+{100 * check.limit:.1f}%"
