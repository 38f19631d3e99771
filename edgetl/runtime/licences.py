"""The packages that the device side needs, as they are installed here, with their licences in SPDX's writing."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata

from edgetl.records.frozen import dataclass
from edgetl.runtime.doctor import DEVICE, reached

_BY_CLASSIFIER = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
_BY_TEXT = {
    "3-clause bsd license": "BSD-3-Clause",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache-2.0": "Apache-2.0",
    "bsd-3-clause": "BSD-3-Clause",
    "mit": "MIT",
    "mit license": "MIT",
}
_LONGEST = 60
"""Characters of a licence's name; what is longer is its text."""


@dataclass(frozen=True, kw_only=True)
class LicensedPackage:
    """An installed package.

    Attributes:
        name, version: as the package index has them.
        licence: an SPDX expression where `spdx`, else what the package says; empty where it says nothing.
        needs: names of packages of the same list that it needs.
    """

    name: str
    version: str
    licence: str
    spdx: bool
    needs: tuple[str, ...]


def device_packages(engines: Iterable[str]) -> tuple[LicensedPackage, ...]:
    """What of the device side and of these engines' packages is installed here, by name."""
    found = reached(*DEVICE, *engines)
    return tuple(
        LicensedPackage(
            name=name,
            version=one.version,
            licence=(licence := licence_of(one.metadata))[0],
            spdx=licence[1],
            needs=tuple(sorted(reached(name).keys() & found.keys() - {name})),
        )
        for name, one in sorted(found.items())
    )


def licence_of(said: metadata.PackageMetadata) -> tuple[str, bool]:
    """A package's licence, and whether it is in SPDX's writing: by its expression, its classifiers, or its text."""

    def field(name: str) -> str:
        return (said[name] or "").strip() if name in said else ""

    if expression := field("License-Expression"):
        return expression, True
    own = field("License")
    if own.lower() in _BY_TEXT:
        return _BY_TEXT[own.lower()], True
    names = [
        line.rpartition(" :: ")[2]
        for line in said.get_all("Classifier") or []
        if line.startswith("License ::")
    ]
    known = [_BY_CLASSIFIER[name] for name in names if name in _BY_CLASSIFIER]
    if known and len(known) == len(names):
        return " OR ".join(dict.fromkeys(known)), True
    if own and own.upper() != "UNKNOWN" and len(own) <= _LONGEST and "\n" not in own:
        return own, False
    return ", ".join(names), False
