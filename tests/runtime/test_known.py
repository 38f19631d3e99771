"""Why a bundle knows no images, in one sentence with the remedy."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from edgetl.bundle.archive import open_bundle
from edgetl.bundle.manifest import ModelFormat
from edgetl.bundle.pack import pack
from edgetl.errors import BundleError
from edgetl.runtime.known import known_images
from tests.bundles import SPEC, contents
from tests.onnx_models import colours
from tests.references import with_references
from tests.squares import write_bundle


def test_an_older_bundle_is_to_be_made_again(tmp_path: Path) -> None:
    pack(contents(tmp_path), tmp_path / "b.edgetl")
    bundle = open_bundle(tmp_path / "b.edgetl")
    with pytest.raises(
        BundleError,
        match=r"^unknown: .*b\.edgetl was made before bundles kept what known images look like to the model, or its"
        r" variant fp32 was added to it; make it again with: edgetl run RECIPE$",
    ):
        known_images(bundle, bundle.variant("fp32"), "unknown")


def test_a_network_without_features_says_what_stands_in_the_way(tmp_path: Path) -> None:
    parts = contents(tmp_path)
    sources = [replace(one, model=colours(SPEC.size, hidden=True)) for one in parts.variants]
    pack(replace(parts, variants=sources), tmp_path / "b.edgetl")
    bundle = open_bundle(tmp_path / "b.edgetl")
    with pytest.raises(BundleError, match=r"^drift: .* keeps no known images. .*Relu stands between"):
        known_images(bundle, bundle.variant("fp32"), "drift")


def test_a_tflite_file_names_the_variants_that_can(tmp_path: Path) -> None:
    pack(with_references(contents(tmp_path)), tmp_path / "b.edgetl")
    bundle = open_bundle(tmp_path / "b.edgetl")
    lite = replace(bundle.variant("fp32"), name="lite", format=ModelFormat.TFLITE, reference=None)
    wanted = "variant lite is a .tflite file, which does not show its features; choose another variant: fp32, int8-cpu"
    with pytest.raises(BundleError, match=re.escape(wanted)):
        known_images(bundle, lite, "unknown")


def test_boxes_have_none(tmp_path: Path) -> None:
    bundle = open_bundle(write_bundle(tmp_path / "boxes.edgetl"))
    with pytest.raises(BundleError, match="finds boxes, and known images are kept for labels alone"):
        known_images(bundle, bundle.variant(), "unknown")
