"""Benchmarks over time, stored in a SQLite file: what was measured when, of which commit, on which machine."""

from edgetl.history.store import append
from edgetl.history.trend import read, spread

__all__ = ["append", "read", "spread"]
