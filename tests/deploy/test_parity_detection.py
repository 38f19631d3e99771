"""The parity report on a detector: each fault is put in on purpose, and must be named where it stands."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from edgetl.deploy import parity
from edgetl.export.onnx import DECODE, to_onnx
from edgetl.inputs.image import Resize
from edgetl.records.parity import ParityRecord
from tests.squares import SPEC, TASK, model, write_bundle, write_set

PLACES = 12 * 12 + 6 * 6 + 3 * 3
"""Of the three strides at 96 pixels."""


class Squares(nn.Module):
    """The network of `tests.squares` in torch; at the two larger strides it finds nothing."""

    def __init__(self) -> None:
        super().__init__()
        tensors = {t.name: numpy_helper.to_array(t).copy() for t in model().graph.initializer}
        weights = torch.from_numpy(tensors["weights"])
        self.conv = nn.Conv2d(3, len(weights), weights.shape[2:], stride=8, padding=12)  # type: ignore[arg-type]
        self.conv.load_state_dict({"weight": weights, "bias": torch.from_numpy(tensors["bias"])})
        nothing = torch.zeros(1, PLACES - 144, len(weights))
        nothing[..., 4:] = -9
        self.register_buffer("nothing", nothing)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.conv(images).flatten(2).transpose(1, 2)
        return torch.cat([maps, maps[:, : PLACES - 144] * 0 + self.nothing], dim=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("set"), 12)


@pytest.fixture(scope="module")
def exported() -> onnx.ModelProto:
    return to_onnx(Squares(), task=TASK, spec=SPEC, opset=17)


def altered(sound: onnx.ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> onnx.ModelProto:
    """A copy with other constants."""
    copy = onnx.ModelProto()
    copy.CopyFrom(sound)
    [tensor] = [t for t in copy.graph.initializer if t.name == name]
    values = change(numpy_helper.to_array(tensor)).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), name))
    return copy


def scaled(sound: onnx.ModelProto) -> onnx.ModelProto:
    return altered(sound, f"{DECODE}strides", lambda strides: strides * 1.1)


def swapped(sound: onnx.ModelProto) -> onnx.ModelProto:
    return altered(sound, f"{DECODE}centres", lambda centres: centres[..., ::-1])


def broken(record: ParityRecord) -> list[str]:
    return [step.name for step in record.steps if step.holds is False]


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for the network's checkpoint."""
    monkeypatch.setattr("edgetl.models.checkpoint.load", lambda _: (Squares().eval(), None))
    return tmp_path / "student.safetensors"


def test_a_sound_detector_agrees_from_torch_to_the_last_variant(
    exported: onnx.ModelProto, data: Path, tmp_path: Path, checkpoint: Path
) -> None:
    bundle = write_bundle(tmp_path / "b.edgetl", {"fp32": exported, "fp32-again": exported})
    record = parity.run(bundle, data, checkpoint=checkpoint)
    assert [step.name for step in record.steps] == ["torch", "onnx", "fp32", "fp32-again"]
    assert broken(record) == []
    assert (record.images, record.metric) == (12, "map")
    assert all(step.score is not None and step.score > 0.7 for step in record.steps)
    assert all(step.same == 1.0 for step in record.steps[1:])


@pytest.mark.parametrize("fault", [scaled, swapped])
def test_a_decode_that_is_wrong_in_a_variant(
    exported: onnx.ModelProto, data: Path, tmp_path: Path, fault: Callable[[onnx.ModelProto], onnx.ModelProto]
) -> None:
    bundle = write_bundle(tmp_path / "b.edgetl", {"fp32": exported, "fp32-other": fault(exported)})
    record = parity.run(bundle, data)
    assert broken(record) == ["fp32-other"]
    assert record.divergence is not None
    assert record.divergence.layer.startswith(DECODE)


@pytest.mark.parametrize("fault", [scaled, swapped])
def test_a_decode_that_is_wrong_in_the_export(
    exported: onnx.ModelProto,
    data: Path,
    tmp_path: Path,
    checkpoint: Path,
    fault: Callable[[onnx.ModelProto], onnx.ModelProto],
) -> None:
    bundle = write_bundle(tmp_path / "b.edgetl", {"fp32": fault(exported)})
    record = parity.run(bundle, data, checkpoint=checkpoint)
    assert broken(record) == ["onnx"]
    assert record.divergence is not None
    assert record.divergence.layer.startswith(DECODE)


@pytest.mark.parametrize("resize", [Resize.SQUASH, Resize.CROP])
def test_a_padding_that_is_forgotten_on_the_device(data: Path, tmp_path: Path, resize: Resize) -> None:
    # The graph says that it was exported for padded pictures.
    spec = dataclasses.replace(SPEC, resize=resize, crop_fraction=1.0)
    bundle = write_bundle(tmp_path / "b.edgetl", {"fp32": model()}, spec=spec)
    record = parity.run(bundle, data)
    assert record.first_outside == "fp32"
    assert "the manifest's resize" in record.sentence
    first, second = (step.score for step in record.steps)
    assert first is not None
    assert second is not None
    assert first > 0.7 > second
    assert record.steps[1].change == second - first


def test_a_decode_in_eight_bits(data: Path, tmp_path: Path) -> None:
    models = {"fp32": model(), "int8-cpu": model(quantized_decode=True)}
    record = parity.run(write_bundle(tmp_path / "b.edgetl", models), data)
    assert broken(record) == ["int8-cpu"]
    assert "its mean error is" in record.sentence
    assert record.divergence is not None
    assert "decode/" in record.divergence.tensor


def test_labels_by_head_have_an_order(tmp_path: Path) -> None:
    """Their truths are objects, which cannot be compared."""
    from edgetl.tasks.base import Classification, MultiHead
    from tests.bundles import picture
    from tests.runtime.test_tasks import linear_bundle

    task = MultiHead(heads={"colour": Classification(labels=("red", "green"))})
    bundle = linear_bundle(tmp_path, task)
    lines = ["path,colour"]
    for at, colour in enumerate(("green", "red", "green")):
        (tmp_path / f"{at}.png").write_bytes(picture(at))
        lines.append(f"{at}.png,{colour}")
    (tmp_path / "set.csv").write_text("\n".join(lines))
    assert parity.run(bundle, tmp_path / "set.csv", limit=2).images == 2
