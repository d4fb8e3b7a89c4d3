"""Plots as SVG, small enough to stand in a page or a repository."""

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

_WIDTH, _HEIGHT = 760, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 36, 44
_COLORS = ("#1f6feb", "#d1572b", "#2e8b57", "#8957e5", "#b8860b", "#6e7781")
_BAR_ROW, _BAR_LABELS = 26, 330


class Line(NamedTuple):
    """A curve: its name, and points from left to right."""

    name: str
    points: Sequence[tuple[float, float]]


class Bar(NamedTuple):
    """A figure, and marks to be held against it."""

    name: str
    value: float
    text: str
    marks: Sequence[float] = ()


def line_plot(title: str, across: str, up: str, lines: Sequence[Line], *, log: bool = False) -> str:
    """Curves over a common axis; both axes begin at 0, or the one upwards is logarithmic."""
    points = [point for line in lines for point in line.points]
    most_x = max((x for x, _ in points), default=0.0) or 1.0
    most_y = max((y for _, y in points), default=0.0) or 1.0
    least_y = min((y for _, y in points if y > 0), default=most_y / 10) if log else 0.0
    ticks = list(_decades(least_y, most_y)) if log else list(_steps(most_y))
    low, high = ticks[0], max(ticks[-1], most_y)

    def place(x: float, y: float) -> tuple[float, float]:
        share = (math.log(max(y, low)) - math.log(low)) / (math.log(high) - math.log(low)) if log else y / high
        return (
            _LEFT + x / most_x * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM),
        )

    parts = [_text(_WIDTH / 2, 16, title, anchor="middle", weight="bold")]
    for tick in ticks:
        _, y = place(0, tick)
        parts.append(_rule(_LEFT, y, _WIDTH - _RIGHT, y))
        parts.append(_text(_LEFT - 6, y + 4, short(tick), anchor="end"))
    for tick in _steps(most_x):
        x, _ = place(tick, low)
        parts.append(_text(x, _HEIGHT - _BOTTOM + 16, short(tick), anchor="middle"))
    parts.append(_text(_WIDTH / 2, _HEIGHT - 8, across, anchor="middle"))
    parts.append(_text(_LEFT, _TOP - 8, up))
    for index, line in enumerate(lines):
        color = _COLORS[index % len(_COLORS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line.points))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.8"/>')
        if len(lines) > 1:
            parts.append(_text(_LEFT + 90 + 150 * index, _TOP - 8, line.name, color=color))
    return _svg(_HEIGHT, parts)


def bar_plot(title: str, bars: Sequence[Bar]) -> str:
    """Bars one below the other, each with its marks as strokes across it."""
    most = max((max(bar.value, *bar.marks, 0.0) for bar in bars), default=0.0) or 1.0
    scale = (_WIDTH - _BAR_LABELS - 90) / most
    parts = [_text(_WIDTH / 2, 16, title, anchor="middle", weight="bold")]
    for row, bar in enumerate(bars):
        top = _TOP - 8 + row * _BAR_ROW
        length = bar.value * scale
        parts.append(_text(_BAR_LABELS - 8, top + 14, bar.name, anchor="end"))
        parts.append(f'<rect x="{_BAR_LABELS}" y="{top}" width="{length:.1f}" height="18" fill="{_COLORS[0]}"/>')
        parts.append(_text(_BAR_LABELS + max(length, *(m * scale for m in bar.marks), 0) + 6, top + 14, bar.text))
        for mark, color in zip(bar.marks, ("#d1572b", "#2e8b57"), strict=False):
            x = _BAR_LABELS + mark * scale
            parts.append(
                f'<line x1="{x:.1f}" y1="{top - 2}" x2="{x:.1f}" y2="{top + 20}" stroke="{color}" stroke-width="2"/>'
            )
    return _svg(_TOP + len(bars) * _BAR_ROW, parts)


def short(value: float) -> str:
    """A number as an axis has it: 2k, 1.5M, 0.25."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"


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
    x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal", color: str = "#57606a"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" fill="{color}">'
        f"{escape(text)}</text>"
    )


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#d0d7de"/>'


def _svg(height: int, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" '
        f'font-size="12"><rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )
