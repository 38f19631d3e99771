"""A claim, how it is printed, and where it is kept."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from edgetl.bench.machine import describe
from edgetl.bench.statistics import Ratio

HISTORY = Path("bench.json")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One measured claim. `holds` is None where there is no aim."""

    name: str
    measured: str
    aim: str = "-"
    holds: bool | None = None

    def line(self) -> str:
        """`claim | measured | aim | holds or falls short`."""
        verdict = {True: "holds", False: "falls short", None: "-"}[self.holds]
        return f"{self.name} | {self.measured} | {self.aim} | {verdict}"


def at_most(name: str, value: float, aim: float, unit: str) -> Claim:
    """A claim that holds where `value` does not exceed `aim`."""
    return Claim(name=name, measured=f"{value:.3g}{unit}", aim=f"<= {aim:g}{unit}", holds=value <= aim)


def at_least(name: str, value: float, aim: float, unit: str) -> Claim:
    """A claim that holds where `value` reaches `aim`."""
    return Claim(name=name, measured=f"{value:.3g}{unit}", aim=f">= {aim:g}{unit}", holds=value >= aim)


def paired_ratio(baseline_ms: Sequence[float], current_ms: Sequence[float]) -> Ratio:
    """Current over baseline, the median of the pairs' ratios, with its 95% interval (bootstrap).

    For pairs that each had another image: such a median does not compare one image with another.
    """
    ratios = np.asarray(current_ms) / np.asarray(baseline_ms)
    drawn = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return Ratio(value=float(np.median(ratios)), low=float(low), high=float(high), confidence=0.95)


def keep(family: str, claims: Iterable[Claim]) -> None:
    """Append the claims to `bench.json` with the machine and the commit."""
    history = json.loads(HISTORY.read_text()) if HISTORY.exists() else []
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    history.append(
        {
            "family": family,
            "commit": commit,
            "machine": asdict(describe()),
            "claims": [asdict(c) for c in claims],
        }
    )
    HISTORY.write_text(json.dumps(history, indent=1) + "\n")
