"""How a variant tells unknown images: the score's name in the manifest, the validation images' scores in a file.

`unknown/VARIANT.npz` is a stored `.npz` with `ranked`: (K,) little-endian float32, the negated scores, falling, at most
`edgetl.tasks.conformal.MOST` of them. `edgetl.runtime.unknown.judge` says what is made of them.
"""

from __future__ import annotations

import numpy as np

from edgetl.bundle.archive import Bundle
from edgetl.bundle.golden import decode_arrays, encode_arrays
from edgetl.bundle.manifest import Unknown, Variant
from edgetl.errors import BundleError, BundleIntegrityError
from edgetl.records.frozen import dataclass
from edgetl.records.unknown import ScoreName
from edgetl.tasks.base import TensorSpec
from edgetl.tasks.conformal import Conformity

_RANKED = "ranked"


@dataclass(frozen=True, kw_only=True)
class UnknownSource:
    """What `pack` writes of a variant: its score, and what is normal by it."""

    score: ScoreName
    normal: Conformity


def encode(normal: Conformity) -> bytes:
    """The file's content: equal scores give equal bytes."""
    return encode_arrays({_RANKED: normal.ranked.astype(np.float32)})


def described(bundle: Bundle, variant: Variant) -> Unknown:
    """How a variant tells unknown images.

    Raises:
        BundleError: it does not: a cascade, an older bundle, or a model that was added to one.
    """
    if variant.unknown is None and variant.cascade is not None:
        raise BundleError(
            f"unknown: variant {variant.name} of {bundle.path} is a cascade of two models, which judges no unknown"
            " images; ask one of the two by itself."
        )
    if variant.unknown is None:
        raise BundleError(
            f"unknown: {bundle.path} was made before bundles could tell unknown images, or its variant"
            f" {variant.name} was added to it; make it again with: edgetl run RECIPE"
        )
    return variant.unknown


def normal(bundle: Bundle, variant: Variant) -> Conformity:
    """The scores of a variant's validation images, negated.

    Raises:
        BundleError: as `described`.
        BundleIntegrityError: the file was altered, or is not what `encode` writes.
    """
    known = described(bundle, variant)
    where = f"{bundle.path}: {known.ranked.file}"
    wanted = [TensorSpec(name=_RANKED, dtype="float32", shape=(None,))]
    ranked = decode_arrays(bundle.read(known.ranked), wanted, where)[_RANKED]
    if not 0 < len(ranked) <= known.images:
        raise BundleIntegrityError(f"{where}: it has {len(ranked)} scores of {known.images} images.")
    if np.any(np.diff(ranked) > 0):
        raise BundleIntegrityError(f"{where}: its scores do not fall.")
    return Conformity(images=known.images, ranked=ranked)


def source(bundle: Bundle, variant: Variant) -> UnknownSource | None:
    """A variant's, to pack it again; None where it has none. Raises as `normal`."""
    if variant.unknown is None:
        return None
    return UnknownSource(score=variant.unknown.score, normal=normal(bundle, variant))
