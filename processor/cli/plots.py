"""Plots as SVG, small enough to stand in a page or a repository."""

import math
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import NamedTuple

_WIDTH, _HEIGHT = 560, 280
_BARS_WIDTH = 760
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 28, 64, 48
_INK = "#1f2328"
_COLORS = ("#1f6feb", "#d1572b", "#2e8b57", "#8957e5", "#b8860b", "#6e7781")
_BAR_ROW, _BAR_LABELS = 26, 330


class Line(NamedTuple):
    """A curve: its name, and points from left to right."""

    name: str
    points: Sequence[tuple[float, float]]


Ticks = Sequence[tuple[float, str]]
"""Places on an axis, and what stands there."""


class Bar(NamedTuple):
    """A figure, and marks to be held against it."""

    name: str
    value: float
    text: str
    marks: Sequence[float] = ()


def line_plot(
    title: str, across: str, up: str, lines: Sequence[Line], *, log: bool = False, ticks: Ticks | None = None
) -> str:
    """Curves over a common axis; both axes begin at 0, or the one upwards is logarithmic.

    `ticks`: what stands below the axis, where round numbers are not right.
    """
    points = [point for line in lines for point in line.points]
    most_x = max((x for x, _ in points), default=0.0) or 1.0
    most_y = max((y for _, y in points), default=0.0) or 1.0
    least_y = min((y for _, y in points if y > 0), default=most_y / 10) if log else 0.0
    levels = list(_decades(least_y, most_y)) if log else list(_steps(most_y))
    low, high = levels[0], max(levels[-1], most_y)

    def place(x: float, y: float) -> tuple[float, float]:
        share = (math.log(max(y, low)) - math.log(low)) / (math.log(high) - math.log(low)) if log else y / high
        return (
            _LEFT + x / most_x * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM),
        )

    parts = [_title(title), *_levels(levels, up, lambda y: place(0, y)[1])]
    for x, text in [(x, short(x)) for x in _steps(most_x) if x <= most_x] if ticks is None else ticks:
        parts.append(_text(place(x, low)[0], _HEIGHT - _BOTTOM + 18, text, anchor="middle"))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 8, across, anchor="middle"))
    for index, line in enumerate(lines):
        color = _COLORS[index % len(_COLORS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line.points))
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.6" stroke-linejoin="round"/>'
        )
    return _svg(_HEIGHT, [*parts, *_legend(lines)])


def column_plot(title: str, across: str, columns: Sequence[Bar]) -> str:
    """Columns side by side, each with its name below where there is room, and a line at their mean."""
    most = max((column.value for column in columns), default=0.0) or 1.0
    levels = list(_steps(most))
    width, height = (_WIDTH - _LEFT - _RIGHT) / max(1, len(columns)), _HEIGHT - _TOP - _BOTTOM

    def up_to(value: float) -> float:
        return _HEIGHT - _BOTTOM - value / levels[-1] * height

    parts = [_title(title), *_levels(levels, "", up_to)]
    for number, column in enumerate(columns):
        left, top = _LEFT + number * width, up_to(column.value)
        parts.append(
            f'<rect x="{left + width / 8:.1f}" y="{top:.1f}" width="{width * 3 / 4:.1f}" '
            f'height="{_HEIGHT - _BOTTOM - top:.1f}" fill="{_COLORS[0]}"/>'
        )
        if width >= 24 or number % 5 == 0:
            parts.append(_text(left + width / 2, _HEIGHT - _BOTTOM + 18, column.name, anchor="middle"))
    if columns:
        mean = sum(column.value for column in columns) / len(columns)
        parts.append(_rule(_LEFT, up_to(mean), _WIDTH - _RIGHT, up_to(mean), color=_COLORS[1]))
        parts.append(_text(_WIDTH - _RIGHT, _TOP - 10, f"mean {short(mean)}", anchor="end", color=_COLORS[1]))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 8, across, anchor="middle"))
    return _svg(_HEIGHT, parts)


def bar_plot(title: str, bars: Sequence[Bar]) -> str:
    """Bars one below the other, each with its marks as strokes across it."""
    most = max((max(bar.value, *bar.marks, 0.0) for bar in bars), default=0.0) or 1.0
    scale = (_BARS_WIDTH - _BAR_LABELS - 90) / most
    parts = [_title(title)]
    for row, bar in enumerate(bars):
        top = 40 + row * _BAR_ROW
        length = bar.value * scale
        parts.append(_text(_BAR_LABELS - 8, top + 14, bar.name, anchor="end"))
        parts.append(f'<rect x="{_BAR_LABELS}" y="{top}" width="{length:.1f}" height="18" fill="{_COLORS[0]}"/>')
        parts.append(_text(_BAR_LABELS + max(length, *(m * scale for m in bar.marks), 0) + 6, top + 14, bar.text))
        for mark, color in zip(bar.marks, ("#d1572b", "#2e8b57"), strict=False):
            x = _BAR_LABELS + mark * scale
            parts.append(
                f'<line x1="{x:.1f}" y1="{top - 2}" x2="{x:.1f}" y2="{top + 20}" stroke="{color}" stroke-width="2"/>'
            )
    return _svg(48 + len(bars) * _BAR_ROW, parts, _BARS_WIDTH)


def short(value: float) -> str:
    """A number as an axis has it: 2k, 1.5M, 0.25."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"


def _title(text: str) -> str:
    return _text(16, 22, text, weight="600", color=_INK, size=15)


def _levels(levels: Sequence[float], up: str, place: Callable[[float], float]) -> Iterator[str]:
    """Lines across, each with its number at the left, and their unit above."""
    for level in levels:
        y = place(level)
        yield _rule(_LEFT, y, _WIDTH - _RIGHT, y)
        yield _text(_LEFT - 8, y + 4, short(level), anchor="end")
    yield _text(16, _TOP - 12, up)


def _legend(lines: Sequence[Line]) -> Iterator[str]:
    """At the right, above the curves; one line needs none."""
    if len(lines) > 1:
        names = "&#160;&#160; ".join(
            f'<tspan fill="{_COLORS[index % len(_COLORS)]}">&#9679;</tspan> {escape(line.name)}'
            for index, line in enumerate(lines)
        )
        yield f'<text x="{_WIDTH - _RIGHT}" y="{_TOP - 12}" text-anchor="end" fill="{_INK}">{names}</text>'


def _steps(most: float) -> Iterator[float]:
    """Round numbers from 0 to the first that is not below `most`, four to eight of them."""
    power = 10 ** math.floor(math.log10(most))
    step = next(size * power for size in (0.2, 0.25, 0.5, 1.0, 2.0) if most / (size * power) <= 5)
    for number in range(math.ceil(most / step - 1e-9) + 1):
        yield number * step


def _decades(least: float, most: float) -> Iterator[float]:
    """Powers of ten around the range."""
    first, last = math.floor(math.log10(least)), math.ceil(math.log10(most))
    for power in range(first, max(last, first + 1) + 1):
        yield 10.0**power


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    weight: str = "normal",
    color: str = "#59636e",
    size: int = 12,
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" font-size="{size}" '
        f'fill="{color}">{escape(text)}</text>'
    )


def _rule(x1: float, y1: float, x2: float, y2: float, *, color: str = "#d9dfe5") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}"/>'


def _svg(height: int, parts: Sequence[str], width: int = _WIDTH) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="system-ui, sans-serif" font-size="12"><rect width="{width}" height="{height}" fill="#ffffff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )
