"""The stages in order, cached and resumable: the one place besides the command line that knows them all."""

from __future__ import annotations

from edgetl.pipeline.flow import cross_validate, follow, run
from edgetl.pipeline.recipe import other_source, resolve
from edgetl.pipeline.stages import Outcome, Stage

__all__ = ["Outcome", "Stage", "cross_validate", "follow", "other_source", "resolve", "run"]
