"""The one sink of results: a record goes to standard output, as JSON or as tables; logs go to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, TextIO, assert_never

if TYPE_CHECKING:
    from rich.console import Console

View = Literal[
    "run",
    "stage",
    "folds",
    "audit",
    "suggest",
    "comparison",
    "bundle",
    "verify",
    "predictions",
    "evaluation",
    "bench",
    "tune",
    "history",
    "gate",
    "engine",
    "parity",
    "serve",
    "rknn",
    "doctor",
    "keys",
    "signed",
    "oci",
    "serving",
    "enrolled",
    "drift",
    "added",
    "fleet",
    "guide",
    "search",
    "cascade",
]
"""How a record is shown as tables."""

_PIPE_WIDTH = 120


def emit(record: Any, as_json: bool, view: View, *, stream: TextIO | None = None) -> None:
    """Write a record to standard output.

    Args:
        record: the record, or a sequence of records.
        as_json: JSON instead of tables.
        view: which tables.
        stream: another stream than standard output.
    """
    stream = stream or sys.stdout
    if as_json:
        stream.write(to_text(record, view, ascii_only=not _is_unicode(stream)))
        stream.flush()
    else:
        _show(record, view, _console(stream))


def emit_lines(records: Iterable[Any], *, stream: TextIO | None = None) -> None:
    """Write each record as one line of JSON as soon as it is there."""
    from edgetl.records.codec import to_json

    stream = stream or sys.stdout
    for record in records:
        line = json.dumps(to_json(record), ensure_ascii=not _is_unicode(stream), allow_nan=False)
        stream.write(line + "\n")
        stream.flush()


def to_text(record: Any, view: View, *, ascii_only: bool = False) -> str:
    """The record as indented JSON with a line break at the end. What a view works out from a record is in it too.

    Raises:
        ValueError: a figure is not finite, which JSON cannot say.
    """
    from edgetl.records.codec import to_json

    value = to_json(record)
    if view == "verify":
        value |= {"passed": record.passed, "reason": record.reason}
    elif view == "gate":
        value |= {"verdict": record.verdict.value, "passed": record.passed}
    elif view == "drift":
        value |= {"verdict": record.verdict.value, "sentence": record.sentence}
    elif view == "parity":
        value |= {"sentence": record.sentence}
    elif view == "suggest":
        value |= {"choice": to_json(record.choice)}
    elif view == "audit":
        value |= {"problems": list(record.problems())}
    return json.dumps(value, indent=1, ensure_ascii=ascii_only, allow_nan=False) + "\n"


def _console(stream: TextIO) -> Console:
    import os

    from rich.console import Console

    # A pipe has no width; eighty columns would fold most tables.
    width = None if stream.isatty() or os.environ.get("COLUMNS") else _PIPE_WIDTH
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)


def _is_unicode(stream: TextIO) -> bool:
    return (stream.encoding or "utf-8").lower().replace("-", "").startswith("utf")


def _show(record: Any, view: View, console: Console) -> None:
    from edgetl.report.terminal import bench, device, run, stages

    match view:
        case "run":
            run.run(console, record)
        case "evaluation":
            run.evaluation(console, record)
        case "stage":
            stages.stage(console, record)
        case "folds":
            stages.folds(console, record)
        case "audit":
            stages.audit(console, record)
        case "suggest":
            from edgetl.report.terminal import transfer  # devices print other views, and start faster without

            transfer.suggest(console, record)
        case "comparison":
            from edgetl.report.terminal.comparison import comparison

            comparison(console, record)
        case "bundle":
            device.bundle(console, record)
        case "verify":
            device.verify(console, record)
        case "predictions":
            device.predictions(console, record)
        case "bench":
            device.bench(console, record)
        case "tune":
            device.tune(console, record)
        case "history":
            bench.history(console, record)
        case "gate":
            device.gate(console, record)
        case "engine":
            device.engine(console, record)
        case "parity":
            stages.parity(console, record)
        case "serve":
            stages.serve(console, record)
        case "rknn":
            stages.rknn(console, record)
        case "doctor":
            device.doctor(console, record)
        case "keys":
            device.keys(console, record)
        case "signed":
            device.signed(console, record)
        case "serving":
            device.serving(console, record)
        case "oci":
            from edgetl.report.terminal import oci

            oci.oci(console, record)
        case "enrolled":
            from edgetl.report.terminal.enrol import enrolled

            enrolled(console, record)
        case "drift":
            from edgetl.report.terminal import drift

            drift.drift(console, record)
        case "added":
            stages.added(console, record)
        case "fleet":
            from edgetl.report.terminal import fleet

            fleet.fleet(console, record)
        case "guide":
            from edgetl.report.terminal import guide  # nothing else on a device shows pages

            guide.guide(console, record)
        case "search":
            from edgetl.report.terminal.search import search

            search(console, record)
        case "cascade":
            from edgetl.report.terminal.cascade import cascade

            cascade(console, record)
        case _:
            assert_never(view)
