"""`python -m tests.bench [NAME]`: run all benchmarks, or the one family that is named."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from edgetl.process import tune
from tests.bench.claims import keep

OTHER = {"__init__", "__main__", "claims", "peers", "steps", "subjects"}


def families() -> list[str]:
    """The families' names: one module each, `start_up.py` is `start-up`."""
    return sorted(p.stem.replace("_", "-") for p in Path(__file__).parent.glob("*.py") if p.stem not in OTHER)


def main(only: str | None) -> int:
    """Run and print; 0 also where a claim falls short: a benchmark tells, a test judges."""
    if only and only not in families():
        print(f"no benchmark named {only}; there are: {', '.join(families())}", file=sys.stderr)
        return 2
    tune()
    print("claim | measured | aim | holds or falls short")
    for family in [only] if only else families():
        claims = []
        for claim in import_module(f"tests.bench.{family.replace('-', '_')}").run():
            print(f"{family}: {claim.line()}", flush=True)
            claims.append(claim)
        keep(family, claims)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else None))
