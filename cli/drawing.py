"""Draw points as a chart: SVG for a file, characters for a terminal."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import typer

from compactds.cli.output import warn

_WIDTH, _HEIGHT = 760, 460
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 24, 48, 60
_COLORS = ("#1f5fa8", "#c2521b", "#2f7d4f", "#7a4fa3", "#8a6d1d", "#555555")
_MARKS = "ox+*#@"
_TICKS = 6


@dataclass(frozen=True, slots=True)
class Series:
    """Hold the points (x, y) of one series, from left to right, and what is written beside each.

    `joined` draws a line through them.
    """

    name: str
    points: Sequence[tuple[float, float]]
    labels: Sequence[str] = ()
    joined: bool = True


@dataclass(frozen=True, slots=True)
class Chart:
    """Hold what a chart shows; x is drawn by its logarithm and must be above 0."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]


def check_plot(path: Path) -> None:
    """Refuse a file that a chart cannot be written to, before any work is done."""
    if path.suffix.lower() != ".svg":
        raise typer.BadParameter(f"{str(path)!r} does not end in .svg", param_hint="'--plot'")
    if not path.absolute().parent.is_dir():
        raise typer.BadParameter(f"there is no folder {str(path.parent)!r}", param_hint="'--plot'")


def draw(chart: Chart, path: Path) -> None:
    """Write a chart to a file as SVG; without any point, say that there is nothing to draw."""
    if any(series.points for series in chart.series):
        path.write_text(svg(chart), encoding="utf-8")
    else:
        warn(f"{path} is not written: every search is exact, so there is no curve to draw")


def svg(chart: Chart) -> str:
    """Return a chart as an SVG picture, which browsers show."""
    scale = _Scale.of(chart)
    body = [*_frame(chart, scale)]
    for number, series in enumerate(chart.series):
        body += _drawn(series, scale, _COLORS[number % len(_COLORS)])
        body += _legend(series.name, number) if len(chart.series) > 1 else ()
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}" font-family="sans-serif" font-size="12">\n'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def text(chart: Chart, *, width: int = 64, height: int = 14) -> list[str]:
    """Return a chart as lines of characters, with the names of its series below."""
    scale = _Scale.of(chart)
    cells = [[" "] * width for _ in range(height)]
    for number, series in reversed(list(enumerate(chart.series))):
        for x, y in series.points:
            column, row = round(scale.x(x) * (width - 1)), round((1 - scale.y(y)) * (height - 1))
            cells[row][column] = _MARKS[number % len(_MARKS)]
    lines = [chart.y_label]
    for row, marks in enumerate(cells):
        shown = f"{scale.y_at(1 - row / (height - 1)):6.3f}" if row % 3 == 0 or row == height - 1 else " " * 6
        lines.append(f"{shown} |{''.join(marks)}".rstrip())
    low, high = _short(scale.low_x), _short(scale.high_x)
    lines.append(" " * 7 + "+" + "-" * width)
    lines.append(" " * 8 + low + (chart.x_label + " (log)").center(width - len(low) - len(high)) + high)
    if len(chart.series) > 1:
        named = (f"{_MARKS[number % len(_MARKS)]} {one.name}" for number, one in enumerate(chart.series))
        lines.append(" " * 8 + "   ".join(named))
    return lines


@dataclass(frozen=True, slots=True)
class _Scale:
    low_x: float
    high_x: float
    low_y: float
    high_y: float

    @classmethod
    def of(cls, chart: Chart) -> "_Scale":
        points = [point for series in chart.series for point in series.points]
        xs = [x for x, _ in points] or [1.0]
        ys = [y for _, y in points] or [1.0]
        low_x, high_x = min(xs) / 1.1, max(xs) * 1.1
        low_y, high_y = math.floor(20 * min(ys)) / 20, math.ceil(20 * max(ys)) / 20
        return cls(low_x, high_x, low_y, high_y if high_y > low_y else low_y + 0.05)

    def x(self, value: float) -> float:
        """Return where a value lies from left, 0, to right, 1."""
        return math.log(value / self.low_x) / math.log(self.high_x / self.low_x)

    def y(self, value: float) -> float:
        """Return where a value lies from the bottom, 0, to the top, 1."""
        return (value - self.low_y) / (self.high_y - self.low_y)

    def y_at(self, place: float) -> float:
        return self.low_y + place * (self.high_y - self.low_y)

    def pixels(self, x: float, y: float) -> tuple[float, float]:
        across, up = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
        return round(_LEFT + across * self.x(x), 1), round(_TOP + up * (1 - self.y(y)), 1)


def _frame(chart: Chart, scale: _Scale) -> Iterator[str]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    yield f'<text x="{_LEFT}" y="26" font-size="15" font-weight="bold">{escape(chart.title)}</text>'
    for step in range(_TICKS):
        value = scale.y_at(step / (_TICKS - 1))
        _, y = scale.pixels(scale.low_x, value)
        yield f'<line x1="{_LEFT}" y1="{y}" x2="{right}" y2="{y}" stroke="#dddddd"/>'
        yield f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{value:.2f}</text>'
    for value in _x_ticks(scale):
        x, _ = scale.pixels(value, scale.low_y)
        yield f'<line x1="{x}" y1="{_TOP}" x2="{x}" y2="{bottom}" stroke="#eeeeee"/>'
        yield f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{_short(value)}</text>'
    middle = (_LEFT + right) / 2
    yield f'<text x="{middle}" y="{_HEIGHT - 18}" text-anchor="middle">{escape(chart.x_label)}</text>'
    yield f'<text x="{_LEFT}" y="{_TOP - 6}" fill="#555555">{escape(chart.y_label)}</text>'


def _drawn(series: Series, scale: _Scale, color: str) -> Iterator[str]:
    places = [scale.pixels(x, y) for x, y in series.points]
    if series.joined and len(places) > 1:
        path = " ".join(f"{x},{y}" for x, y in places)
        yield f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.5"/>'
    for number, (x, y) in enumerate(places):
        label = series.labels[number] if number < len(series.labels) else ""
        tip = f"<title>{escape(label)}</title>" if label else ""
        yield f'<circle cx="{x}" cy="{y}" r="3.5" fill="{color}">{tip}</circle>'


def _legend(name: str, number: int) -> Iterator[str]:
    color, y = _COLORS[number % len(_COLORS)], _HEIGHT - _BOTTOM - 14 - 18 * number
    x = _WIDTH - _RIGHT - 12
    yield f'<circle cx="{x}" cy="{y}" r="4" fill="{color}"/>'
    yield f'<text x="{x - 10}" y="{y + 4}" text-anchor="end">{escape(name)}</text>'


def _x_ticks(scale: _Scale) -> list[float]:
    """Return round numbers between the ends of the axis: 1, 2 and 5 times powers of ten."""
    first, last = math.floor(math.log10(scale.low_x)), math.ceil(math.log10(scale.high_x))
    candidates = [step * 10.0**power for power in range(first, last + 1) for step in (1, 2, 5)]
    return [value for value in candidates if scale.low_x <= value <= scale.high_x]


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
