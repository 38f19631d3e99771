from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgetl.errors import BaselineError, StorageError
from edgetl.gate import baseline
from tests.gate.test_compare import figures


def test_round_trip(tmp_path: Path) -> None:
    made = figures()
    made.save(tmp_path / "sub dir" / "grün.json")
    assert baseline.load(tmp_path / "sub dir" / "grün.json") == made


def test_no_baseline_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    with pytest.raises(BaselineError) as caught:
        baseline.load(path)
    assert str(caught.value) == (
        f"There is no baseline at {path}. Write one with: edgetl baseline BUNDLE -o {path}"
    )


def test_a_folder_is_not_a_baseline(tmp_path: Path) -> None:
    with pytest.raises(BaselineError, match="Cannot read the baseline"):
        baseline.load(tmp_path)


def _altered(path: Path, **changes: object) -> Path:
    figures().save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a baseline: it is not JSON"),
        (b'{"schema_version": 3, "bun', "is not a baseline: it is not JSON"),
        (b"\xff\xfe\x00", "is not a baseline: it is not JSON"),
        (b"[1, 2]", "is not a baseline: it has no schema_version"),
        (b"{}", "is not a baseline: it has no schema_version"),
        (b'{"schema_version": true}', "is not a baseline: it has no schema_version"),
        (b'{"schema_version": 3}', "is a broken baseline: Baseline.bundle is missing"),
        (
            b'{"schema_version": 99}',
            r"was written by a newer edgetl with schema 99; edgetl .* reads schema 3",
        ),
        (
            b'{"schema_version": 1}',
            r"was written by an older edgetl with schema 1; this one reads schema 3. Write "
            r"it anew: edgetl baseline BUNDLE --data DATA -o .*baseline.json$",
        ),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "baseline.json"
    path.write_bytes(content)
    with pytest.raises(BaselineError, match=message):
        baseline.load(path)


def test_values_that_cannot_be_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    whole = json.loads(_altered(path).read_text())
    cases = {
        "size_bytes is 0": {"size_bytes": 0},
        "Baseline.size_bytes is 'big', expected int": {"size_bytes": "big"},
        "its latency has no samples": {"latency": {**whole["latency"], "samples_ms": []}},
        "one that is not above 0": {"latency": {**whole["latency"], "samples_ms": [0.0, -1.0]}},
        "one path, class and prediction per image": {"accuracy": {**whole["accuracy"], "truth": [0, 1]}},
        "a class that is not among its 2 labels": {
            "accuracy": {**whole["accuracy"], "predictions": [2] * len(whole["accuracy"]["truth"])}
        },
        "its accuracy is of no images": {
            "accuracy": {**whole["accuracy"], "evaluation": {**whole["accuracy"]["evaluation"], "images": 0}}
        },
        "its loads are none": {"loads": {"load_ms": [], "peak_memory_bytes": []}},
    }
    for message, change in cases.items():
        with pytest.raises(BaselineError, match=message):
            baseline.load(_altered(path, **change))


def test_an_unwritable_place_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((StorageError, FileExistsError)):
        figures().save(tmp_path / "file" / "baseline.json")
