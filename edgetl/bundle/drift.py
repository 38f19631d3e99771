"""What images were like when a bundle was made, so that a device notices when they are not any more.

`drift.npz` is a stored `.npz` of little-endian float32 arrays: `looks` (m, 7), as `edgetl.inputs.looks` has them, of m
validation images; and for each variant `VARIANT/sureness` (m,) and `VARIANT/named` (C,), as `edgetl.tasks.summary` has
them: how sure its answers to these images are, and how many of them name each class. It is read only where drift is
watched for.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgetl.bundle.archive import Bundle
from edgetl.bundle.golden import decode_arrays, encode_outputs, names_in
from edgetl.bundle.manifest import Variant
from edgetl.errors import BundleError, BundleIntegrityError
from edgetl.inputs.looks import LOOKS
from edgetl.records.frozen import dataclass
from edgetl.tasks.base import TensorSpec, labels_of

FILE = "drift.npz"
MOST = 1000
"""Images of which a reference keeps numbers; evenly spread over the validation split where that has more."""


@dataclass(frozen=True, kw_only=True)
class DriftAnswers:
    """What a variant answered to the reference's m images.

    `sureness` is (m,) float32, `named` (C,): how many answers name each class.
    """

    sureness: NDArray[np.float32]
    named: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class DriftSource:
    """What `pack` writes: `looks` (m, 7) float32 of m images, and by variant what was answered to them."""

    looks: NDArray[np.float32]
    answers: Mapping[str, DriftAnswers]


@dataclass(frozen=True, kw_only=True)
class DriftReference:
    """What a device compares with: `looks` (m, 7), and the variant's answers, None where they are not known."""

    looks: NDArray[np.float32]
    answers: DriftAnswers | None


def encode(source: DriftSource) -> bytes:
    """The file's content: equal references give equal bytes."""
    arrays = {"looks": source.looks}
    for name, one in source.answers.items():
        arrays[f"{name}/sureness"] = one.sureness
        arrays[f"{name}/named"] = one.named.astype(np.float32)
    return encode_outputs(arrays)


def reference(bundle: Bundle, variant: Variant) -> DriftReference:
    """What images were like, and what a variant answered to them.

    Raises:
        BundleError: the bundle does not know.
        BundleIntegrityError: the file was altered, or is not what `encode` writes.
    """
    member = bundle.manifest.drift
    if member is None:
        raise BundleError(
            f"drift: {bundle.path} was made before bundles knew what their images were like; make it again with:"
            " edgetl run RECIPE"
        )
    content, where = bundle.read(member), f"{bundle.path}: {member.file}"
    seen = decode_arrays(
        content, [TensorSpec(name="looks", dtype="float32", shape=(None, len(LOOKS)))], where
    )
    if not len(looks := seen["looks"]):
        raise BundleIntegrityError(f"{where} is of no images.")
    return DriftReference(looks=looks, answers=_answers(bundle, variant, content, where, images=len(looks)))


def _answers(
    bundle: Bundle, variant: Variant, content: bytes, where: str, *, images: int
) -> DriftAnswers | None:
    """What a variant answered; None of one that was added to the bundle."""
    own = [f"{variant.name}/sureness", f"{variant.name}/named"]
    if own[0] not in names_in(content):
        return None
    found = decode_arrays(content, [TensorSpec(name=n, dtype="float32", shape=(None,)) for n in own], where)
    sure, named = found[own[0]], found[own[1]].astype(np.int64)
    classes = len(labels_of(bundle.manifest.task))
    if len(sure) != images or len(named) != classes or named.min() < 0 or named.max() > images:
        raise BundleIntegrityError(
            f"{where}: {variant.name} has {len(sure)} answers that name {len(named)} classes, expected {images} that"
            f" name {classes}."
        )
    return DriftAnswers(sureness=sure, named=named)


def places(images: int) -> NDArray[np.int64]:
    """Which of so many images a reference is of: at most `MOST`, evenly spread."""
    kept = min(images, MOST)
    return np.arange(kept, dtype=np.int64) * images // max(1, kept)
