"""A bundle whose models were changed on a device: the same variants or some of them, with other outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edgetl.bundle import confidence, golden, splits, unknown
from edgetl.bundle.archive import Bundle, write_archive
from edgetl.bundle.manifest import SCHEMA_VERSION, Confidence, Manifest, Member, Provenance, Variant, problems
from edgetl.errors import BundleError
from edgetl.files import sha256_bytes
from edgetl.records.scores import Evaluation
from edgetl.tasks.base import Outputs, TaskSpec
from edgetl.tasks.conformal import Conformity


@dataclass(frozen=True, kw_only=True)
class Revision:
    """A variant's new model and what belongs to it.

    Attributes:
        model: the file's bytes.
        golden: its outputs for the golden images.
        reference: what it makes of known images, as `edgetl.bundle.reference.encode` gives it.
        conformities: by output; taken where the variant has a temperature.
        normal: the scores by which unknown images are detected, of known ones; taken where the variant detects them.
        val: its scores on the validation images that the bundle keeps.
    """

    model: bytes
    golden: Outputs
    reference: bytes
    conformities: Mapping[str, Conformity]
    normal: Conformity | None
    val: Evaluation


def revise(
    bundle: Bundle,
    revisions: Mapping[str, Revision],
    out: Path,
    *,
    task: TaskSpec,
    provenance: Provenance,
    learned: splits.Splits | None,
) -> Manifest:
    """Write the bundle with the models of `revisions`, atomically, and without its other variants.

    Compiled engines, which are of the models as they were, are left out, and the scores on the test split, which
    nothing can be measured on here. Latencies stay: the models' bodies are the same. It is not signed.

    Args:
        bundle: the bundle as it is.
        revisions: by the variant's name; one at least.
        out: where to write.
        task: what the models answer now.
        provenance: of the new bundle.
        learned: which images it was made from.

    Raises:
        BundleError: the parts do not fit together, or a member was altered.
        StorageError: it cannot be written.
    """
    known, files = bundle.manifest, dict[str, bytes | Path]()
    variants = tuple(_revised(v, revisions[v.name], files) for v in known.variants if v.name in revisions)
    outputs = {
        name: _member(f"golden/{name}.npz", golden.encode_outputs(one.golden), files)
        for name, one in sorted(revisions.items())
    }
    described = replace(
        known,
        schema_version=SCHEMA_VERSION,
        task=task,
        variants=variants,
        default=known.default if known.default in revisions else variants[0].name,
        golden=replace(known.golden, outputs=outputs),
        provenance=provenance,
        engines=(),
        splits=None if learned is None else _member(splits.FILE, learned.encoded(), files),
    )
    if found := problems(described):
        raise BundleError(f"Cannot write {out}: {'; '.join(found)}.")
    contents = {m.file: files[m.file] if m.file in files else bundle.read(m) for m in described.members()}
    write_archive(described, contents, out)
    return described


def _revised(variant: Variant, revision: Revision, files: dict[str, bytes | Path]) -> Variant:
    model = _member(variant.file, revision.model, files)
    sure = variant.confidence
    if sure is not None:
        content = confidence.encode(revision.conformities)
        sure = Confidence(
            temperatures=sure.temperatures,
            images={name: one.images for name, one in revision.conformities.items()},
            conformity=_member(sure.conformity.file, content, files),
        )
    described = variant.unknown
    if described is not None and revision.normal is not None:
        ranked = _member(described.ranked.file, unknown.encode(revision.normal), files)
        described = replace(described, images=revision.normal.images, ranked=ranked)
    return replace(
        variant,
        size_bytes=model.size_bytes,
        sha256=model.sha256,
        val=revision.val.summary(),
        test=None,
        confidence=sure,
        reference=_member(f"reference/{variant.name}.npz", revision.reference, files),
        unknown=described,
    )


def _member(name: str, content: bytes, files: dict[str, bytes | Path]) -> Member:
    files[name] = content
    return Member(file=name, size_bytes=len(content), sha256=sha256_bytes(content))
