"""Errors that no other test meets, each by the smallest call that makes it: its class and its words."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgetl import errors

Refusal = tuple[type[errors.EdgetlError], str, Callable[[Path], Any]]


def _written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _compare_paired(_: Path) -> None:
    from edgetl.statistics import compare_paired

    compare_paired(np.ones(3), np.ones(2))


def _judge_nothing(_: Path) -> None:
    from edgetl.tasks.classification.judge import judge

    judge(np.array([], int), np.array([], int), np.array([], int), ("a", "b"))


def _confusion(_: Path) -> None:
    from edgetl.tasks.classification.scores import confusion

    confusion(np.zeros(3, int), np.zeros(2, int), 2)


def _no_columns(_: Path) -> None:
    from edgetl.tasks.classification.scores import _checked

    _checked(np.zeros(2, int), np.zeros((2, 0)))


def _not_a_number(_: Path) -> None:
    from edgetl.tasks.classification.scores import _checked

    _checked(np.zeros(2, int), np.array([[0.0, np.nan], [0.0, 1.0]]))


def _truth(label: int) -> Any:
    from edgetl.tasks.detection.found import Truth

    return Truth(boxes=np.array([[0.0, 0.0, 9.0, 9.0]]), labels=np.array([label]))


def _boxes_of_fewer(_: Path) -> None:
    from edgetl.tasks.detection.scores import match

    match([_truth(0)], [], 0)


def _box_of_no_class(_: Path) -> None:
    from edgetl.tasks.detection.scores import evaluate

    evaluate([_truth(7)], [], ("a", "b"))


def _candidates(_: Path) -> None:
    from edgetl.tasks.all import task_of
    from tests.squares import TASK

    task_of(TASK).decide(
        {"boxes": np.zeros((1, 4, 4), np.float32), "scores": np.zeros((1, 3, 3), np.float32)}
    )


def _side_by_side(_: Path) -> None:
    from edgetl.tasks.all import task_of
    from edgetl.tasks.base import widths
    from tests.squares import TASK

    widths(task_of(TASK))


def _logme(_: Path) -> None:
    from edgetl.transfer.logme import logme

    logme(np.ones((3, 2)), np.ones((2, 2)))


def _nothing_learns(_: Path) -> None:
    from torch import nn

    from edgetl.train.freezing import freeze

    freeze(nn.Identity(), None)


def _graph_in_a_circle(_: Path) -> None:
    from edgetl.export.graphs import sort_nodes

    nodes = [helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Relu", ["b"], ["a"])]
    sort_nodes(helper.make_graph(nodes, "circle", [], []))


def _graph_that_does_not_load(_: Path) -> None:
    from edgetl.export.graphs import Probe

    value = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 3])
    graph = helper.make_graph([helper.make_node("NoSuchThing", ["images"], ["out"])], "g", [value], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    Probe(model, ["out"])


def _no_output(_: Path) -> None:
    from edgetl.export.parity import compare
    from edgetl.tasks.all import task_of
    from edgetl.tasks.base import Classification

    compare(
        task_of(Classification(labels=("a", "b"))), {"logits": np.zeros((1, 2))}, {"other": np.zeros((1, 2))}
    )


def _other_shapes(_: Path) -> None:
    from edgetl.export.parity import compare
    from edgetl.tasks.all import task_of
    from edgetl.tasks.base import Classification

    compare(
        task_of(Classification(labels=("a", "b"))), {"logits": np.zeros((1, 2))}, {"logits": np.zeros((2, 2))}
    )


def _outside_data(_: Path) -> None:
    from edgetl.runtime.wire import _tensor

    external = TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL
    )
    _tensor(memoryview(external.SerializeToString()), "w")


def _output_of_integers(_: Path) -> None:
    from edgetl.runtime.engines.base import check_signature
    from edgetl.tasks.base import TensorSpec

    images = TensorSpec(name="images", dtype="float32", shape=(None, 3, 8, 8))
    check_signature("m.onnx", images, [TensorSpec(name="out", dtype="int64", shape=(None, 2))], baked=False)


def _not_json(folder: Path) -> None:
    from edgetl.data.boxes.entries import read_json

    read_json(_written(folder, "a.json", "{"))


def _not_coco(folder: Path) -> None:
    from edgetl.data.boxes.coco import _file

    _file(_written(folder, "a.json", "{}"), None)


def _ids_not_coco(folder: Path) -> None:
    from edgetl.runtime.coco import Ids

    Ids(_written(folder, "a.json", "{}"), ("a",))


def _no_pictures(folder: Path) -> None:
    from edgetl.data.boxes.entries import together

    together(folder, ("a",), [])


def _not_xml(folder: Path) -> None:
    from edgetl.data.boxes.voc import _file

    _file(_written(folder, "a.xml", "<annotation>"))


def _not_voc(folder: Path) -> None:
    from edgetl.data.boxes.voc import _file

    _file(_written(folder, "a.xml", "<other></other>"))


def _not_yaml(folder: Path) -> None:
    from edgetl.data.boxes.yolo import _yaml

    _yaml(_written(folder, "a.yaml", "a: [1"))


def _not_yolo(folder: Path) -> None:
    from edgetl.data.boxes.yolo import _yaml

    _yaml(_written(folder, "a.yaml", "- 1"))


def _no_names(folder: Path) -> None:
    from edgetl.data.boxes.yolo import _names

    _names(folder / "a.yaml", None)


def _one_name_twice(folder: Path) -> None:
    from edgetl.data.boxes.yolo import _names

    _names(folder / "a.yaml", ["cat", "cat"])


def _a_folder_for_heads(folder: Path) -> None:
    from edgetl.data.sources import FoundImages
    from edgetl.tasks.labelling import HeadLabels, OneLabel

    FoundImages(root=folder, entries=()).labelled(
        HeadLabels(heads=(("colour", OneLabel()), ("size", OneLabel())))
    )


def _wrong_lines(folder: Path) -> None:
    from edgetl.data.sources import find
    from edgetl.tasks.labelling import ONE_LABEL

    find(str(_written(folder, "a.csv", "path,label,split\nno.png,cat,other\n")), ONE_LABEL)


def _unreadable_weights(folder: Path) -> None:
    from edgetl.models import weights

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "recognise", refuse)
        weights.read_state(_written(folder, "a.pth", b"x"))


def _side_of_a_detector(_: Path) -> None:
    from edgetl.models.detector import check_side

    check_side(100, "preprocess.size")


def _nameless_variant(folder: Path) -> None:
    from edgetl.bundle.pack import VariantSource, _variant

    _variant(VariantSource(name="a/b", precision="fp32", target="any", model=b"x"), {})


def _bytes_that_are_no_text(_: Path) -> None:
    from edgetl.config.writing import as_toml

    as_toml("photos-\udcff")


def _elsewhere_pinned(_: Path) -> None:
    from edgetl.bench import pin

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pin.sys, "platform", "darwin")
        with pin.pinned([0]):
            pass


def _keys_in_a_folder(_: Path) -> None:
    from edgetl.bundle.signature import make_keys

    make_keys(Path())


def _not_signed(folder: Path) -> None:
    from edgetl.bundle.archive import open_bundle
    from edgetl.bundle.pack import pack
    from edgetl.bundle.signature import make_keys, require_signature
    from tests.bundles import contents

    pytest.importorskip("cryptography")
    make_keys(folder / "key.pem")
    pack(contents(folder), folder / "a.edgetl")
    require_signature(open_bundle(folder / "a.edgetl"), folder / "key.pem.pub")


def _another_kind_of_key(folder: Path) -> None:
    from edgetl.bundle.signature import _public_key

    pytest.importorskip("cryptography")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    encoded = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    _public_key(_written(folder, "key.pub", encoded))


def _name_and_forget(folder: Path) -> None:
    from edgetl.cli.enrol import enrol

    enrol(folder / "a.edgetl", label="", forget=None)


def _enrolled_before(folder: Path) -> None:
    from edgetl.cli.enrol import _beside

    _written(folder, "a-enrolled.edgetl", "")
    _beside(folder / "a.edgetl")


def _too_many_pixels(_: Path) -> None:
    from edgetl.inputs.image import _check_size

    _check_size((100_000, 100_000), "a.png")


def _too_many_bytes(_: Path) -> None:
    from edgetl.inputs.image import _too_long

    raise _too_long("a.png")


def _report_of_another_version(folder: Path) -> None:
    from edgetl.report.stored import load_report

    _written(folder, "report.json", "{}")
    load_report(folder)


def _not_on_labels(_: Path) -> None:
    from edgetl.runtime.session import _with_threshold
    from edgetl.tasks.base import Classification

    _with_threshold(Classification(labels=("a", "b")), 0.5)


def _work_for_time(_: Path) -> None:
    from types import SimpleNamespace

    from edgetl.config import MacsTarget
    from edgetl.prune.timed import TimedTarget

    TimedTarget._target(SimpleNamespace(config=SimpleNamespace(target=MacsTarget())), 1.0)


def _closed_input(_: Path) -> None:
    from edgetl.runtime import inputs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs.sys, "stdin", None)
        inputs._standard_input(["-"])


def _no_backbone_left(_: Path) -> None:
    from edgetl.records.transfer import Skipped
    from edgetl.transfer.stage import _nothing_left

    raise _nothing_left([Skipped(name="resnet18 at 32 px", reason="It is too small.")])


def _slice_backwards(_: Path) -> None:
    import torch

    from edgetl.quantize.replay import _slice

    numbers = (torch.tensor([at]) for at in (0, 1, 0, -1))
    _slice([torch.zeros(1, 3), *numbers], {})


def _pad_by_reflection(_: Path) -> None:
    import torch

    from edgetl.quantize.replay import _pad

    _pad([torch.zeros(1, 3)], {"mode": b"reflect"})


def _ids_of_labels(folder: Path) -> None:
    from types import SimpleNamespace

    from edgetl.cli.predict import _coco_ids
    from edgetl.tasks.base import Classification

    spec = Classification(labels=("a", "b"))
    _coco_ids(folder / "a.json", SimpleNamespace(task=SimpleNamespace(spec=spec)))


def _layout_of_another_version(folder: Path) -> None:
    from edgetl.bundle.layout import bundle_file

    _written(folder, "oci-layout", '{"imageLayoutVersion": "9"}')
    bundle_file(folder)


def _blended_boxes(_: Path) -> None:
    import torch

    from edgetl.train.tasks.detection import DetectionTraining

    DetectionTraining.shares(object.__new__(DetectionTraining), torch.zeros(1))


def _named_past_the_rules(_: Path) -> None:
    from edgetl.runtime.enrol import _check_name

    _check_name("a\nb", ("a",))


def _sounds_of_images(_: Path) -> None:
    from edgetl.inputs.spec import PreprocessSpec
    from edgetl.runtime.listening import listening

    listening(PreprocessSpec(size=8), ["microphone:0"])


def _one_model_twice(_: Path) -> None:
    from edgetl.deploy.server.options import named_paths

    named_paths(["a=one.edgetl", "a=two.edgetl"])


def _graph_of_one(folder: Path) -> None:
    from edgetl.config import LabelsConfig
    from edgetl.data.index import DataIndex
    from edgetl.data.relations import related

    path = _written(folder, "graph.csv", "a,b,weight\n")
    related(DataIndex(folder, ("a", "b"), ()), LabelsConfig(graph=str(path)))


def _boxes_by_a_head(_: Path) -> None:
    from edgetl.config import Strategy, TrainConfig
    from edgetl.tasks.base import Detection
    from edgetl.train.tasks.detection import DetectionTraining

    DetectionTraining(spec=Detection(labels=("a", "b"))).hard_loss(TrainConfig(strategy=Strategy.HEAD))


def _maps_that_differ(_: Path) -> None:
    import torch

    from edgetl.config import DistillLoss
    from edgetl.tasks.base import Detection
    from edgetl.train.tasks.detection import DetectionTraining

    own, other = torch.zeros(1, 84, 6), torch.zeros(2, 84, 6)
    task = DetectionTraining(spec=Detection(labels=("a", "b")))
    task.soft_loss(DistillLoss.BCKD, own, other, torch.zeros(0), 1.0)


def _no_maps(_: Path) -> None:
    from edgetl.models.detector import create_detector

    create_detector("vit_tiny_patch16_224", 2, "none", seed=0)


def _broken_flac(folder: Path) -> None:
    pytest.importorskip("soundfile")
    from edgetl.inputs.recordings import read_recording

    read_recording(_written(folder, "a.flac", b"fLaC" + bytes(99)))


REFUSALS: tuple[Refusal, ...] = (
    (errors.TensorError, "first (3,) and second (2,): expected (N,) twice, N at least 1.", _compare_paired),
    (errors.TensorError, "truth: no images came.", _judge_nothing),
    (errors.TensorError, "labels (3,) and predictions (2,): expected (N,) twice.", _confusion),
    (errors.TensorError, "scores: no class columns came.", _no_columns),
    (errors.TensorError, "scores: 1 of 2 rows hold NaN.", _not_a_number),
    (errors.TensorError, "found: boxes of 0 images came for 1 images.", _boxes_of_fewer),
    (errors.TensorError, "truths: a class is outside 0..1.", _box_of_no_class),
    (errors.TensorError, "; they must have as many candidates.", _candidates),
    (errors.TensorError, ", expected (N, C) to stand next to other outputs.", _side_by_side),
    (errors.TensorError, "features and labels: got (3, 2) and (2, 2), expected (N, F) and (N, C).", _logme),
    (errors.TrainingError, "No parameter is left to learn.", _nothing_learns),
    (errors.ModelError, "The graph's nodes read each other's results in a circle.", _graph_in_a_circle),
    (errors.ModelError, "ONNX Runtime cannot load the graph: ", _graph_that_does_not_load),
    (errors.ModelError, "The exported graph has no output 'logits'; it has other.", _no_output),
    (errors.ModelError, "logits of shapes (1, 2) and (2, 2) cannot be compared.", _other_shapes),
    (errors.ModelError, "The tensor w stands in another file.", _outside_data),
    (errors.ModelError, "(N, 2) int64, expected (N, ...) float32.", _output_of_integers),
    (errors.DataError, "a.json is not JSON that can be read: ", _not_json),
    (
        errors.DataError,
        "is not COCO's JSON; expected the lists images, annotations and categories.",
        _not_coco,
    ),
    (
        errors.DataError,
        "is not COCO's JSON; expected the lists images, annotations and categories.",
        _ids_not_coco,
    ),
    (errors.DataError, " lists no pictures.", _no_pictures),
    (errors.DataError, "a.xml is not XML that can be read: ", _not_xml),
    (errors.DataError, "is not VOC's XML; its root is 'other', expected 'annotation'.", _not_voc),
    (errors.DataError, "a.yaml is not YAML that can be read: ", _not_yaml),
    (errors.DataError, "is not a YOLO set's YAML; expected names, train and val.", _not_yolo),
    (errors.DataError, "a.yaml lacks names, a list of the classes.", _no_names),
    (errors.DataError, "a.yaml: names holds an empty name, or one twice.", _one_name_twice),
    (
        errors.DataError,
        " is a folder, which cannot label colour and size; give a CSV with their columns.",
        _a_folder_for_heads,
    ),
    (errors.DataError, "a.csv has 1 wrong lines:\n", _wrong_lines),
    (errors.WeightsError, "Cannot read weights from ", _unreadable_weights),
    (
        errors.ConfigError,
        "A detector's input side is a multiple of 32, got 100: set preprocess.size = 96 or 128.",
        _side_of_a_detector,
    ),
    (
        errors.BundleError,
        "A variant cannot be named 'a/b': use letters, digits, dot, dash and underscore.",
        _nameless_variant,
    ),
    (
        errors.ConfigError,
        " has bytes that are not UTF-8, which a recipe cannot hold; rename it, or name a link to it.",
        _bytes_that_are_no_text,
    ),
    (errors.ConfigError, "--pin needs Linux, this is darwin: leave it out.", _elsewhere_pinned),
    (errors.ConfigError, " is a folder; name the file of the private key.", _keys_in_a_folder),
    (errors.BundleIntegrityError, "a.edgetl is not signed, and a signature of ", _not_signed),
    (errors.ConfigError, "key.pub is not an Ed25519 public key.", _another_kind_of_key),
    (
        errors.ConfigError,
        "Give NAME and IMAGES of a class to add, or --forget NAME, and not both.",
        _name_and_forget,
    ),
    (
        errors.ConfigError,
        "is there already; add to that one, or choose another name with -o, which may be its own.",
        _enrolled_before,
    ),
    (
        errors.ImageError,
        "a.png: is 100000x100000 pixels; more than 89 million are refused.",
        _too_many_pixels,
    ),
    (errors.ImageError, "a.png: more than 1 GiB are refused.", _too_many_bytes),
    (
        errors.StorageError,
        "another version of edgetl may have written it. Write it anew with: edgetl run ",
        _report_of_another_version,
    ),
    (
        errors.ConfigError,
        "threshold: got 0.5, but the bundle is of the task classification; it is for boxes alone.",
        _not_on_labels,
    ),
    (errors.DataError, "Standard input is closed: redirect a file to it, or name the image.", _closed_input),
    (
        errors.ConfigError,
        "No backbone can be looked at with these --backbones and --sizes:\n",
        _no_backbone_left,
    ),
    (errors.ModelError, "Recovery cannot run a Slice with a negative step.", _slice_backwards),
    (errors.ModelError, "Recovery cannot run a Pad that reflects or repeats.", _pad_by_reflection),
    (
        errors.ConfigError,
        "--coco is for the boxes of a detector; the bundle is of the task classification.",
        _ids_of_labels,
    ),
    (errors.BundleError, " is an image layout of version '9', expected 1.0.0.", _layout_of_another_version),
    (
        errors.TrainingError,
        'A detector\'s images are not blended; set train.mix = "none".',
        _blended_boxes,
    ),
    (errors.ConfigError, "; give another name.", _named_past_the_rules),
    (
        errors.ConfigError,
        "microphone:0 is for sounds, and the bundle looks at images; leave it out.",
        _sounds_of_images,
    ),
    (errors.ConfigError, "a is given twice; name one of them otherwise: NAME=BUNDLE.", _one_model_twice),
    (
        errors.TrainingError,
        'A detector learns by train.strategy = "full" and train.layer_decay = 1: its new parts first, then all.',
        _boxes_by_a_head,
    ),
    (errors.TensorError, "Student maps (1, 84, 6) and teacher maps (2, 84, 6) differ.", _maps_that_differ),
    (errors.ModelError, " gives maps of strides 16, 16, 16; 8, 16 and 32 are needed.", _no_maps),
    (errors.SoundError, "a.flac: is corrupt or truncated (", _broken_flac),
    (errors.ConfigError, "graph.csv: ", _graph_of_one),
    (errors.ConfigError, 'prune.target is of kind "macs", expected "latency" or "speedup".', _work_for_time),
)


@pytest.mark.parametrize(("kind", "text", "call"), REFUSALS, ids=lambda value: getattr(value, "__name__", ""))
def test_it_says_so(
    kind: type[errors.EdgetlError], text: str, call: Callable[[Path], Any], tmp_path: Path
) -> None:
    with pytest.raises(kind, match=re.escape(text)) as met:
        call(tmp_path)
    assert type(met.value) is kind
