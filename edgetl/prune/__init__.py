"""Structured pruning: channels are truly removed, in steps with recovery. See `importance`, `apply`, `stage`."""
