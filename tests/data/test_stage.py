from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from PIL import Image

from edgetl.config import DataConfig
from edgetl.data import index as indexes
from edgetl.data.stage import DataInputs, run
from edgetl.files import read_json, write_json
from edgetl.records.train import DataRecord
from tests.data.images import Recorder, fill


def test_stage_writes_the_index_and_returns_its_record(tmp_path: Path) -> None:
    fill(tmp_path / "set", {"a": 10, "b": 10})
    out = tmp_path / "run" / "data"
    out.mkdir(parents=True)
    record = run(DataConfig(source=str(tmp_path / "set")), DataInputs(seed=0), out=out)
    index = indexes.load(tmp_path / "run" / record.index)
    assert record.index == "data/index.json"
    assert record.labels == ("a", "b")
    assert record.counts == index.counts()
    assert record.sha256 == index.sha256
    write_json(tmp_path / "record.json", record)
    assert read_json(tmp_path / "record.json", DataRecord) == record


def test_scored_images_with_near_copies_in_other_splits_are_counted_and_told(tmp_path: Path) -> None:
    sizes = {"train/a": 6, "train/b": 6, "val/a": 2, "val/b": 2, "test/a": 2, "test/b": 2}
    root = fill(tmp_path / "set", sizes)
    recorder = Recorder()
    found = run(DataConfig(source=str(root)), DataInputs(seed=0), out=tmp_path, progress=recorder)
    assert (found.near_copies, recorder.warnings) == (0, [])
    with Image.open(root / "train" / "a" / "000.png") as image:
        image.point(lambda level: level * 0.6 + 9).save(root / "test" / "a" / "copy.png")
    again = run(DataConfig(source=str(root)), DataInputs(seed=0), out=tmp_path, progress=recorder)
    assert again.near_copies == 1
    [warning] = recorder.warnings
    assert warning.startswith(
        "1 of 9 images that are scored have a near-copy in another split, e.g. copy.png and 000.png: if "
    )


def test_package_is_free_of_torch_and_pydantic() -> None:
    modules = "index, splits, sources, builtin, pixels, calibration, audit, stage, parallel, unlabelled"
    code = (
        f"import sys; from edgetl.data import {modules}; "
        "print([m for m in ('torch', 'torchvision', 'sklearn', 'pydantic', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
