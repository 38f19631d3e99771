"""Latency, load time and memory of a bundle on this machine, with what it takes to trust the figures."""
