from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from edgetl.errors import ModelError, StorageError, WeightsError
from edgetl.models import backbones, checkpoint
from edgetl.models.architecture import Architecture, describe
from edgetl.models.backbones import create

from .test_architecture import halve

NAME = "mobilenetv3_small_050"


@pytest.fixture(scope="module")
def pruned() -> tuple[torch.nn.Module, Architecture]:
    model = halve(create(NAME, 3, "none").to(memory_format=torch.channels_last))
    return model, describe(model, NAME, 3)


@pytest.fixture
def path(pruned: tuple[torch.nn.Module, Architecture], tmp_path: Path) -> Path:
    path = tmp_path / "ünder scores" / "m.safetensors"
    checkpoint.save(*pruned, path, {"note": "kept"})
    return path


def rewrite(path: Path, *, metadata: dict[str, str] | None = None, drop: str = "", shape: str = "") -> None:
    tensors, old = load_file(path), checkpoint.read_metadata(path)
    tensors.pop(drop, None)
    if shape:
        tensors[shape] = torch.zeros(2, 2)
    save_file(tensors, path, {**old, **(metadata or {})})


def test_a_pruned_network_comes_back(pruned: tuple[torch.nn.Module, Architecture], path: Path) -> None:
    model, architecture = checkpoint.load(path)
    assert architecture == pruned[1]
    assert not model.training
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in pruned[0].state_dict().items())
    assert checkpoint.read_metadata(path)["note"] == "kept"


def test_the_file_is_plain_safetensors(path: Path) -> None:
    with safe_open(path, framework="np") as file:
        assert file.get_tensor("classifier.weight").shape[0] == 3
        architecture = json.loads(file.metadata()["edgetl.architecture"])
    assert architecture["backbone"] == NAME
    assert architecture["layers"]["conv_stem"]["out_channels"] == 8


def test_equal_networks_give_equal_files(pruned: tuple[torch.nn.Module, Architecture], path: Path) -> None:
    for number in range(5):
        again = path.with_name(f"{number}.safetensors")
        checkpoint.save(*pruned, again, {"note": "kept"})
        assert again.read_bytes() == path.read_bytes()
    load_file(path)


def test_a_newer_schema_is_refused(path: Path) -> None:
    rewrite(path, metadata={"edgetl.schema": "2"})
    with pytest.raises(WeightsError, match="has checkpoint schema 2; this version reads up to 1"):
        checkpoint.load(path)


def test_missing_and_unexpected_tensors_are_named(path: Path) -> None:
    rewrite(path, drop="bn1.weight", shape="extra")
    with pytest.raises(
        WeightsError, match=r"1 tensors are missing \(bn1.weight\); 1 are unexpected \(extra\)"
    ):
        checkpoint.load(path)


def test_a_wrong_shape_is_named(path: Path) -> None:
    rewrite(path, shape="conv_stem.weight")
    with pytest.raises(
        WeightsError, match=r"conv_stem.weight has the shape \(2, 2\), but the architecture says"
    ):
        checkpoint.load(path)


def test_a_wrong_shape_of_an_undescribed_layer_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    model = create(NAME, 3, "none")
    checkpoint.save(model, describe(model, NAME, 3), path)
    rewrite(path, shape="classifier.weight")
    with pytest.raises(WeightsError, match=r"classifier.weight has the shape \(2, 2\), expected \(3, 1024\)"):
        checkpoint.load(path)


@pytest.mark.parametrize(
    "layers", ['{"a": {"b": -1}}', '{"a": {"b": [1.5]}}', '{"a": 3}', '{"a": {"b": true}}']
)
def test_a_broken_architecture_is_refused(path: Path, layers: str) -> None:
    text = f'{{"backbone": "{NAME}", "num_classes": 3, "layers": {layers}}}'
    rewrite(path, metadata={"edgetl.architecture": text})
    with pytest.raises(WeightsError, match=r"The architecture in .* cannot be read"):
        checkpoint.load(path)


def test_truncated_and_foreign_files_are_refused(path: Path) -> None:
    whole = path.read_bytes()
    for content in (whole[:-7], whole[:5], b"", b"PK\x03\x04 nothing"):
        path.write_bytes(content)
        with pytest.raises(
            WeightsError, match=r"m\.safetensors is (cut short|neither|empty|not a checkpoint)"
        ):
            checkpoint.load(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="holds tensors but no architecture"):
        checkpoint.load(path)
    with pytest.raises(WeightsError, match="No checkpoint at"):
        checkpoint.load(path.parent / "none.safetensors")


def test_a_full_disk_keeps_the_old_file(
    pruned: tuple[torch.nn.Module, Architecture], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()

    def full(self: Path, content: bytes) -> int:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="no space left on the device"):
        checkpoint.save(*pruned, path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_224", "levit_128s", "efficientformerv2_s0"])
def test_a_network_that_takes_one_size_is_built_for_the_size_asked_and_read_back(
    tmp_path: Path, backbone: str
) -> None:
    model = backbones.create(backbone, 3, "none", size=96).eval()
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    checkpoint.save(model, describe(model, backbone, 3, 96), tmp_path / "net.safetensors")
    again, architecture = checkpoint.load(tmp_path / "net.safetensors")
    assert (architecture.size, dict(architecture.layers)) == (96, {})
    assert torch.equal(again(images), model(images))
    assert backbones.built_for(backbone, 224) is None


def test_a_network_that_cannot_be_built_for_a_size_says_which_it_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise TypeError("unexpected keyword argument 'img_size'")

    monkeypatch.setattr("timm.create_model", refuse)
    stated = (
        r"cannot be built for images of 96 pixels per side \(.*\)\. It takes 224: set preprocess\.size = 224"
    )
    with pytest.raises(ModelError, match=stated):
        backbones.create("vit_tiny_patch16_224", 3, "none", size=96)
