"""Regression gates: a bundle against a baseline, or against another bundle, in accuracy, latency and size."""
