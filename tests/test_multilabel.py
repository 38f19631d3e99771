"""Any number of classes per image, the whole way on a tiny network and through a runtime without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import edgetl
from edgetl import config, pipeline
from edgetl.bundle.archive import open_bundle
from edgetl.errors import ConfigError
from edgetl.records.scores import value
from edgetl.runtime.evaluate import evaluate_folder
from edgetl.tasks.all import detail_of, spec_of
from edgetl.tasks.base import MultiLabel
from edgetl.tasks.multilabel.detail import TagsDetail
from edgetl.tasks.multilabel.thresholds import best_thresholds
from edgetl.train.tasks.all import training_task
from edgetl.train.tasks.multilabel import asymmetric, binary_cross_entropy, soft_labels

MARKS = {"red": (220, 30, 30), "green": (30, 200, 50), "blue": (30, 50, 220)}
TASK = MultiLabel(labels=("blue", "green", "red"))


def write_marks(root: Path, images: int) -> Path:
    """Grey pictures of 32 px with 0 to 3 coloured marks, and a CSV with a column of 0 and 1 for each colour."""
    rng, rows = np.random.default_rng(0), ["path,split,red,green,blue"]
    for at in range(images):
        shown = [(at >> bit) & 1 for bit in range(3)]
        pixels = rng.normal(120, 10, (32, 32, 3)).clip(0, 255).astype(np.uint8)
        for corner, (there, colour) in enumerate(zip(shown, MARKS.values(), strict=True)):
            if there:
                x, y = 16 * (corner % 2), 16 * (corner // 2)
                pixels[y : y + 14, x : x + 14] = colour
        Image.fromarray(pixels).save(root / f"{at:03}.png")
        split = "train" if at < images // 2 else "val" if at < images * 3 // 4 else "test"
        rows.append(f"{at:03}.png,{split},{','.join(map(str, shown))}")
    table = root / "marks.csv"
    table.write_text("\n".join(rows) + "\n")
    return table


def recipe(source: Path, **task: str) -> config.Recipe:
    return config.parse(
        {
            "name": "marks",
            "data": {"source": str(source)},
            "task": {"kind": "multilabel", **task},
            "preprocess": {"size": 32, "crop_fraction": 1.0},
            "train": {
                "backbone": "test_efficientnet",
                "weights": "none",
                "head_epochs": 0,
                "epochs": 2,
                "batch_size": 8,
                "augment": "none",
            },
            "prune": {"target_macs": 0.8, "steps": 1, "recovery_epochs": 1, "max_drop": 0.9},
            "distill": {"epochs": 1, "augment": "none"},
            "quantize": {"images": 8, "max_drop": 0.9},
            "bench": {"threads": 1, "warmup": 2, "runs": 10},
            "bundle": {"max_drop": 0.9, "golden_images": 2, "metric": "macro_f1"},
        }
    )


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_marks(tmp_path_factory.mktemp("marks"), 64)


@pytest.fixture(scope="module")
def finished(table: Path, tmp_path_factory: pytest.TempPathFactory) -> pipeline.Outcome:
    return pipeline.run(recipe(table, loss="asymmetric"), tmp_path_factory.mktemp("runs") / "marks")


def test_from_the_recipe_to_the_device(finished: pipeline.Outcome, table: Path) -> None:
    assert finished.bundle is not None
    assert finished.report is not None
    measured = finished.records[pipeline.Stage.MEASURE]
    assert measured.metric == "macro_f1"
    task = open_bundle(finished.bundle).manifest.task
    assert task == spec_of(measured.task, TASK) == finished.report.task
    assert isinstance(task, MultiLabel)
    assert (task.labels, len(task.thresholds)) == (TASK.labels, 3)
    with edgetl.load(finished.bundle) as session:
        assert session.verify().passed
        found = evaluate_folder(session, table)
        shipped = next(v for v in measured.variants if v.name == measured.default)
        for name in ("map", "macro_f1", "exact"):
            assert value(found, name) == pytest.approx(value(shipped.test, name), abs=0.1)


def test_thresholds_are_chosen_on_validation_images_wherever_a_score_asks_for_them(
    finished: pipeline.Outcome,
) -> None:
    records = finished.records
    for stage in (pipeline.Stage.TRAIN, pipeline.Stage.DISTILL):
        cuts = {}
        for split in ("val", "test"):
            detail = detail_of(getattr(records[stage], split))
            assert isinstance(detail, TagsDetail)
            cuts[split] = [of_class.threshold for of_class in detail.classes]
        assert cuts["val"] == cuts["test"] != [0.5, 0.5, 0.5]
    # the same network, as it was quantized and as it was measured
    measured = next(v for v in records[pipeline.Stage.MEASURE].variants if v.name == "fp32")
    scored = records[pipeline.Stage.QUANTIZE].float_score
    assert scored == pytest.approx(value(measured.val, "macro_f1"), abs=1e-6)


def test_the_command_predicts_evaluates_and_gates_without_torch(
    finished: pipeline.Outcome, table: Path, tmp_path: Path
) -> None:
    bundle, picture, baseline = str(finished.bundle), str(table.parent / "007.png"), str(tmp_path / "b.json")
    calls = (
        ("predict", bundle, picture, "--json"),
        ("eval", bundle, str(table), "--json"),
        ("verify", bundle),
        ("baseline", bundle, "--data", str(table), "-o", baseline),
        ("gate", bundle, "--baseline", baseline, "--data", str(table), "--report", str(tmp_path / "g.html")),
    )
    blocked = "import sys; sys.modules.update(dict.fromkeys(('torch', 'torchvision', 'timm', 'onnx')));"
    lines = [
        f"{blocked}\nfrom typer.testing import CliRunner\nfrom edgetl.cli import app\nimport json",
        f"for call in {calls!r}:",
        "    done = CliRunner().invoke(app, list(call))",
        "    judged = call[0] == 'gate' and 'Recall went down in none of 3 classes' in done.output",
        "    assert judged or done.exit_code == 0, (call, done.output, done.exception)",  # time may be noise
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-1500:]
    assert json.loads(Path(baseline).read_text())["task"]["kind"] == "multilabel"


def test_losses_are_those_of_their_papers() -> None:
    logits, targets = torch.tensor([[2.0, -1.0, -4.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    p = torch.sigmoid(logits[0])
    bce = -(p[0].log() + (1 - p[1]).log() + (1 - p[2]).log())
    assert binary_cross_entropy(logits, targets) == pytest.approx(float(bce), rel=1e-5)
    m = p[1] - 0.05  # the third class is below the margin: it does not count
    assert asymmetric(logits, targets) == pytest.approx(float(-p[0].log() - m**4 * (1 - m).log()), rel=1e-4)


def test_the_soft_loss_is_zero_where_both_agree_and_teaches_otherwise() -> None:
    teacher = torch.tensor([[3.0, -2.0, 0.5]])
    assert soft_labels(teacher, teacher, 2.0) == pytest.approx(0.0, abs=1e-6)
    student = nn.Parameter(torch.zeros(1, 3))
    optimiser = torch.optim.Adam([student], 0.2)
    for _ in range(200):
        optimiser.zero_grad()
        soft_labels(student, teacher, 2.0).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert student.detach().numpy() == pytest.approx(teacher.numpy(), abs=0.05)


def test_members_are_blended_by_their_probabilities() -> None:
    members = [torch.tensor([[0.0, 2.0]]), torch.tensor([[4.0, -2.0]])]
    together = training_task(TASK).blend(members, 2.0)
    mean = torch.stack([torch.sigmoid(m / 2) for m in members]).mean(0)
    assert torch.sigmoid(together / 2).numpy() == pytest.approx(mean.numpy(), abs=1e-3)


def test_thresholds_are_those_of_the_best_f1() -> None:
    logits = np.array([[3.0, -3.0, 1.0], [2.0, -2.0, 1.0], [1.0, -4.0, 1.0], [-1.0, -5.0, 1.0]])
    truths = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 0], [0, 0, 0]], dtype=bool)
    cuts = best_thresholds(truths, logits)
    answers = 1 / (1 + np.exp(-logits)) >= np.array(cuts)
    assert (answers[:, :2] == truths[:, :2]).all()
    assert cuts[2] == 0.5  # no image has it


def test_a_loss_between_the_classes_of_one_softmax_is_refused() -> None:
    outputs = torch.zeros(2, 3)
    with pytest.raises(ConfigError, match="take hinton"):
        training_task(TASK).soft_loss(config.DistillLoss.DIST, outputs, outputs, outputs, 1.0)
