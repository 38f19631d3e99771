"""What a bundle knows of images that it was made from, and why it may know nothing."""

from __future__ import annotations

from edgetl.bundle.archive import Bundle
from edgetl.bundle.manifest import ModelFormat, Variant
from edgetl.bundle.reference import Reference, read
from edgetl.errors import BundleError, ModelError
from edgetl.runtime.features import pooled_head
from edgetl.tasks.all import task_of
from edgetl.tasks.base import Detection


def known_images(bundle: Bundle, variant: Variant, asked: str) -> Reference:
    """What a variant makes of known images.

    Args:
        bundle: the bundle.
        variant: one of its variants.
        asked: what needs it, for the error: an option's name.

    Raises:
        BundleError: it has nothing of the kind; the message says why, and what to do.
        BundleIntegrityError: the file was altered, or is not what was written.
    """
    found = read(bundle, variant)
    if found is None:
        raise BundleError(f"{asked}: {why_none(bundle, variant)}")
    return found


def why_none(bundle: Bundle, variant: Variant) -> str:
    """Why a variant has no known images, and what to do, in a sentence or two."""
    spec = bundle.manifest.task
    if isinstance(spec, Detection):
        return f"{bundle.path} finds boxes, and known images are kept for labels alone; leave it out."
    if variant.format is ModelFormat.TFLITE:
        others = ", ".join(v.name for v in bundle.manifest.variants if v.reference is not None)
        remedy = f"choose another variant: {others}" if others else "make the bundle with another target, too"
        return f"variant {variant.name} is a .tflite file, which does not show its features; {remedy}."
    try:
        pooled_head(bundle.read(variant.member), [one.name for one in task_of(spec).outputs])
    except ModelError as error:
        return f"{bundle.path} keeps no known images. {error}"
    return (
        f"{bundle.path} was made before bundles kept what known images look like to the model, or its variant"
        f" {variant.name} was added to it; make it again with: edgetl run RECIPE"
    )
