import pytest

from edgetl.report import units


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (units.percent(0.97314), "97.3%"),
        (units.percent(1.0, 0), "100%"),
        (units.points(-0.62), "-0.6 points"),
        (units.points(1.25), "+1.2 points"),
        (units.points(-0.04), "0.0 points"),
        (units.interval((0.951, 0.9842)), "95.1 to 98.4%"),
        (units.milliseconds(0.18432), "0.184 ms"),
        (units.milliseconds(5.834), "5.83 ms"),
        (units.milliseconds(216.4), "216 ms"),
        (units.significant(12345.6), "12,346"),
        (units.significant(0.0), "0"),
        (units.significant(float("inf")), "inf"),
        (units.times(31.4), "31x"),
        (units.times(4.24), "4.2x"),
        (units.bytes_(812), "812 B"),
        (units.bytes_(1_317_220), "1.3 MB"),
        (units.bytes_(13_700_000), "13.7 MB"),
        (units.bytes_(999_900), "1.0 MB"),
        (units.bytes_(137_400_000), "137 MB"),
        (units.bytes_(34_000), "34.0 kB"),
        (units.bytes_(5_700_000_000), "5.7 GB"),
        (units.memory(16 * 2**30), "16.0 GiB"),
        (units.count(52314), "52,314"),
        (units.count(4_652_000), "4.65 M"),
        (units.count(204_800_000), "205 M"),
        (units.count(1_204_800_000), "1.20 G"),
        (units.counted(1, "image"), "1 image"),
        (units.counted(2271, "image"), "2,271 images"),
        (units.counted(3, "class"), "3 classes"),
        (units.duration(0.42), "0.4 s"),
        (units.duration(48.2), "48 s"),
        (units.duration(59.7), "1 min 00 s"),
        (units.duration(185), "3 min 05 s"),
        (units.duration(7630), "2 h 07 min"),
    ],
)
def test_text(text, expected):
    assert text == expected
