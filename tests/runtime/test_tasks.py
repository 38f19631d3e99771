"""A bundle of every task goes the whole way on the device: open, run, predict, verify, score, gate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgetl
from edgetl.bundle.archive import open_bundle
from edgetl.bundle.confidence import ConfidenceSource
from edgetl.bundle.drift import DriftSource
from edgetl.bundle.golden import GoldenSet
from edgetl.bundle.pack import pack
from edgetl.errors import BaselineError, ConfigError, DataError, ModelError
from edgetl.gate.compare import refuse_other_task
from edgetl.inputs.image import load_pixels
from edgetl.report.page.answers import _detail
from edgetl.report.terminal import device, run
from edgetl.runtime.engines.base import run_pixels
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from edgetl.runtime.evaluate import LabelledImage, choose_images, evaluate
from edgetl.runtime.inputs import ImageResult, open_source, predict_all
from edgetl.runtime.session import load
from edgetl.tasks.all import detail_of
from edgetl.tasks.base import Classification, HeadSpec, MultiHead, MultiLabel, ScoreLimits, TaskSpec
from tests.bundles import SPEC, contents, picture
from tests.report.test_terminal import shown

COLOURS = Classification(labels=("red", "green", "blue"))
MARKS = MultiLabel(labels=("dry", "cut"), thresholds=(0.4, 0.6))
TASKS: tuple[TaskSpec, ...] = (COLOURS, MARKS, MultiHead(heads={"colour": COLOURS, "marks": MARKS}))
TRUTHS = {
    "classification": (0, 1, 2),
    "multilabel": ([0], [], [0, 1]),
    "multihead": ({"colour": 1, "marks": [0]}, {"colour": 0}, {"marks": []}),
}


def _model(path: Path, task: TaskSpec, seed: int = 0) -> None:
    """Linear heads on the mean colour."""
    from edgetl.tasks.all import task_of

    generator, outputs = np.random.default_rng(seed), task_of(task).outputs
    weights = {spec.name: generator.normal(size=(3, spec.shape[1])).astype(np.float32) for spec in outputs}
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        *(helper.make_node("MatMul", ["flat", f"w_{name}"], [name]) for name in weights),
    ]
    graph = helper.make_graph(
        nodes,
        "heads",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, SPEC.size, SPEC.size])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", w.shape[1]])
            for name, w in weights.items()
        ],
        [numpy_helper.from_array(w, f"w_{name}") for name, w in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), str(path))


def linear_bundle(
    folder: Path,
    task: TaskSpec,
    *,
    model_for: TaskSpec | None = None,
    confidence: ConfidenceSource | None = None,
    drift: DriftSource | None = None,
    seed: int = 0,
) -> Path:
    """A bundle; its model, whose weights are drawn from `seed`, is another task's where one is named."""
    model, parts = folder / "model.onnx", contents(folder)
    _model(model, task, seed)
    encoded = tuple(picture(i) for i in range(3))
    pixels = np.stack([load_pixels(content, SPEC) for content in encoded])
    with OnnxBackend(model, threads=1) as backend:
        golden = GoldenSet(images=encoded, pixels=pixels, outputs={"fp32": run_pixels(backend, pixels, SPEC)})
    if model_for is not None:
        _model(model, model_for)
    variant = replace(parts.variants[0], model=model, confidence=confidence)
    out = folder / "b.edgetl"
    pack(replace(parts, task=task, variants=[variant], golden=golden, drift=drift), out)
    return out


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_a_bundle_goes_the_whole_way(task: TaskSpec, tmp_path: Path) -> None:
    out = linear_bundle(tmp_path, task)
    assert open_bundle(out).manifest.task == task
    samples = []
    for at, truth in enumerate(TRUTHS[task.kind]):
        path = tmp_path / f"{at}.png"
        path.write_bytes(picture(at))
        samples.append(LabelledImage(path, truth))
    with load(out, threads=1) as session:
        outputs = session.run(np.zeros((2, 3, SPEC.size, SPEC.size), np.float32))
        assert {name: array.shape for name, array in outputs.items()} == {
            spec.name: (2, spec.shape[1]) for spec in session.task.outputs
        }
        one = session.predict(picture())
        many = session.predict([picture(), picture(1)])
        assert many[0] == one
        assert session.verify().passed
        found = evaluate(session, samples)
        answers = session.task.decide(session.run(np.stack([session.pixels(s.path) for s in samples])))
        truths = session.task.read(TRUTHS[task.kind])
        checks = session.task.judge(truths, answers, answers, ScoreLimits(max_drop=0.1, same_model=True))
    assert checks
    assert all(check.passed for check in checks)
    assert found.images == 3
    assert one.text
    assert isinstance(one, edgetl.Prediction)
    assert _detail(detail_of(found))
    assert "images" in shown(run.evaluation, found)
    assert "a.png" in shown(device.predictions, [ImageResult(path="a.png", prediction=one)])


def test_bundles_of_different_tasks_are_not_compared() -> None:
    for first in TASKS:
        for second in TASKS:
            if first is second:
                refuse_other_task(first, second)
                continue
            with pytest.raises(BaselineError, match=f"of the task {first.kind}, the bundle of {second.kind}"):
                refuse_other_task(first, second)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (
            MultiLabel(labels=COLOURS.labels),
            "task classification in the head colour, the bundle of multilabel:",
        ),
        (
            Classification(labels=(*COLOURS.labels, "grey")),
            "classes are not the baseline's: missing none, new colour/grey",
        ),
        (Classification(labels=COLOURS.labels[:2]), "missing colour/blue, new none"),
    ],
    ids=["kind", "class of one", "class of the other"],
)
def test_bundles_whose_heads_differ_are_not_compared(head: HeadSpec, message: str) -> None:
    with pytest.raises(BaselineError, match=message):
        refuse_other_task(TASKS[2], MultiHead(heads={"colour": head, "marks": MARKS}))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_a_model_whose_outputs_are_another_tasks_is_refused(task: TaskSpec, tmp_path: Path) -> None:
    for other in TASKS:
        if other is task:
            continue
        out = linear_bundle(tmp_path, task, model_for=other)
        with pytest.raises(
            ModelError, match=rf"variant fp32 gives .*the manifest's task, {task.kind}, asks for"
        ):
            load(out, threads=1)


def test_a_table_with_several_classes_an_image_is_read_by_the_bundles_task(tmp_path: Path) -> None:
    rows = ["path,labels,split"]
    for at, label in enumerate(("dry|cut", "dry", "cut")):
        (tmp_path / f"{at}.png").write_bytes(picture(at))
        rows.append(f"{at}.png,{label},test")
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(rows) + "\n")
    out = linear_bundle(tmp_path, MARKS)
    images = choose_images(table, [open_bundle(out)])
    assert [sample.label for sample in images.samples] == [[0, 1], [0], [1]]
    table.write_text("path,labels,split\n0.png,dry|rusty,test\n")
    with pytest.raises(DataError, match="has the class 'rusty', which the bundle does not know"):
        choose_images(table, [open_bundle(out)])
    heads = open_bundle(linear_bundle(tmp_path, TASKS[2]))
    with pytest.raises(DataError, match="lacks the columns colour and marks"):
        choose_images(table, [heads])
    table.write_text("path,marks,colour,split\n0.png,dry|cut,green,test\n1.png,,red,test\n2.png,cut,,test\n")
    assert [sample.label for sample in choose_images(table, [heads]).samples] == [
        {"colour": 1, "marks": [0, 1]},
        {"colour": 0},
        {"marks": [1]},
    ]
    table.write_text("path,marks,colour,split\n0.png,dry,grene,test\n")
    with pytest.raises(DataError, match=r"has the class 'colour/grene'.*Did you mean 'colour/green'"):
        choose_images(table, [heads])


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_a_bundle_without_a_tree_cannot_climb(task: TaskSpec, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(picture())
    with load(linear_bundle(tmp_path, task), threads=1) as session:
        sentence = r"^sure: got 0\.8, but .*b\.edgetl knows no tree .* train it with labels\.tree = FILE"
        with pytest.raises(ConfigError, match=sentence):
            session.predict(picture(), sure=0.8)
        with pytest.raises(ConfigError, match=sentence):
            next(predict_all(session, open_source([str(path)]), sure=0.8))
