"""Every importance and every loss side by side, at equal measured latency: which defaults we ship, and why.

EfficientNet-Lite0 is trained on 1,000 images of CIFAR-10 at 64 px. For each importance it is cut until it is 2.5 times
as fast in the runtime on one thread (`prune.target_speedup`), then distilled. The losses teach the network that the
default importance left. Scores: top-1 on all 10,000 test images. A plot is also written to
`.cache/bench/pruning-choices/choices.svg` (`EDGETL_BENCH_CACHE`); what is finished is kept there, and a run that was
stopped goes on. `EDGETL_BENCH_SEEDS` names the seeds (default `0,1`). About an hour on two cores.
"""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from html import escape
from pathlib import Path

from edgetl import config, pipeline
from edgetl.config import DistillConfig, DistillFeatures, DistillLoss, Importance, PruneConfig, QuantizeConfig
from edgetl.files import write_json, write_text
from edgetl.inputs.image import PreprocessSpec
from edgetl.measure.stopwatch import RuntimeStopwatch, shipped_target
from edgetl.models import checkpoint
from edgetl.pipeline import Stage
from edgetl.records.prune import PruneRecord
from edgetl.records.scores import score
from edgetl.records.train import TrainRecord
from edgetl.tasks.base import Classification
from tests.bench.claims import Claim
from tests.bench.steps import Spoken, code_sha256, kept, named_seeds, say
from tests.real_sets import unpacked

FAMILY, DATA, SPEEDUP = "pruning-choices", "cifar10", 2.5
SLACK = 0.05
"""Students may differ so much in latency and still count as equally fast."""
BASE: dict[str, dict[str, object]] = {
    "preprocess": {"size": 64, "crop_fraction": 1.0},
    "train": {"epochs": 5},
    "prune": {
        "target_speedup": SPEEDUP,
        "steps": 3,
        "recovery_epochs": 1,
        "max_drop": 0.9,
        "importance_images": 128,
    },
    "distill": {"epochs": 6},
    "bench": {"threads": 1},
}


@dataclass(frozen=True, kw_only=True)
class Found:
    """One student: test top-1 and its interval (0..1), after pruning on validation, its share of the teacher's
    milliseconds (when it was cut; at the end all are timed in turn) and multiply-accumulates, minutes it took."""

    top1: float
    low: float
    high: float
    pruned: float
    latency: float
    macs: float
    minutes: float


def run() -> Iterator[Claim]:
    """Yield the claims."""
    source = unpacked(DATA)
    if source is None:
        yield Claim(name=DATA, measured=f"not measured: EDGETL_DATA names no folder with {DATA}")
        return
    found: dict[str, list[Found]] = {}
    seeds = named_seeds("0,1")
    for seed in seeds:
        for name, settings in choices().items():
            found.setdefault(name, []).append(_student(source, seed, name, settings))
            say(f"seed {seed}, {name}: {_figures([found[name][-1]])}")
    for at, seed in enumerate(seeds):
        for name, share in _timed(seed, list(found)).items():
            found[name][at] = replace(found[name][at], latency=share)
    write_text(kept(FAMILY) / "choices.svg", plot(found))
    for name, students in found.items():
        yield Claim(name=name, measured=_figures(students))
    for kind, default in (
        ("importance", PruneConfig().importance),
        ("loss", DistillConfig().loss),
    ):
        yield from _judged(kind, f"{kind} {default}", found)


def choices() -> dict[str, dict[str, object]]:
    """What is set for each; the default importance comes last, since the losses teach the network that it leaves."""
    ranked = sorted(Importance, key=lambda i: i is PruneConfig().importance)
    named: dict[str, dict[str, object]] = {f"importance {i}": {"importance": str(i)} for i in ranked}
    own, plain = DistillConfig().loss, DistillFeatures.NONE
    named[f"loss {own}"] = {}
    named |= {f"loss {x}": {"loss": str(x)} for x in DistillLoss if x is not own}
    named |= {f"loss {own} and {x}": {"features": str(x)} for x in DistillFeatures if x is not plain}
    return named


def _student(source: Path, seed: int, name: str, settings: dict[str, object]) -> Found:
    """Prune and distill, or what is kept of it."""
    home = _home(seed)
    path = home / f"{name.replace(' ', '-')}.json"
    if path.exists():
        return Found(**json.loads(path.read_text()))
    section = "prune" if name.startswith("importance") else "distill"
    values = {**BASE, section: {**BASE[section], **settings}}
    data = {"source": str(source), "max_train_images": 1000}
    recipe = config.parse({"name": DATA, "seed": seed, **values, "data": data})
    records = pipeline.run(recipe, home / "run", until=Stage.DISTILL, progress=Spoken()).records
    pruned: PruneRecord = records[Stage.PRUNE]
    student: TrainRecord = records[Stage.DISTILL]
    assert student.test is not None
    assert pruned.latency is not None
    test = score(student.test, "top1")
    found = Found(
        top1=test.value,
        low=test.low or 0.0,
        high=test.high or 0.0,
        pruned=pruned.steps[-1].score,
        latency=pruned.latency.measured_ms / pruned.latency.teacher_ms,
        macs=pruned.after.macs / pruned.before.macs,
        minutes=(pruned.seconds + student.seconds) / 60,
    )
    shutil.copyfile(home / "run" / student.checkpoint, path.with_suffix(".safetensors"))
    write_json(path, asdict(found))
    return found


def _timed(seed: int, names: list[str]) -> dict[str, float]:
    """Each student's share of the teacher's milliseconds, by the clock by which the cuts were made."""
    home, spec = _home(seed), PreprocessSpec(size=int(str(BASE["preprocess"]["size"])))
    stopwatch = RuntimeStopwatch(
        teacher=home / "run" / "train" / "teacher.safetensors",
        teacher_spec=spec,
        spec=spec,
        task=Classification(labels=tuple(map(str, range(10)))),
        opset=18,
        target=shipped_target(QuantizeConfig()),
        threads=1,
    )
    shares = {}
    for name in names:
        network, _ = checkpoint.load(home / f"{name.replace(' ', '-')}.safetensors")
        shares[name] = stopwatch(network).share
        say(f"seed {seed}, {name}: {shares[name]:.3f} of the teacher's milliseconds")
    return shares


def _home(seed: int) -> Path:
    return kept(FAMILY, f"{seed}-{code_sha256()[:12]}")


def _judged(kind: str, default: str, found: dict[str, list[Found]]) -> Iterator[Claim]:
    """Whether the default is the best of its kind, or not distinguishable from it."""
    rivals = {name: students for name, students in found.items() if name.startswith(kind)}
    times = [one.latency for students in rivals.values() for one in students]
    spread = max(times) / min(times) - 1
    yield Claim(
        name=f"{kind}: latencies differ by",
        measured=f"{spread:.1%}",
        aim=f"<= {SLACK:.0%}",
        holds=spread <= SLACK,
    )
    best = max(rivals, key=lambda name: _mean(rivals[name]))
    behind = _mean(rivals[best]) - _mean(rivals[default])
    noise = statistics.mean((one.high - one.low) / 2 for one in rivals[default])
    yield Claim(
        name=f"{kind}: {default} behind the best ({best}), points",
        measured=f"{100 * behind:.2f}",
        aim=f"<= {100 * noise:.2f}, half the interval of one score",
        holds=behind <= noise,
    )


def _mean(students: list[Found]) -> float:
    return statistics.mean(one.top1 for one in students)


def _figures(students: list[Found]) -> str:
    top1 = " and ".join(f"{one.top1:.2%}" for one in students)
    return (
        f"top-1 {top1}; pruned, on validation {statistics.mean(s.pruned for s in students):.1%}; latency"
        f" {statistics.mean(s.latency for s in students):.3f}x the teacher's,"
        f" {statistics.mean(s.macs for s in students):.0%} of the multiply-accumulates;"
        f" {statistics.mean(s.minutes for s in students):.1f} min"
    )


def plot(found: dict[str, list[Found]]) -> str:
    """An SVG: a line for each choice, a dot for each seed with its 95% interval."""
    left, width, step = 250, 820, 26
    low = min(one.low for students in found.values() for one in students) - 0.005
    high = max(one.high for students in found.values() for one in students) + 0.005

    def x(share: float) -> float:
        return left + (share - low) / (high - low) * (width - left - 20)

    height = 40 + step * len(found)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif"'
        f' font-size="13"><rect width="{width}" height="{height}" fill="white"/>'
        f'<text x="{left}" y="16">top-1 on 10,000 test images, 95% interval, at equal latency</text>'
    ]
    for row, (name, students) in enumerate(found.items()):
        y = 40 + step * row
        parts.append(f'<text x="10" y="{y + 4}">{escape(name)}</text>')
        for at, one in enumerate(students):
            line, seen = y - 4 + 8 * at, f"{one.top1:.2%}"
            parts.append(
                f'<line x1="{x(one.low):.1f}" x2="{x(one.high):.1f}" y1="{line}" y2="{line}" stroke="#8aa"/>'
                f'<circle cx="{x(one.top1):.1f}" cy="{line}" r="3.5" fill="#147"><title>{seen}</title></circle>'
            )
    for share in (low + (high - low) * i / 5 for i in range(6)):
        parts.append(f'<text x="{x(share) - 16:.1f}" y="{height - 4}" fill="#555">{share:.1%}</text>')
    return "".join([*parts, "</svg>\n"])
