"""Where the weights that a network began with come from, and under which licence."""

from __future__ import annotations

from edgetl.records.frozen import dataclass


@dataclass(frozen=True, kw_only=True)
class WeightsOrigin:
    """Weights that a network of a run began with.

    Attributes:
        network: its name, as in `train.backbone`.
        source: what gave the weights: a repository of a hub, a Python package with its version, an address, or a file's
            name.
        licence: an SPDX expression, as in `Apache-2.0`; empty where nobody states one.
        stated_by: who says so; empty where nobody does.
    """

    network: str
    source: str
    licence: str = ""
    stated_by: str = ""

    @property
    def words(self) -> str:
        """As a part of a sentence."""
        said = f"{self.licence}, as {self.stated_by} says" if self.licence else "no licence is stated"
        return f"{self.network} from {self.source} ({said})"

    @property
    def restricted(self) -> bool:
        """Whether the licence is one that forbids commercial use."""
        return "-NC" in self.licence.upper()
