"""Several heads on one backbone, by hard and by soft sharing, beside a network for each: accuracy and latency."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]
SIZE, EPOCHS, SEEDS = 96, 4, (0, 1)
COLOURS = {
    "yellow": ("buttercup", "colts-foot", "dandelion", "sunflower"),
    "white": ("daisy", "lily-valley", "windflower"),
    "violet": ("bluebell", "fritillary", "iris", "pansy"),
    "orange": ("tigerlily",),
}
"""The species of `flowers12` by the colour that most of their pictures show."""
Cells = Mapping[str, str]


def of_flower(species: str) -> Cells:
    return {"species": species, "colour": next(c for c, of in COLOURS.items() if species in of)}


def of_tile(kind: str) -> Cells:
    """Defect or not, and which; a tile without a defect is not labelled for the second."""
    free = kind == "free"
    return {"defect": "no" if free else "yes", "which": "" if free else kind}


SETS: dict[str, Callable[[str], Cells]] = {"flowers12": of_flower, "magnetic_tile": of_tile}


def write_table(folder: Path, path: Path, cells_of: Callable[[str], Cells], columns: tuple[str, ...]) -> Path:
    """A set's pictures with the asked columns, without those that have a label in none of them."""
    rows = [",".join(("path", *columns, "split"))]
    for picture in sorted(folder.glob("*/*/*.jpg")):
        split, kind = picture.parts[-3:-1]
        chosen = [cells_of(kind)[column] for column in columns]
        if any(chosen):
            rows.append(",".join((str(picture), *chosen, split)))
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def taught(
    table: Path, folder: Path, task: dict[str, object], seed: int
) -> tuple[dict[str, float], OnnxBackend]:
    """A fine-tuned network: its test scores, and it exported."""
    recipe = config.parse(
        {
            "seed": seed,
            "data": {"source": str(table)},
            "task": task,
            "preprocess": {"size": SIZE},
            "train": {"epochs": EPOCHS},
        }
    )
    record = pipeline.run(recipe, folder, until=Stage.TRAIN).records[Stage.TRAIN]
    model, _ = checkpoint.load(folder / record.checkpoint)
    index = build_index(recipe.data, labelling=recipe.task.labelling)
    network = to_onnx(model, task=index.task, spec=PreprocessSpec(size=SIZE), opset=18)
    scores = {name: score.value for name, score in record.test.scores.items()}
    return scores, OnnxBackend(to_bytes(network), threads=1)


@pytest.mark.parametrize("name", SETS)
def test_heads_of_one_network_answer_as_well_as_networks_of_their_own(
    real_set: RealSet, name: str, tmp_path: Path
) -> None:
    folder, cells_of = real_set(name).absolute(), SETS[name]
    heads = tuple(cells_of(next(folder.glob("train/*")).name))
    tables = {head: write_table(folder, tmp_path / f"{head}.csv", cells_of, (head,)) for head in heads}
    for head, table in tables.items():
        table.write_text(table.read_text().replace(f"path,{head}", "path,label", 1))
    every = write_table(folder, tmp_path / "every.csv", cells_of, heads)
    found: dict[str, list[dict[str, float]]] = {"hard": [], "soft": [], "separate": []}
    networks: dict[str, list[OnnxBackend]] = {}
    for seed in SEEDS:
        for sharing in ("hard", "soft"):
            task = {"kind": "multihead", "heads": {h: {"column": h} for h in heads}, "sharing": sharing}
            scores, network = taught(every, tmp_path / f"{sharing}-{seed}", task, seed)
            found[sharing].append(scores)
            networks[sharing] = [network]
        of_each, networks["separate"] = dict[str, float](), []
        for head, table in tables.items():
            scores, network = taught(table, tmp_path / f"{head}-{seed}", {"kind": "classification"}, seed)
            of_each |= {f"{head}/{metric}": value for metric, value in scores.items()}
            networks["separate"].append(network)
        found["separate"].append(of_each)
    pixels = np.zeros((1, 3, SIZE, SIZE), np.float32)
    calls = {way: lambda own=own: [network.run(pixels) for network in own] for way, own in networks.items()}
    timed = time_interleaved(calls, warmup=10, runs=50)
    p50 = {way: float(np.median(samples)) for way, samples in timed.items()}
    least = {way: min(samples) for way, samples in timed.items()}
    for way, rows in found.items():
        print(f"\n{name}, {way}: p50 {p50[way]:.2f} ms for {len(heads)} heads", end="")
        for figure in (f"{head}/{metric}" for head in heads for metric in ("top1", "macro_f1")):
            values = [row[figure] for row in rows]
            print(f"; {figure} {np.mean(values):.1%} ({', '.join(f'{v:.1%}' for v in values)})", end="")
    print(f"\nseeds {SEEDS}, {SIZE} px, {EPOCHS} epochs after the head's one")
    for sharing in ("hard", "soft"):
        assert least[sharing] < least["separate"]
        for head in heads:
            shared, own = (
                np.mean([row[f"{head}/top1"] for row in found[way]]) for way in (sharing, "separate")
            )
            assert shared > own - 0.08, (sharing, head)
