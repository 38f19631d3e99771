"""What differs between two recipes, and between where two bundles come from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from edgetl.bundle.manifest import Manifest
from edgetl.comparison.record import Difference
from edgetl.records.codec import to_json

UNSET = "unset"
# A run is named after its folder, and what a file holds is said by its hash.
_PASSED_OVER = ("name",)


def recipe_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Settings that differ, in the first recipe's order; a setting that one leaves out is `UNSET` there."""
    return _differences(_flat(first), _flat(second))


def origin_differences(first: Manifest, second: Manifest) -> tuple[Difference, ...]:
    """Preprocessing, data, versions, commit and lineage that differ."""
    return _differences(_origin(first), _origin(second))


def _origin(manifest: Manifest) -> dict[str, str]:
    made = manifest.provenance
    found: dict[str, Any] = {
        "preprocess": to_json(manifest.preprocess),
        "data": {"sha256": made.data_sha256[:12]},
        "lineage": [step.words for step in made.lineage],
        "commit": made.git_commit[:12],
        "packages": {"edgetl": made.created_by.removeprefix("edgetl "), **made.packages},
        "seed": made.seed,
    }
    return _flat(found)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{name}.")
        elif name not in _PASSED_OVER:
            found[name] = _text(value)
    return found


def _text(value: Any) -> str:
    if value in (None, "", [], {}):
        return UNSET
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return ", ".join(value)
    return json.dumps(value, ensure_ascii=False)


def _differences(first: Mapping[str, str], second: Mapping[str, str]) -> tuple[Difference, ...]:
    return tuple(
        Difference(key=key, first=first.get(key, UNSET), second=second.get(key, UNSET))
        for key in dict.fromkeys((*first, *second))
        if first.get(key, UNSET) != second.get(key, UNSET)
    )
