"""How sure a variant's answers are: temperatures in the manifest, conformities in a file of their own.

`confidence/VARIANT.npz` is a stored `.npz` with, for each of the task's outputs, the validation images' conformities:
(K,) little-endian float32, falling, at most `edgetl.tasks.conformal.MOST` of them. It is read only where sets of labels
are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgetl.bundle.archive import Bundle
from edgetl.bundle.golden import decode_arrays, encode_outputs
from edgetl.bundle.manifest import Variant
from edgetl.errors import BundleError, BundleIntegrityError
from edgetl.records.frozen import dataclass
from edgetl.tasks.base import TensorSpec
from edgetl.tasks.conformal import Conformity


@dataclass(frozen=True, kw_only=True)
class ConfidenceSource:
    """What `pack` writes of a variant, both by output."""

    temperatures: Mapping[str, float]
    conformities: Mapping[str, Conformity]


def encode(conformities: Mapping[str, Conformity]) -> bytes:
    """The file's content: equal conformities give equal bytes."""
    return encode_outputs({name: one.ranked for name, one in conformities.items()})


def conformities(bundle: Bundle, variant: Variant) -> dict[str, Conformity]:
    """A variant's conformities, by output.

    Raises:
        BundleError: it has none: an older bundle, or a model that was added to one.
        BundleIntegrityError: the file was altered, or is not what `encode` writes.
    """
    known = variant.confidence
    if known is None:
        raise BundleError(
            f"coverage: {bundle.path} was made before bundles knew how sure their answers are, or its variant"
            f" {variant.name} was added to it; make it again with: edgetl run RECIPE"
        )
    wanted = [TensorSpec(name=name, dtype="float32", shape=(None,)) for name in known.images]
    where = f"{bundle.path}: {known.conformity.file}"
    found = decode_arrays(bundle.read(known.conformity), wanted, where)
    for name, ranked in found.items():
        if len(ranked) > known.images[name] or (known.images[name] and not len(ranked)):
            raise BundleIntegrityError(
                f"{where}: {name} has {len(ranked)} conformities of {known.images[name]} images."
            )
        if np.any(np.diff(ranked) > 0):
            raise BundleIntegrityError(f"{where}: {name} does not fall.")
    return {name: Conformity(images=known.images[name], ranked=ranked) for name, ranked in found.items()}


def source(bundle: Bundle, variant: Variant) -> ConfidenceSource | None:
    """A variant's, to pack it again; None where it has none. Raises as `conformities`."""
    if variant.confidence is None:
        return None
    return ConfidenceSource(temperatures=variant.temperatures, conformities=conformities(bundle, variant))
