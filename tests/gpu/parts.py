"""The parts of the report, in the order of their worth, and how long each may take."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.bench.claims import Claim

MARK = "claim: "
"""Before a claim, as JSON, on a part's standard output."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where parts leave what later ones read, and whether they only rehearse.

    Attributes:
        folder: for runs and bundles.
        device: `cuda`, or `cpu` for a rehearsal: all code, small sizes, no GPU.
    """

    folder: Path
    device: str = "cuda"

    @property
    def rehearses(self) -> bool:
        """Whether there is no GPU, and nothing that it prints means anything."""
        return self.device == "cpu"


Part = Callable[[Place], Iterator[Claim]]


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A part: its title, its module in this folder, and the seconds that it may take."""

    title: str
    module: str
    limit_s: float


PARTS = (
    Planned(title="CUDA against the CPU", module="parity", limit_s=90),
    Planned(title="training, cutting and distilling in float32, bf16, fp16", module="training", limit_s=200),
    Planned(title="every variant on every engine", module="engines", limit_s=120),
    Planned(title="loader and step", module="timing", limit_s=60),
    Planned(title="the tests that need a GPU", module="suite", limit_s=90),
)


def told(claim: Claim) -> str:
    """A claim as a part prints it."""
    return MARK + json.dumps(asdict(claim))


def heard(line: str) -> Claim | None:
    """A claim of a part's line; None where it is another line."""
    return Claim(**json.loads(line[len(MARK) :])) if line.startswith(MARK) else None


def environment(place: Place) -> dict[str, str]:
    """Of a part: nothing is fetched, and a rehearsal sees no GPU."""
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if place.rehearses else {}
    own = {"HF_HUB_OFFLINE": "1", "EDGETL_CACHE": str(place.folder / "cache")}
    return os.environ | own | hidden
