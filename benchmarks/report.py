"""Runs become rows, rows a table."""

import os
import platform
import sqlite3
import sys
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from msgspec import Struct, field
from rich.console import Console
from rich.table import Table

from benchmarks.drain import Drained
from benchmarks.latency import Latency

_LEAST_SHARE = 0.35
_MOST_TIMES = 4.0
_MOST_MIB = 300.0
_WIDTH = 120
_NAMES = {"sqlite": "SQLite", "postgres": "PostgreSQL"}


class Row(Struct):
    """One figure beside its yardstick; both are medians. `reached` is None where there is no goal."""

    name: str
    unit: str
    worker: float
    yardstick: float
    ratio: float
    goal: str = ""
    reached: bool | None = None


class Result(Struct):
    """All of it, as `.build/bench.json` has it."""

    machine: dict[str, Any]
    commands: int
    seconds: float
    runs: int
    rows: list[Row] = field(default_factory=list)
    worker: dict[str, list[Drained | Latency]] = field(default_factory=dict)
    yardstick: dict[str, list[Drained | Latency]] = field(default_factory=dict)

    def add(self, name: str, rows: list[Row], worker: Sequence[Any], yardstick: Sequence[Any]) -> None:
        """The runs of a benchmark, and what they come to."""
        self.rows += rows
        self.worker[name] = list(worker)
        self.yardstick[name] = list(yardstick)

    @property
    def failures(self) -> list[str]:
        """The runs that do not count, and why."""
        return [
            f"{name}, run {number}: {run.failure}"
            for by_name in (self.worker, self.yardstick)
            for name, runs in by_name.items()
            for number, run in enumerate(runs, 1)
            if run.failure is not None
        ]


def machine() -> dict[str, Any]:
    """What it was measured on."""
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processors": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }


def drain_rows(store: str, worker: Sequence[Drained], bare: Sequence[Drained]) -> list[Row]:
    """Rate, processor time and memory of a drain."""
    name = f"drain, {_NAMES[store]}"
    rate = _row(name, "commands/s", lambda run: run.rate, worker, bare)
    rate.goal, rate.reached = f"≥ {_LEAST_SHARE:.0%}", rate.ratio >= _LEAST_SHARE
    cpu = _row(f"{name}: CPU per command", "µs", lambda run: run.cpu_us, worker, bare)
    memory = _row(f"{name}: peak memory", "MiB", lambda run: run.peak_mib, worker, bare)
    memory.goal, memory.reached = f"≤ {_MOST_MIB:.0f} MiB", memory.worker <= _MOST_MIB
    return [rate, cpu, memory]


def latency_rows(store: str, worker: Sequence[Latency], echo: Sequence[Latency]) -> list[Row]:
    """The median and the 99th percentile of send to reply."""
    name = f"send to reply, {_NAMES[store]}"
    p50 = _row(f"{name}: p50", "ms", lambda run: run.p50_ms, worker, echo)
    p50.goal, p50.reached = f"≤ {_MOST_TIMES:g} x", p50.ratio <= _MOST_TIMES
    return [p50, _row(f"{name}: p99", "ms", lambda run: run.p99_ms, worker, echo)]


def _row(name: str, unit: str, figure: Callable[[Any], float], worker: Sequence[Any], yardstick: Sequence[Any]) -> Row:
    ours, theirs = median(map(figure, worker)), median(map(figure, yardstick))
    return Row(name, unit, ours, theirs, ours / theirs if theirs else 0.0)


def print_table(result: Result) -> None:
    """For people; what failed is said below."""
    table = Table(title=f"median of {result.runs}; the yardstick is the bare path or the bare echo, in the same run")
    table.add_column("")
    for heading in ("worker", "yardstick"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for heading in ("ratio", "goal"):
        table.add_column(heading, justify="right")
    for row in result.rows:
        mark = "" if row.reached is None else " ✓" if row.reached else " ✗"
        table.add_row(row.name, _shown(row.worker), _shown(row.yardstick), row.unit, _ratio(row), f"{row.goal}{mark}")
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    console.print(table)
    for failure in result.failures:
        console.print(f"[red]does not count:[/] {failure}", highlight=False)


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _ratio(row: Row) -> str:
    return f"{row.ratio:.0%}" if row.unit == "commands/s" else f"{row.ratio:.1f} x"
