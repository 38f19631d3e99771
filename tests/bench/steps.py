"""What long benchmarks share: where they keep what took minutes, and what they say while they run."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from edgetl.files import sha256_bytes
from edgetl.progress import SilentProgress

_STARTED = time.monotonic()


def kept(*names: str) -> Path:
    """A folder under `EDGETL_BENCH_CACHE` (default `.cache/bench`), made where it is not there."""
    folder = Path(os.environ.get("EDGETL_BENCH_CACHE", ".cache/bench")).joinpath(*names)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def say(text: str) -> None:
    """One line on standard error, behind the minutes since the start."""
    print(f"[{(time.monotonic() - _STARTED) / 60:5.1f} min] {text}", file=sys.stderr, flush=True)


class Spoken(SilentProgress):
    """Says a stage's messages, without bars."""

    def message(self, text: str) -> None:
        """See `Progress.message`."""
        say(text)

    def warning(self, text: str) -> None:
        """See `Progress.warning`."""
        say(f"warning: {text}")


def named_seeds(default: str) -> tuple[int, ...]:
    """Those that `EDGETL_BENCH_SEEDS` names, as in `0,1,2`."""
    return tuple(int(seed) for seed in os.environ.get("EDGETL_BENCH_SEEDS", default).split(","))


def code_sha256() -> str:
    """The hash of all of edgetl's code: what was measured with other code is measured again."""
    import edgetl

    files = sorted(Path(edgetl.__file__).parent.rglob("*.py"))
    return sha256_bytes(b"\0".join(file.read_bytes() for file in files))
