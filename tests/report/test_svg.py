import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetl.report.page.axes import Labels
from edgetl.report.page.svg import Drawing, Scale, linear_ticks, log_ticks, shorten


def test_scale_maps_ends_and_middle():
    scale = Scale(low=0, high=10, start=100, end=0)
    assert [scale(v) for v in (0, 5, 10)] == [100, 50, 0]
    assert [scale(v) for v in (-3, 12)] == [100, 0]


def test_log_scale_has_equal_steps_for_equal_ratios():
    scale = Scale(low=1, high=100, start=0, end=200, log=True)
    assert [scale(v) for v in (1, 10, 100)] == pytest.approx([0, 100, 200])


def test_scale_of_one_value_is_its_middle():
    assert Scale(low=3, high=3, start=0, end=10)(3) == 5


@pytest.mark.parametrize(
    ("low", "high", "about", "expected"),
    [
        (0, 1, 5, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.9, 1.0, 5, [0.9, 0.92, 0.94, 0.96, 0.98, 1.0]),
        (0, 1.7, 4, [0, 0.5, 1.0, 1.5]),
        (5, 5, 5, [5]),
    ],
)
def test_linear_ticks(low, high, about, expected):
    assert linear_ticks(low, high, about) == expected


def test_log_ticks_thin_out():
    assert log_ticks(0.9, 35) == [1, 2, 5, 10, 20]
    assert log_ticks(1, 1e6) == [1, 10, 100, 1000, 10_000, 100_000, 1_000_000]


@given(st.floats(1e-3, 1e3), st.floats(1.05, 1e4))
def test_ticks_lie_inside(low, factor):
    high = low * factor
    assert all(low <= t <= high for t in log_ticks(low, high))
    assert len(log_ticks(low, high)) <= 8
    ticks = linear_ticks(low, high)
    assert all(low - 1e-6 * high <= t <= high + 1e-6 * high for t in ticks)
    assert 2 <= len(ticks) <= 7


def test_drawing_is_xml_with_escaped_text():
    drawing = Drawing(100, 50)
    drawing.text(1, 2, "<b>&", title='"quoted"')
    drawing.circle(5, 5, 2, "dot", "a < b")
    drawing.path([(0, 0), (1.25, 3)], "curve")
    root = ET.fromstring(drawing.render('a "label"', "x < y"))
    assert root.attrib["aria-label"] == 'a "label". x < y'
    assert root.attrib["role"] == "img"
    assert root[0].tail is None
    assert root[0][0].tail == "<b>&"
    assert root[1][0].text == "a < b"
    assert root[2].attrib["d"] == "M0 0L1.2 3"


def test_shorten():
    assert shorten("passion flower", 20) == "passion flower"
    assert shorten("passion flower", 9) == "passion…"


def test_labels_keep_clear_of_each_other():
    drawing = Drawing(400, 300)
    labels = Labels(left=0, right=400, top=0, bottom=300)
    for _ in range(3):
        labels.place(drawing, 200, 150, [("a label", "name")])
    texts = ET.fromstring(drawing.render("labels")).findall("text")
    assert len({(t.attrib["x"], t.attrib["y"], t.attrib.get("text-anchor")) for t in texts}) == 3
