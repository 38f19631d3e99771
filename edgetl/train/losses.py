"""Loss functions that the training loop takes."""

from __future__ import annotations
