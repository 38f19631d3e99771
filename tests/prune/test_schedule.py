from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetl.prune.schedule import shares


def test_steps_keep_equal_shares_of_what_they_find() -> None:
    assert shares(0.25, 2) == (0.5, 0.25)
    assert shares(0.3, 1) == (0.3,)


@given(st.floats(0.01, 0.99), st.integers(1, 20))
def test_the_schedule_falls_to_the_target(target: float, steps: int) -> None:
    values = shares(target, steps)
    assert len(values) == steps
    assert values[-1] == target
    path = (1.0, *values)
    ratios = [later / earlier for earlier, later in itertools.pairwise(path)]
    assert all(r < 1 for r in ratios)
    assert ratios == pytest.approx([ratios[0]] * steps)
