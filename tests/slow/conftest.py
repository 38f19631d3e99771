"""Fixtures of the long runs."""

from __future__ import annotations

import pytest

from tests.slow.left_out import Runs, runs
from tests.slow.test_real_sets import RealSet


@pytest.fixture(scope="session")
def left_out(real_set: RealSet, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A function from a set's name to a run on it without five of its classes."""
    return runs(real_set, tmp_path_factory)
