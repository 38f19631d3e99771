"""An example to copy: hold a bundle to its baseline in your own tests.

    pip install edgetl-*.whl onnxruntime pytest
    edgetl baseline model.edgetl --data photos -o baseline.json     # once, on the machine that runs the tests
    pytest test_edge_model.py

On a machine that others use too, keep the last good bundle and write `against="good.edgetl"` instead of
`baseline=...`: both are then timed in turn, and the machine's moods cancel out. To judge another bundle with the same
tests, leave `bundle` out of the marker and give `--edge-bundle`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.edge(bundle="model.edgetl", baseline="baseline.json", data="photos", threads=1)


def test_no_accuracy_is_lost(assert_accuracy):
    assert_accuracy()


@pytest.mark.edge(max_latency_increase=0.05, max_memory_increase=0.2)
def test_it_is_as_fast_and_as_small(assert_latency, assert_footprint):
    assert_latency()
    assert_footprint()


def test_it_knows_a_red_picture(edge_session, edge_baseline):
    picture = Path(__file__).parent / "photos" / "red" / "0.png"
    assert edge_session.predict(picture).label == "red"
    assert edge_session.labels == edge_baseline.labels
