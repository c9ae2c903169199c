"""Show the calibration of a store: what each recall takes, as a table and as a chart."""

from collections.abc import Mapping, Sequence
from typing import Any

from compactds.cli.drawing import Chart, Series
from compactds.cli.output import table

HEADER = ("recall asked", "effort", "candidates", "measured", "promised", "ms a query")


def curve_chart(name: str, curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> Chart:
    """Return the chart of one or more curves, by what each is called; points as the manifest has them."""
    return Chart(
        title=f"{name}: recall and what it costs",
        x_label="milliseconds a query, one at a time",
        y_label="recall@10 that is promised",
        series=[
            Series(
                called,
                sorted((point["milliseconds"], point["promised"]) for point in points),
                [
                    f"effort {point['effort']}, {point['candidates']} candidates: {point['promised']}"
                    for point in sorted(points, key=lambda point: point["milliseconds"])
                ],
                joined=False,
            )
            for called, points in curves.items()
            if points
        ],
    )


def curve_table(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return lines that say, for each recall somebody might ask for, what a search then does."""
    from compactds.datastore.tuning import SHOWN_RECALLS

    rows = []
    for recall in SHOWN_RECALLS:
        point = chosen(points, recall)
        if point is not None:
            rows.append((f"{recall:g}", *_cells(point)))
    return table(rows, header=HEADER)


def chosen(points: Sequence[Mapping[str, Any]], recall: float) -> Mapping[str, Any] | None:
    """Return the point that a search takes for a recall, as `plan.point_for` does."""
    return next((point for point in points if point["promised"] >= recall), points[-1] if points else None)


def _cells(point: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        f"{point['effort']:,}",
        f"{point['candidates']:,}",
        f"{point['recall']:.3f}",
        f"{point['promised']:.3f}",
        f"{point['milliseconds']:.3f}",
    )
