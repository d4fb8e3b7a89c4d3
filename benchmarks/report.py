"""What was measured: kept as JSON, and as a table, on the terminal and in the documentation."""

import os
import platform
import sqlite3
import sys
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field
from rich.console import Console
from rich.table import Table

from benchmarks.experiment import Options
from benchmarks.targets import Row, Target, in_order

RESULT = Path(".build/bench.json")

_WIDTH = 140
_MARKS = {"goal": "✓✓", "floor": "✓", "missed": "✗"}


class Result(Struct):
    """Rows, `runs` by experiment and side, and `broken` experiments with the reason."""

    machine: dict[str, Any]
    options: Options
    rows: list[Row] = field(default_factory=list)
    runs: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)

    @property
    def failures(self) -> list[str]:
        """The runs that do not count, and why."""
        broken = [f"{experiment}: {reason}" for experiment, reason in self.broken.items()]
        return broken + [
            f"{experiment}, {side}, run {number}: {run.failure}"
            for experiment, sides in self.runs.items()
            for side, runs in sides.items()
            for number, run in enumerate(runs, 1)
            if run.failure is not None
        ]


def encoded(result: Result) -> bytes:
    """As JSON, for people too."""
    return msgspec.json.format(msgspec.json.encode(result)) + b"\n"


def keep(result: Result, path: Path = RESULT) -> None:
    """Write it to the file; what that has of other experiments stays, where machine and options were the same."""
    kept = result
    if path.exists():
        before = msgspec.json.decode(path.read_bytes(), type=Result)
        if (before.machine, before.options) == (result.machine, result.options):
            kept = _brought_up_to_date(before, result)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(encoded(kept))


def _brought_up_to_date(before: Result, now: Result) -> Result:
    keys = {row.key for row in now.rows}
    return Result(
        now.machine,
        now.options,
        [row for row in before.rows if row.key not in keys] + now.rows,
        before.runs | now.runs,
        {name: why for name, why in before.broken.items() if name not in now.runs} | now.broken,
    )


def machine() -> dict[str, Any]:
    """What it was measured on."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processors": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }


def cells(row: Row) -> tuple[str, str, str, str, str]:
    """Name, floor, goal, measured and the absolute figures."""
    target = row.target
    mark = _MARKS[row.reached]
    measured = "does not count" if row.measured is None else _with_unit(target, row.measured)
    return target.name, _bound(target, target.floor), _bound(target, target.goal), f"{measured} {mark}", row.detail


def _bound(target: Target, value: float) -> str:
    return f"{'≥' if target.more else '≤'} {_with_unit(target, value)}"


def _with_unit(target: Target, value: float) -> str:
    number = f"{value:,.0f}" if target.unit in ("%", "MB") or value >= 100 else f"{value:.3g}"
    return f"{number}%" if target.unit == "%" else f"{number} {target.unit}"


def print_table(result: Result) -> None:
    """For people; what failed is said below."""
    table = Table(title=f"median of {result.options.runs}; ✓ the floor is reached, ✓✓ the goal")
    for heading in ("", "floor", "goal", "measured"):
        table.add_column(heading, justify="left" if not heading else "right")
    table.add_column("absolute")
    for row in in_order(result.rows):
        table.add_row(*cells(row))
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    console.print(table)
    for failure in result.failures:
        console.print(f"does not count: {failure}", style="red", highlight=False, markup=False)
