"""Results, as frozen dataclasses that travel as JSON both ways.

Every stage returns one record. Units stand in the names: `_ms` milliseconds, `_bytes` bytes, `seconds` seconds.
Paths in records are relative to the run folder, so that a run can be moved.
"""
