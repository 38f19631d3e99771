"""Made-up candidates and a ranking of them."""

from __future__ import annotations

from typing import Any

from edgetl.bench.statistics import summarise
from edgetl.records.measured import Machine
from edgetl.records.scores import Score
from edgetl.records.train import NetworkSize
from edgetl.records.transfer import BackboneRanking, Candidate, Skipped
from edgetl.transfer.choice import propose, ranked

MACHINE = Machine(cpu="Test CPU", cores=2, memory_bytes=2**33, system="Linux x86_64", python="3.11.0")


def candidate(backbone: str, size: int, top1: float, ms: float, **values: Any) -> Candidate:
    """With a standard error of one point."""
    return Candidate(
        backbone=backbone,
        weights="pretrained",
        size=size,
        score=Score(value=top1, low=top1 - 0.0196, high=top1 + 0.0196),
        logme=top1 / 2,
        ridge=0.1,
        latency=summarise([ms] * 5, scenario="single-stream", batch=1, threads=2, warmup=8),
        network=NetworkSize(macs=200_000_000, parameters=3_400_000, size_bytes=13_700_000),
        **values,
    )


CANDIDATES = (
    candidate("small", 128, 0.90, 1.0),
    candidate("small", 224, 0.955, 3.0),
    candidate("large", 128, 0.89, 2.0),
    candidate("large", 224, 0.96, 8.0),
)


def ranking(latency_ms: float | None = None) -> BackboneRanking:
    order = ranked(CANDIDATES, latency_ms)
    proposal = propose(order, "top1", latency_ms)
    return BackboneRanking(
        source="photos <1>",
        classes=12,
        metric="top1",
        train_images=600,
        val_images=300,
        candidates=order,
        skipped=(Skipped(name="other", reason="Its weights are not here."),),
        proposed=proposal.position,
        reason=proposal.reason,
        settings=('train.backbone = "small"', "preprocess.size = 224"),
        latency_ms=latency_ms,
        machine=MACHINE,
        seconds=61.0,
    )
