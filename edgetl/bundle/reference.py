"""What a variant makes of known images: the embeddings by which others are known, compared and named.

`reference/VARIANT.npz` is a stored `.npz` of little-endian arrays, as its target computes them. An embedding is the
mean of the feature map over its height and width (`edgetl.runtime.features`).

| array | what it is |
|---|---|
| `embeddings` | (N, F) float16, training images, drawn evenly from their classes |
| `classes` | (N,) int32, the class of each |
| `means` | (C, F) float16, the mean embedding of each class's training images; (0, F) where it would be too large |
| `counts` | (C,) int32, how many images each mean is of |
| `validation` | (M, F) float16, images that were not trained on, drawn as they come |
| `validation_classes` | (M,) int32, the class of each |
| `logits/OUTPUT` | (M, c) float32, their outputs |
| `looks` | (N, 7) float32, the training images' looks (`edgetl.inputs.looks`); absent in older files |
| `validation_looks` | (M, 7) float32, the validation images'; absent in older files |

N and M are at most `MOST_IMAGES`, and the arrays of training images, of means, and of validation images take at most
`MOST_BYTES` each, or one image. A class is a position in `class_labels`: of several classes of an image it is the
first one, of several heads that of the first head, and `NO_CLASS` where the image shows none or is not labelled for
that head.

Of the validation images other files count all; here are those that have room. They also chose epochs and variant, so
that new images of the same kind may lie a little further off.

Legend: N, M images, F features, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl.bundle.archive import Bundle
from edgetl.bundle.golden import decode_arrays, encode_arrays, names_in
from edgetl.bundle.manifest import Variant
from edgetl.errors import BundleIntegrityError, ModelError
from edgetl.inputs.looks import LOOKS
from edgetl.records.frozen import dataclass
from edgetl.tasks.all import task_of
from edgetl.tasks.base import MultiHead, TaskSpec, TensorSpec, labels_of

MOST_IMAGES = 2_000
MOST_BYTES = 256 * 1024
NO_CLASS = -1
_LOGITS = "logits/"


def _no_looks() -> NDArray[np.float32]:
    return np.zeros((0, len(LOOKS)), dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The arrays of the file, in float32 where they are floats; see the module. Looks are (0, 7) of an older file."""

    embeddings: NDArray[np.float32]
    classes: NDArray[np.int32]
    means: NDArray[np.float32]
    counts: NDArray[np.int32]
    validation: NDArray[np.float32]
    validation_classes: NDArray[np.int32]
    logits: Mapping[str, NDArray[np.float32]]
    looks: NDArray[np.float32] = field(default_factory=_no_looks)
    validation_looks: NDArray[np.float32] = field(default_factory=_no_looks)

    @property
    def has_looks(self) -> bool:
        """Whether the images' looks are in it; not in an older file."""
        return len(self.looks) > 0


def class_labels(spec: TaskSpec) -> tuple[str, ...]:
    """The names of the classes that a reference is by: the task's, or its first head's."""
    return next(iter(spec.heads.values())).labels if isinstance(spec, MultiHead) else labels_of(spec)


def room(features: int, others: int = 0) -> int:
    """How many images of so many features fit, with `others` further bytes each; one at least."""
    return max(1, min(MOST_IMAGES, MOST_BYTES // (2 * features + others)))


def encode(found: Reference) -> bytes:
    """The file's content: an equal reference gives equal bytes.

    Raises:
        ModelError: an embedding is too large for half precision, or not finite.
    """
    arrays: dict[str, NDArray[Any]] = {
        "classes": found.classes.astype(np.int32),
        "counts": found.counts.astype(np.int32),
        "validation_classes": found.validation_classes.astype(np.int32),
        **{_LOGITS + name: logits.astype(np.float32) for name, logits in found.logits.items()},
    }
    if found.has_looks:
        arrays |= {
            "looks": found.looks.astype(np.float32),
            "validation_looks": found.validation_looks.astype(np.float32),
        }
    for name in ("embeddings", "means", "validation"):
        with np.errstate(over="ignore"):
            arrays[name] = getattr(found, name).astype(np.float16)
        if not np.isfinite(arrays[name]).all():
            raise ModelError("The network's features are too large for half precision, or not finite.")
    return encode_arrays(arrays)


def decode(content: bytes, spec: TaskSpec, where: str) -> Reference:
    """Read what `encode` wrote for a task; `where` names the file in errors.

    Raises:
        BundleIntegrityError: it is something else.
    """
    classes, outputs = len(class_labels(spec)), task_of(spec).outputs

    def wanted(name: str, dtype: str, *shape: int | None) -> TensorSpec:
        return TensorSpec(name=name, dtype=dtype, shape=shape)

    found = decode_arrays(
        content,
        [
            *(wanted(name, "float16", None, None) for name in ("embeddings", "means", "validation")),
            *(wanted(name, "int32", None) for name in ("classes", "validation_classes")),
            wanted("counts", "int32", classes),
            *(wanted(_LOGITS + one.name, "float32", None, *one.shape[1:]) for one in outputs),
        ],
        where,
    )
    own = [wanted(name, "float32", None, len(LOOKS)) for name in ("looks", "validation_looks")]
    if own[0].name in names_in(content):
        found |= decode_arrays(content, own, where)
    floats = {name: found[name].astype(np.float32) for name in ("embeddings", "means", "validation")}
    logits = {one.name: found[_LOGITS + one.name] for one in outputs}
    rows = [(len(floats["embeddings"]), found["classes"])]
    rows += [(len(floats["validation"]), own) for own in (found["validation_classes"], *logits.values())]
    looks, fresh_looks = (found.get(spec.name, _no_looks()) for spec in own)
    if len(looks) or len(fresh_looks):
        rows += [(rows[0][0], looks), (rows[1][0], fresh_looks)]
    if (
        any(len(array) != count for count, array in rows)
        or len({one.shape[1] for one in floats.values()}) != 1
    ):
        raise BundleIntegrityError(f"{where}: its arrays do not fit each other.")
    if len(floats["means"]) not in (0, classes):
        raise BundleIntegrityError(f"{where}: it has {len(floats['means'])} means of {classes} classes.")
    if any(((own < NO_CLASS) | (own >= classes)).any() for own in (rows[0][1], rows[1][1])):
        raise BundleIntegrityError(f"{where}: it names a class that the task does not have.")
    if not rows[0][0] or not rows[1][0]:
        raise BundleIntegrityError(f"{where}: it holds no images.")
    return Reference(
        embeddings=floats["embeddings"],
        classes=found["classes"],
        means=floats["means"],
        counts=found["counts"],
        validation=floats["validation"],
        validation_classes=found["validation_classes"],
        logits=logits,
        looks=looks,
        validation_looks=fresh_looks,
    )


def read(bundle: Bundle, variant: Variant) -> Reference | None:
    """A variant's reference; None where it has none. `edgetl.runtime.known` says why.

    Raises:
        BundleIntegrityError: the file was altered, or is not what `encode` writes.
    """
    if variant.reference is None:
        return None
    where = f"{bundle.path}: {variant.reference.file}"
    return decode(bundle.read(variant.reference), bundle.manifest.task, where)


def source(bundle: Bundle, variant: Variant) -> bytes | None:
    """A variant's file, to pack it again; None where it has none.

    Raises:
        BundleIntegrityError: it was altered.
    """
    return None if variant.reference is None else bundle.read(variant.reference)
