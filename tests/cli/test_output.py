import io
import json
import subprocess
import sys
from importlib import import_module
from pkgutil import iter_modules

import pytest

from edgetl.bundle.golden import GoldenCheck
from edgetl.bundle.manifest import Precision
from edgetl.cli.output import View, emit, to_text
from edgetl.records.codec import from_json
from edgetl.records.variants import ExportRecord

EXPORT = ExportRecord(
    onnx="export/modèle.onnx",
    sha256="ab",
    size_bytes=4_612_344,
    opset=18,
    images=32,
    max_difference=3e-5,
    same=1.0,
)
CHECK = GoldenCheck(
    variant="fp32",
    precision=Precision.FP32,
    images=8,
    max_difference=0.5,
    allowed_difference=0.001,
    same=0.5,
    pixels_identical=True,
)


def test_json_goes_to_standard_output_and_comes_back(capsys):
    emit(EXPORT, True, "stage")
    out, err = capsys.readouterr()
    assert err == ""
    assert from_json(ExportRecord, json.loads(out)) == EXPORT
    assert "modèle" in out


def test_tables_go_to_standard_output(capsys):
    emit(EXPORT, False, "stage")
    out, err = capsys.readouterr()
    assert err == ""
    assert (
        out
        == """\
file           export/modèle.onnx
size           4.6 MB
opset          18
against torch  largest difference 3e-05, same answer on 100.0% of 32 images

"""
    )


def test_a_pipe_gets_no_colour_and_wide_tables(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    stream = io.StringIO()
    emit(CHECK, False, "verify", stream=stream)
    assert "\x1b" not in stream.getvalue()
    assert max(map(len, stream.getvalue().splitlines())) > 80


def test_json_of_verify_holds_the_verdict():
    stated = json.loads(to_text(CHECK, "verify"))
    assert stated["passed"] is False
    assert stated["reason"].startswith("Variant fp32 does not compute what was recorded")
    assert stated["precision"] == "fp32"


def test_json_of_an_audit_holds_the_problems():
    from edgetl.data.audit import AuditReport
    from edgetl.data.depth import Depth

    report = AuditReport(
        images=2,
        counts={"train": {"a": 1, "b": 1}},
        sizes={"train": 2},
        skipped=(("x.jpg", "truncated"),),
        duplicates=(),
        leaks=(),
        conflicts=(),
        near_duplicates=(),
        imbalance=1.0,
        tiny_classes=(),
        median_size=(64, 64),
        odd_sizes=(),
        depth=Depth(images=3),
    )
    assert json.loads(to_text(report, "audit"))["problems"] == list(report.problems())


def test_json_on_an_ascii_stream_is_escaped():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    emit(EXPORT, True, "stage", stream=stream)
    assert json.loads(stream.buffer.getvalue())["onnx"] == "export/modèle.onnx"


def test_a_sequence_of_records_is_a_list():
    assert [r["opset"] for r in json.loads(to_text((EXPORT, EXPORT), "predictions"))] == [18, 18]


def test_a_figure_that_json_cannot_say_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_text({"loss": float("nan")}, "stage")


def test_every_view_has_tables():
    from typing import get_args

    from edgetl.report import terminal

    places = [import_module(f"{terminal.__name__}.{found.name}") for found in iter_modules(terminal.__path__)]
    missing = [v for v in get_args(View) if not any(hasattr(p, v) for p in places)]
    assert missing == []


def test_json_needs_no_rich():
    code = (
        "import sys; from edgetl.cli.output import emit; emit({'a': 1}, True, 'stage');"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & {'rich', 'torch', 'onnxruntime'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == '{\n "a": 1\n}\n[]\n'


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_names_of_any_bytes_are_shown_on_any_stream(encoding, monkeypatch):
    from edgetl.cli import streams
    from edgetl.cli.output import emit_lines

    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding=encoding, errors="strict"))
    names = ["caf\udce9.png", "猫.png"]
    with streams.safe():
        emit_lines(names)
        assert [json.loads(line) for line in content.getvalue().decode().splitlines()] == names
        print(*names, flush=True)
    assert b"caf\\udce9.png" in content.getvalue().splitlines()[-1]
