"""The tests that are marked `gpu`."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from tests.bench.claims import Claim
from tests.gpu.parts import Place

ROOT = Path(__file__).parents[2]
_COUNT = re.compile(r"(\d+) (passed|failed|skipped|errors?)")


def marked() -> list[str]:
    """The files with such tests."""
    found = (
        path for path in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in path.read_text(encoding="utf-8")
    )
    return sorted(str(path.relative_to(ROOT)) for path in found)


def run(place: Place) -> Iterator[Claim]:
    """Yield the claims."""
    lacking = [name for name in ("pytest", "pytest_timeout", "hypothesis") if find_spec(name) is None]
    if lacking:
        yield Claim(name="tests marked gpu", measured=f"not run: {', '.join(lacking)} is not installed")
        return
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", *marked()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    counts = {kind.rstrip("s"): int(count) for count, kind in _COUNT.findall(done.stdout)}
    text = ", ".join(f"{count} {kind}" for kind, count in counts.items()) or done.stderr[-200:]
    for line in re.findall(r"^(?:FAILED|ERROR) .*$", done.stdout, re.MULTILINE):
        yield Claim(name=line[:150], measured="failed", aim="passes", holds=False)
    for line in re.findall(r"^SKIPPED .*$", done.stdout, re.MULTILINE):
        yield Claim(name="skipped", measured=re.sub(r"^SKIPPED \[\d+\] ", "", line)[:200])
    ran = None if place.rehearses else counts.get("passed", 0) > 0 and done.returncode == 0
    yield Claim(name="tests marked gpu", measured=text, aim="all pass", holds=ran)
