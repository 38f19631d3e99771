"""A bundle carries what each variant makes of known images, in a file of bounded size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetl.bundle.archive import Bundle, open_bundle
from edgetl.bundle.pack import add_variant, pack
from edgetl.bundle.reference import MOST_BYTES, Reference, class_labels, decode, encode, read, room, source
from edgetl.errors import BundleIntegrityError, ModelError
from edgetl.inputs.looks import LOOKS
from edgetl.tasks.base import Classification, MultiHead, MultiLabel
from tests.bundles import LABELS, contents

TASK = Classification(labels=LABELS)
FEATURES = 5


def made(training: int = 6, validation: int = 4, features: int = FEATURES) -> Reference:
    generator = np.random.default_rng(0)
    return Reference(
        embeddings=generator.random((training, features), dtype=np.float32),
        classes=np.arange(training, dtype=np.int32) % 3,
        means=generator.random((3, features), dtype=np.float32),
        counts=np.full(3, training // 3, np.int32),
        validation=generator.random((validation, features), dtype=np.float32),
        validation_classes=np.arange(validation, dtype=np.int32) % 3,
        logits={"logits": generator.normal(size=(validation, 3)).astype(np.float32)},
        looks=generator.random((training, len(LOOKS)), dtype=np.float32),
        validation_looks=generator.random((validation, len(LOOKS)), dtype=np.float32),
    )


def packed(folder: Path) -> Bundle:
    parts = contents(folder)
    first, second = parts.variants
    pack(replace(parts, variants=[replace(first, reference=encode(made())), second]), folder / "b.edgetl")
    return open_bundle(folder / "b.edgetl")


def test_what_is_packed_is_read(tmp_path: Path) -> None:
    bundle = packed(tmp_path)
    bundle.verify()
    first, second = bundle.manifest.variants
    found, wanted = read(bundle, first), made()
    assert found is not None
    for name in ("embeddings", "means", "validation"):
        assert getattr(found, name).dtype == np.float32
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), atol=5e-4)
    for name in ("classes", "counts", "validation_classes", "looks", "validation_looks"):
        assert (getattr(found, name) == getattr(wanted, name)).all()
    assert (found.logits["logits"] == wanted.logits["logits"]).all()
    assert "reference/fp32.npz" in {member.file for member in bundle.manifest.members()}
    assert read(bundle, second) is None
    assert source(bundle, second) is None
    assert source(bundle, first) == encode(found) == encode(wanted)


def test_an_older_file_has_no_looks() -> None:
    older = replace(made(), looks=made().looks[:0], validation_looks=made().looks[:0])
    found = decode(encode(older), TASK, "x")
    assert (found.looks.shape, found.validation_looks.shape) == ((0, len(LOOKS)), (0, len(LOOKS)))
    with pytest.raises(BundleIntegrityError, match="do not fit each other"):
        decode(encode(replace(made(), validation_looks=made().validation_looks[:-1])), TASK, "x")


def test_a_variant_that_is_added_leaves_the_others_theirs(tmp_path: Path) -> None:
    bundle = packed(tmp_path)
    parts = contents(tmp_path)
    own = replace(
        parts.variants[0], name="fp16", precision="fp16", reference=source(bundle, bundle.variant("fp32"))
    )
    more = add_variant(bundle, own, outputs=parts.golden.outputs["fp32"], out=tmp_path / "more.edgetl")
    more.verify()
    assert [v.reference is not None for v in more.manifest.variants] == [True, False, True]
    plain = add_variant(more, replace(own, reference=None), outputs=parts.golden.outputs["fp32"])
    plain.verify()
    assert [v.reference is not None for v in plain.manifest.variants] == [True, False, False]


def test_a_bundle_without_is_as_it_was(tmp_path: Path) -> None:
    pack(contents(tmp_path), tmp_path / "b.edgetl")
    assert b"reference" not in open_bundle(tmp_path / "b.edgetl").manifest_bytes


@pytest.mark.parametrize(
    ("features", "others"), [(8, 0), (320, 40), (1280, 4000), (5000, 80_000), (400_000, 0)]
)
def test_the_room_is_bounded(features: int, others: int) -> None:
    count = room(features, others)
    assert 1 <= count <= 2000
    assert count * (2 * features + others) <= max(MOST_BYTES, 2 * features)
    images = room(FEATURES)
    assert len(encode(made(images, room(FEATURES, 12)))) < 3 * MOST_BYTES


def test_classes_are_those_of_the_first_head() -> None:
    heads = MultiHead(heads={"kind": MultiLabel(labels=("a", "b")), "colour": TASK})
    assert class_labels(heads) == ("a", "b")
    assert class_labels(TASK) == LABELS


def test_what_half_precision_cannot_hold_is_refused() -> None:
    with pytest.raises(ModelError, match="too large for half precision, or not finite"):
        encode(replace(made(), embeddings=np.full((6, FEATURES), 1e6, np.float32)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"classes": np.zeros(5, np.int32)}, "its arrays do not fit each other"),
        ({"validation": np.zeros((4, 6), np.float32)}, "its arrays do not fit each other"),
        ({"logits": {"logits": np.zeros((3, 3), np.float32)}}, "its arrays do not fit each other"),
        ({"logits": {"logits": np.full((4, 3), np.inf, np.float32)}}, "expected finite"),
        ({"logits": {"logits": np.zeros((4, 2), np.float32)}}, r"logits/logits is \(4, 2\) float32"),
        ({"logits": {}}, "does not hold the output logits/logits"),
        ({"counts": np.zeros(4, np.int32)}, r"counts is \(4,\) int32"),
        ({"means": np.zeros((2, FEATURES), np.float32)}, "it has 2 means of 3 classes"),
        ({"classes": np.full(6, 3, np.int32)}, "it names a class that the task does not have"),
        ({"validation_classes": np.full(4, -2, np.int32)}, "it names a class that the task does not have"),
        (
            {
                "embeddings": np.zeros((0, FEATURES), np.float32),
                "classes": np.zeros(0, np.int32),
                "looks": np.zeros((0, len(LOOKS)), np.float32),
                "validation_looks": np.zeros((0, len(LOOKS)), np.float32),
            },
            "it holds no images",
        ),
    ],
)
def test_what_does_not_fit_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleIntegrityError, match=f"^x: .*{message}|^x .*{message}"):
        decode(encode(replace(made(), **changed)), TASK, "x")


def test_what_is_no_file_of_arrays_is_refused() -> None:
    with pytest.raises(BundleIntegrityError, match=r"^x does not hold the output"):
        decode(b"garbage", TASK, "x")
