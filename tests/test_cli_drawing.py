"""Charts show every point where it belongs, as a picture and as characters."""

import xml.etree.ElementTree as ElementTree

import pytest
import typer

from compactds.cli.curves import chosen, curve_chart, curve_table
from compactds.cli.drawing import Chart, Series, check_plot, svg, text

SVG = "{http://www.w3.org/2000/svg}"
CHART = Chart(
    "Codes & recall",
    "bytes",
    "recall <10>",
    [
        Series("first", [(1, 0.5), (10, 0.75), (100, 1.0)], ["a", "b & c"]),
        Series("second", [(10, 0.5)], joined=False),
    ],
)


def elements(chart, name):
    return ElementTree.fromstring(svg(chart)).findall(f"{SVG}{name}")


class TestPicture:
    def test_it_is_well_formed_and_says_what_it_shows(self):
        words = [element.text for element in elements(CHART, "text")]
        assert {"Codes & recall", "bytes", "recall <10>", "first", "second"} <= set(words)

    def test_points_lie_by_the_logarithm_of_x_and_by_y(self):
        places = [
            (float(circle.get("cx")), float(circle.get("cy")))
            for circle in elements(CHART, "circle")
            if circle.get("r") == "3.5"
        ]
        first, middle, last, other = places
        assert middle[0] - first[0] == pytest.approx(last[0] - middle[0], abs=0.2)
        assert first[1] > middle[1] > last[1]
        assert other == (middle[0], first[1])

    def test_labels_are_tips(self):
        tips = [tip.text for circle in elements(CHART, "circle") for tip in circle]
        assert tips == ["a", "b & c"]

    def test_lines_join_points_where_wanted(self):
        assert len(elements(CHART, "polyline")) == 1

    @pytest.mark.parametrize("series", [[], [Series("one", [(3.0, 1.0)])]])
    def test_nothing_and_a_single_point_can_be_drawn(self, series):
        chart = Chart("t", "x", "y", series)
        assert len(elements(chart, "circle")) == len(series)
        assert text(chart)


class TestCharacters:
    def test_marks_stand_where_points_are(self):
        lines = text(CHART, width=41, height=9)
        columns = {
            line.index("o"): number for number, line in enumerate(lines) if "o" in line and "|" in line
        }
        left, middle, right = sorted(columns)
        assert right - middle == pytest.approx(middle - left, abs=1)
        assert columns[left] > columns[middle] > columns[right]

    def test_axes_and_series_are_named(self):
        lines = text(CHART)
        assert lines[0] == "recall <10>"
        assert "bytes (log)" in lines[-2]
        assert lines[-1].split("   ")[-1] == "x second"


@pytest.mark.parametrize(
    ("name", "message"), [("curve.png", "does not end in .svg"), ("no/c.svg", "no folder")]
)
def test_files_that_no_chart_goes_to_are_refused_at_once(tmp_path, name, message):
    with pytest.raises(typer.BadParameter, match=message):
        check_plot(tmp_path / name)
    check_plot(tmp_path / "curve.SVG")


POINTS = [
    {"effort": 2, "candidates": 32, "recall": 0.85, "promised": 0.82, "milliseconds": 0.2},
    {"effort": 8, "candidates": 64, "recall": 0.97, "promised": 0.96, "milliseconds": 0.1},
]


def test_the_table_says_what_a_search_takes_for_each_recall():
    lines = curve_table(POINTS)
    assert lines[1].split() == ["0.8", "2", "32", "0.850", "0.820", "0.200"]
    assert [line.split()[1] for line in lines[2:]] == ["8"] * 5
    assert curve_table([])[1:] == []
    assert chosen([], 0.9) is None


def test_curves_are_drawn_from_left_to_right_and_empty_ones_not_at_all():
    chart = curve_chart("s", {"before": POINTS, "after": []})
    (series,) = chart.series
    assert list(series.points) == [(0.1, 0.96), (0.2, 0.82)]
    assert "effort 8, 64 candidates" in series.labels[0]
