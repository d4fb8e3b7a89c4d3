from xml.etree import ElementTree as ET

import pytest

from processor.cli.plots import Bar, Line, bar_plot, column_plot, line_plot, short

_SVG = "{http://www.w3.org/2000/svg}"


def test_a_curve_stays_within_the_picture() -> None:
    drawn = ET.fromstring(line_plot("a < b", "s", "ms", [Line("x", [(0, 1), (5, 80), (10, 400)])], log=True))
    (line,) = drawn.findall(f"{_SVG}polyline")
    points = [tuple(map(float, pair.split(","))) for pair in line.get("points", "").split()]
    assert len(points) == 3
    assert all(0 <= x <= 760 and 0 <= y <= 300 for x, y in points)
    assert points[0][1] > points[1][1] > points[2][1], "what is more stands higher"


@pytest.mark.parametrize("log", [True, False])
def test_nothing_measured_is_still_a_picture(log: bool) -> None:
    ET.fromstring(line_plot("t", "x", "y", [Line("none", [])], log=log))
    ET.fromstring(bar_plot("t", []))
    ET.fromstring(column_plot("t", "x", []))


def test_bars_are_as_long_as_their_values() -> None:
    drawn = ET.fromstring(bar_plot("t", [Bar("a", 50, "50%", (50, 75)), Bar("b", 100, "100%")]))
    first, second = (float(rect.get("width", "0")) for rect in drawn.findall(f"{_SVG}rect")[1:])
    assert second == pytest.approx(2 * first)
    assert len(drawn.findall(f"{_SVG}line")) == 2


def test_columns_are_as_high_as_their_values() -> None:
    drawn = ET.fromstring(column_plot("t", "x", [Bar("a", 50, ""), Bar("b", 100, "")]))
    first, second = (float(rect.get("height", "0")) for rect in drawn.findall(f"{_SVG}rect")[1:])
    assert second == pytest.approx(2 * first, rel=0.01)


def test_numbers_on_an_axis() -> None:
    assert [short(value) for value in (0, 0.25, 12, 2_000, 1_500_000)] == ["0", "0.25", "12", "2k", "1.5M"]
