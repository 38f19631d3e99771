"""A bundle carries temperatures, and the conformities of its validation images in a small file of their own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgetl.bundle.archive import Bundle, open_bundle
from edgetl.bundle.confidence import ConfidenceSource, conformities, encode, source
from edgetl.bundle.manifest import Manifest, problems
from edgetl.bundle.manifest import decode as decode_manifest
from edgetl.bundle.manifest import encode as encode_manifest
from edgetl.bundle.pack import add_variant, pack
from edgetl.errors import BundleError, BundleIntegrityError
from edgetl.tasks.conformal import MOST, conformity
from tests.bundles import contents

SURE = ConfidenceSource(
    temperatures={"logits": 1.5}, conformities={"logits": conformity(np.linspace(0.0, 1.0, 30))}
)


def packed(folder: Path, sure: ConfidenceSource | None = SURE) -> Bundle:
    parts = contents(folder)
    first, second = parts.variants
    pack(replace(parts, variants=[replace(first, confidence=sure), second]), folder / "b.edgetl")
    return open_bundle(folder / "b.edgetl")


def test_what_is_packed_is_read(tmp_path: Path) -> None:
    bundle = packed(tmp_path)
    bundle.verify()
    first, second = bundle.manifest.variants
    assert first.temperatures == {"logits": 1.5}
    assert second.temperatures == {}
    found = conformities(bundle, first)
    assert found["logits"].images == 30
    assert (found["logits"].ranked == SURE.conformities["logits"].ranked).all()
    assert "confidence/fp32.npz" in {member.file for member in bundle.manifest.members()}
    again = source(bundle, first)
    assert again is not None
    assert again.temperatures == SURE.temperatures
    assert source(bundle, second) is None


def test_a_bundle_without_is_as_it_was(tmp_path: Path) -> None:
    bundle = packed(tmp_path, None)
    assert b"confidence" not in bundle.manifest_bytes
    with pytest.raises(
        BundleError,
        match=r"^coverage: .*b\.edgetl was made before bundles knew how sure their answers are, or its variant fp32 was"
        r" added to it; make it again with: edgetl run RECIPE$",
    ):
        conformities(bundle, bundle.variant("fp32"))


def test_many_images_take_few_bytes() -> None:
    many = conformity(np.random.default_rng(0).random(60_000))
    assert len(encode({"logits": many})) < 4 * MOST + 500
    assert encode({"logits": many}) == encode({"logits": many})


def test_a_variant_that_is_added_leaves_the_others_sure(tmp_path: Path) -> None:
    bundle = packed(tmp_path)
    parts = contents(tmp_path)
    own = replace(parts.variants[0], name="fp16", precision="fp16", confidence=SURE)
    more = add_variant(bundle, own, outputs=parts.golden.outputs["fp32"], out=tmp_path / "more.edgetl")
    assert [v.temperatures for v in more.manifest.variants] == [{"logits": 1.5}, {}, {"logits": 1.5}]
    more.verify()
    plain = add_variant(more, replace(own, confidence=None), outputs=parts.golden.outputs["fp32"])
    assert [v.temperatures for v in plain.manifest.variants] == [{"logits": 1.5}, {}, {}]
    plain.verify()


def _changed(manifest: Manifest, temperatures: object) -> bytes:
    values = json.loads(encode_manifest(manifest))
    values["variants"][0]["confidence"]["temperatures"] = temperatures
    return json.dumps(values).encode()


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_is_above_zero(tmp_path: Path, temperature: float) -> None:
    content = _changed(packed(tmp_path).manifest, {"logits": temperature})
    with pytest.raises(
        BundleIntegrityError,
        match=rf"x has a broken .*: a temperature is {temperature:g}, expected a number above 0",
    ):
        decode_manifest(content, "x")


def test_temperatures_are_the_outputs(tmp_path: Path) -> None:
    manifest = packed(tmp_path).manifest
    assert problems(manifest) == []
    for other in ({}, {"colour": 1.0}, {"logits": 1.0, "colour": 1.0}):
        with pytest.raises(
            BundleIntegrityError, match="its temperatures are not those of its task's outputs"
        ):
            decode_manifest(_changed(manifest, other), "x")


@pytest.mark.parametrize(
    ("ranked", "message"),
    [
        (np.linspace(0, 1, 30), "logits does not fall"),
        (np.linspace(1, 0, 31), "logits has 31 conformities of 30 images"),
        (np.zeros(0), "logits has 0 conformities of 30 images"),
        (np.full(3, np.nan), r"logits is \(3,\) float32, expected finite"),
        (np.zeros((2, 2)), r"logits is \(2, 2\) float32, expected finite"),
    ],
)
def test_other_conformities_are_refused(tmp_path: Path, ranked: np.ndarray, message: str) -> None:
    broken = replace(SURE.conformities["logits"], ranked=ranked.astype(np.float32))
    bundle = packed(tmp_path, replace(SURE, conformities={"logits": broken}))
    with pytest.raises(BundleIntegrityError, match=message):
        conformities(bundle, bundle.variant("fp32"))
