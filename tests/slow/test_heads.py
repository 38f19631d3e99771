"""Several heads on one backbone beside a network for each, on real tiles: defect or not, and which."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgetl import config, pipeline
from edgetl.bench.timer import time_interleaved
from edgetl.data.index import build_index
from edgetl.export.onnx import to_bytes, to_onnx
from edgetl.inputs.image import PreprocessSpec
from edgetl.models import checkpoint
from edgetl.pipeline import Stage
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from tests.slow.test_real_sets import RealSet

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
SIZE = 96
HEADS = {"defect": {"column": "defect"}, "which": {"column": "which"}}


def write_table(tiles: Path, path: Path, columns: tuple[str, ...]) -> Path:
    """The tiles with the asked columns; where one column alone is asked for, those without a label are left out."""
    rows = [",".join(("path", *columns, "split"))]
    for picture in sorted(tiles.glob("*/*/*.jpg")):
        split, kind = picture.parts[-3:-1]
        cells = {"defect": "no" if kind == "free" else "yes", "which": "" if kind == "free" else kind}
        chosen = [cells[column] for column in columns]
        if any(chosen):
            rows.append(",".join((str(picture), *chosen, split)))
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def taught(table: Path, folder: Path, task: dict[str, object]) -> tuple[dict[str, float], OnnxBackend]:
    """A network whose head learns on features; its test scores, and the network exported."""
    recipe = config.parse(
        {
            "name": folder.name,
            "data": {"source": str(table)},
            "task": task,
            "preprocess": {"size": SIZE},
            "train": {"strategy": "head", "epochs": 30, "head_lr": 3e-3},
        }
    )
    outcome = pipeline.run(recipe, folder, until=Stage.TRAIN)
    record = outcome.records[Stage.TRAIN]
    assert record.test is not None
    model, _ = checkpoint.load(folder / record.checkpoint)
    index = build_index(recipe.data, labelling=recipe.task.labelling)
    network = to_onnx(model, task=index.task, spec=PreprocessSpec(size=SIZE), opset=17)
    scores = {name: score.value for name, score in record.test.scores.items()}
    return scores, OnnxBackend(to_bytes(network), threads=1)


def test_heads_of_one_network_answer_as_well_as_networks_of_their_own(
    real_set: RealSet, tmp_path: Path
) -> None:
    tiles = real_set("magnetic_tile").absolute()
    both = write_table(tiles, tmp_path / "both.csv", tuple(HEADS))
    together, one = taught(both, tmp_path / "one", {"kind": "multihead", "heads": HEADS})
    networks, scores = [], {}
    for name in HEADS:
        table = write_table(tiles, tmp_path / f"{name}.csv", (name,))
        table.write_text(table.read_text().replace(f"path,{name}", "path,label", 1))
        scores[name], network = taught(table, tmp_path / name, {"kind": "classification"})
        networks.append(network)
    pixels = np.zeros((1, 3, SIZE, SIZE), np.float32)
    calls = {"one": lambda: one.run(pixels), "two": lambda: [network.run(pixels) for network in networks]}
    times = {
        name: float(np.median(found)) for name, found in time_interleaved(calls, warmup=10, runs=50).items()
    }
    for name in HEADS:
        for metric in ("top1", "macro_f1"):
            print(
                f"magnetic_tile {name}: {metric} {together[f'{name}/{metric}']:.1%} as a head,"
                f" {scores[name][metric]:.1%} as a network of its own"
            )
        assert together[f"{name}/top1"] > scores[name]["top1"] - 0.08
    print(f"p50 {times['one']:.2f} ms for both heads of one network, {times['two']:.2f} ms for two networks")
    assert times["one"] < times["two"]
