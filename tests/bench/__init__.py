"""Benchmarks: one module a claim family. `python -m tests.bench [NAME]` runs them."""
