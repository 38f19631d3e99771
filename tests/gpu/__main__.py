"""`python -m tests.gpu`: run every part in a process of its own, and print one report in Markdown.

Exit code 0 where all holds, 1 where something falls short or a part broke, 2 where there is no GPU or a package is
missing. `--rehearse` runs all of it in small on the CPU: it proves the script and says nothing of a GPU.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from tests.bench.claims import Claim
from tests.gpu.parts import PARTS, Place, Planned, environment, heard, told

LIMIT_S = 480.0
ROOT = Path(__file__).parents[2]


def main(arguments: Sequence[str]) -> int:
    """Run and print; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__)
    parser.add_argument("--rehearse", action="store_true", help="all of it in small, on the CPU")
    parser.add_argument("--only", choices=[part.module for part in PARTS], help="one part")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if (lacking := _lacking(gpu=not asked.rehearse)) is not None:
        print(lacking, file=sys.stderr)
        return 2
    device = "cpu" if asked.rehearse else "cuda"
    if asked.part:
        return _part(asked.part, Place(folder=asked.folder, device=device))
    with tempfile.TemporaryDirectory(prefix="edgetl-gpu-") as folder:
        return _all(Place(folder=Path(folder), device=device), asked.only)


def _lacking(*, gpu: bool) -> str | None:
    """What is not here, in one sentence; None where nothing is."""
    from edgetl.packages import missing_host

    if (error := missing_host()) is not None:
        return str(error)
    import torch

    if gpu and not torch.cuda.is_available():
        return (
            f"There is no NVIDIA GPU that torch {torch.__version__} can use here: make test-gpu is for a machine with"
            " one, its driver, and torch built for CUDA."
        )
    return None


def _part(module: str, place: Place) -> int:
    from edgetl.process import tune

    tune()
    for claim in import_module(f"tests.gpu.{module}").run(place):
        print(told(claim), flush=True)
    return 0


def _all(place: Place, only: str | None) -> int:
    started = time.monotonic()
    sections: list[tuple[Planned, list[Claim]]] = []
    planned = [part for part in PARTS if only in (None, part.module)]
    for number, part in enumerate(planned, start=1):
        left = LIMIT_S - (time.monotonic() - started)
        print(f"[{number}/{len(planned)}] {part.title}", file=sys.stderr, flush=True)
        limit = left if place.rehearses else min(part.limit_s, left)
        claims = _heard(part, place, max(limit, 1.0) if not place.rehearses else 3600.0)
        sections.append((part, claims))
    print(render(sections, about(place), time.monotonic() - started))
    return int(any(claim.holds is False for _, claims in sections for claim in claims))


def _heard(part: Planned, place: Place, limit_s: float) -> list[Claim]:
    """What a part claims; that it broke, or ran out of time, is a claim too."""
    command = [sys.executable, "-m", "tests.gpu", "--part", part.module, "--folder", str(place.folder)]
    if place.rehearses:
        command.append("--rehearse")
    claims, said = list[Claim](), list[str]()
    late = threading.Event()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=environment(place)
    ) as process:

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(limit_s, end)
        timer.start()
        assert process.stdout is not None
        for line in process.stdout:
            claim = heard(line)
            if claim is None:
                said.append(line.rstrip())
                continue
            claims.append(claim)
            print(f"  {claim.line()}", file=sys.stderr, flush=True)
        timer.cancel()
    if late.is_set():
        claims.append(Claim(name=f"{part.module}: the rest", measured=f"not done within {limit_s:.0f} s"))
    elif process.returncode != 0:
        print("\n".join(said[-30:]), file=sys.stderr)
        last = next((line for line in reversed(said) if line.strip()), "without a word")
        claims.append(Claim(name=f"{part.module} ran", measured=f"broke: {last}", aim="ends", holds=False))
    return claims


def about(place: Place) -> list[tuple[str, str]]:
    """The machine and what is installed."""
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from edgetl.bench.machine import describe
    from edgetl.export.tensorrt.gpu import find_gpu

    packages = (
        "torch",
        "torchvision",
        "timm",
        "onnxruntime-gpu",
        "onnxruntime",
        "tensorrt",
        "tensorrt-rtx",
        "openvino",
    )
    found = []
    for name in packages:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    gpu = None if place.rehearses else find_gpu()
    names = "none: a rehearsal on the CPU" if place.rehearses else torch.cuda.get_device_name(0)
    machine = describe()
    return [
        ("GPU", f"{names}, driver {gpu.driver}" if gpu else names),
        ("machine", f"{machine.fingerprint}, Python {machine.python}"),
        ("packages", ", ".join(found)),
        ("commit", _commit()),
    ]


def _commit() -> str:
    try:
        command = ["git", "rev-parse", "--short", "HEAD"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        return done.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "not known"


def render(
    sections: Sequence[tuple[Planned, Sequence[Claim]]], machine: Sequence[tuple[str, str]], seconds: float
) -> str:
    """The report in Markdown."""
    lines = ["## On an NVIDIA GPU", ""]
    lines += [f"- {name}: {text}" for name, text in machine]
    lines += [f"- took {seconds / 60:.1f} minutes: `make test-gpu`", ""]
    for part, claims in sections:
        lines += [
            f"**{part.title[:1].upper()}{part.title[1:]}**",
            "",
            "| what | measured | aim | |",
            "|---|---|---|---|",
        ]
        for claim in claims:
            verdict = {True: "holds", False: "**falls short**", None: ""}[claim.holds]
            cells = (claim.name, claim.measured, claim.aim, verdict)
            lines.append(
                "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |"
            )
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
