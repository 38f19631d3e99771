"""A bundle that was written as an OCI artifact."""

from __future__ import annotations

from rich.console import Console

from edgetl.records.variants import OciRecord
from edgetl.report import units
from edgetl.report.terminal.tables import pairs


def oci(console: Console, record: OciRecord) -> None:
    """Where it is, what names it, and what a registry shows of it."""
    pairs(
        console,
        [
            ("written to", record.path),
            ("artifact", record.artifact_type),
            ("tag", record.tag),
            ("manifest", record.digest),
            ("bundle", f"{record.layer}, {units.bytes_(record.size_bytes)}"),
            *record.annotations.items(),
        ],
    )
