"""Puts the last results into the documentation, tables and plots: `python -m benchmarks.document`."""

import re
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.peers.results import PEERS_RESULT, Peers
from benchmarks.peers.results import document as side_by_side
from benchmarks.report import RESULT, Result, cells
from benchmarks.targets import TARGETS, in_order
from processor.cli.plots import Bar, Line, bar_plot, line_plot

_PAGE = Path("docs/performance.md")
_PLOTS = Path("docs/performance")


def main() -> None:
    page = _PAGE.read_text()
    if RESULT.exists():
        page = put(page, "measured", _measured(msgspec.json.decode(RESULT.read_bytes(), type=Result)))
    if PEERS_RESULT.exists():
        page = put(page, "side by side", side_by_side(msgspec.json.decode(PEERS_RESULT.read_bytes(), type=Peers)))
    _PAGE.write_text(page)


def put(page: str, name: str, block: str) -> str:
    """The page with the block between the marks of this name."""
    between = re.compile(rf"(<!-- {name}: [^\n]*? -->\n).*?(<!-- end -->)", re.DOTALL)
    return between.sub(lambda match: match[1] + block + match[2], page)


def _measured(result: Result) -> str:
    _PLOTS.mkdir(exist_ok=True)
    plots = {"shares": _shares(result), "open-loop": _open_loop(result.runs.get("open-loop", {}).get("offered", []))}
    drawn = {name: svg for name, svg in plots.items() if svg is not None}
    for name, svg in drawn.items():
        (_PLOTS / f"{name}.svg").write_text(svg)
    images = "".join(f"\n![{name}](performance/{name}.svg)\n" for name in drawn)
    return f"{_machine(result)}\n\n{_table(result)}{images}"


def _machine(result: Result) -> str:
    on, options = result.machine, result.options
    return (
        f"{on['processors']} processors for broker, database, worker and client together; {on['system']}, Python "
        f"{on['python']}, SQLite {on['sqlite']}; median of {options.runs} turns, and of their ratios, "
        f"{options.commands:,} commands a drain. ✓ the floor is reached, ✓✓ the goal."
    )


def _table(result: Result) -> str:
    lines = ["| | floor | goal | measured | |", "|---|--:|--:|--:|---|"]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in in_order(result.rows)]
    return "\n".join(lines) + "\n"


def _shares(result: Result) -> str | None:
    bars = [
        Bar(target.name, row.measured or 0.0, f"{row.measured or 0.0:.0f}%", (target.floor, target.goal))
        for row in in_order(result.rows)
        if (target := TARGETS[row.key]).unit == "%"
    ]
    return bar_plot("share of the yardstick; red the floor, green the goal", bars) if bars else None


def _open_loop(runs: list[Any]) -> str | None:
    """The curves of the run in the middle by its highest load."""
    runs = [run for run in runs if run["failure"] is None]
    if not runs:
        return None
    middle = sorted(runs, key=lambda run: list(run["levels"].values())[-1]["p99_ms"])[len(runs) // 2]
    lines = [
        Line(f"{share}%: {level['rate']:,.0f}/s", list(enumerate(level["percents"], 1)))
        for share, level in middle["levels"].items()
    ]
    return line_plot("send to reply at shares of the drain rate", "percentile", "ms", lines, log=True)


if __name__ == "__main__":
    main()
