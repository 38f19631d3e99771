"""A bundle carries by which score a variant tells unknown images, and what is normal by it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgetl.bundle.archive import open_bundle
from edgetl.bundle.pack import add_variant, pack
from edgetl.bundle.unknown import UnknownSource, encode, normal, source
from edgetl.errors import BundleError, BundleIntegrityError
from edgetl.records.unknown import ScoreName
from edgetl.tasks.conformal import Conformity, conformity
from tests.bundles import contents

ENERGY = UnknownSource(score=ScoreName.ENERGY, normal=conformity(np.linspace(-5, 5, 30)))


def packed(folder: Path, told: UnknownSource | None = ENERGY) -> Path:
    parts = contents(folder)
    first, second = parts.variants
    pack(replace(parts, variants=[replace(first, unknown=told), second]), folder / "b.edgetl")
    return folder / "b.edgetl"


def test_what_is_packed_is_read(tmp_path: Path) -> None:
    bundle = open_bundle(packed(tmp_path))
    bundle.verify()
    first, second = bundle.manifest.variants
    assert first.unknown is not None
    assert (first.unknown.score, first.unknown.images) == (ScoreName.ENERGY, 30)
    assert (normal(bundle, first).ranked == ENERGY.normal.ranked).all()
    assert source(bundle, second) is None
    again = source(bundle, first)
    assert again is not None
    assert encode(again.normal) == encode(ENERGY.normal)
    parts = contents(tmp_path)
    own = replace(parts.variants[0], name="fp16", precision="fp16", unknown=again)
    more = add_variant(bundle, own, outputs=parts.golden.outputs["fp32"], out=tmp_path / "more.edgetl")
    more.verify()
    assert [v.unknown is not None for v in more.manifest.variants] == [True, False, True]


def test_a_bundle_without_is_as_it_was(tmp_path: Path) -> None:
    bundle = open_bundle(packed(tmp_path, None))
    assert b"unknown" not in bundle.manifest_bytes
    with pytest.raises(BundleError, match="could tell unknown images"):
        normal(bundle, bundle.variant("fp32"))


def test_a_score_by_features_needs_known_images(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="variant fp32 tells unknown images by vim, and knows none"):
        packed(tmp_path, replace(ENERGY, score=ScoreName.VIM))


@pytest.mark.parametrize(
    ("ranked", "message"),
    [
        (np.linspace(0, 1, 30), "its scores do not fall"),
        (np.linspace(1, 0, 31), "it has 31 scores of 30 images"),
        (np.zeros(0), "it has 0 scores of 30 images"),
        (np.full(3, np.nan), r"ranked is \(3,\) float32, expected finite"),
    ],
)
def test_other_scores_are_refused(tmp_path: Path, ranked: np.ndarray, message: str) -> None:
    broken = Conformity(images=30, ranked=ranked.astype(np.float32))
    bundle = open_bundle(packed(tmp_path, replace(ENERGY, normal=broken)))
    with pytest.raises(BundleIntegrityError, match=message):
        normal(bundle, bundle.variant("fp32"))
