"""What a run of the measurements says: `.build/scale.json`, and its tables for people.

`python -m tests.scale.report` prints the tables of the last run; with `--write` it puts them into `docs/scaling.md`.
"""

import argparse
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Self

import msgspec
from msgspec import Struct

from benchmarks.capacity import put
from benchmarks.report import machine

RESULT = Path(__file__).parents[2] / ".build" / "scale.json"
PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"
_LATE_S = 300.0

BEGIN, END = "<!-- measured: moves -->", "<!-- end: moves -->"


class Steady(Struct):
    """Some seconds without an event. In ms: from when a command was due until its answer."""

    workers: int
    commands_s: float
    p50_ms: float
    p99_ms: float


class Moved(Struct):
    """One event: what happened, to how many workers, and how long each partition gave no answer.

    moved_ms: of the partitions that have another owner than before; stayed_ms: of the others.
    """

    event: str
    before: int
    after: int
    moved_ms: list[float]
    stayed_ms: list[float]


class Report(Struct):
    """All that was measured in a run, which began at `began_s` by `time.monotonic`."""

    machine: dict[str, Any]
    session_ms: int = 0
    rate: float = 0.0
    steady: list[Steady] = []
    events: list[Moved] = []
    began_s: float = 0.0

    @classmethod
    def of_this_machine(cls) -> Self:
        """An empty one."""
        return cls(machine() | {"load": round(os.getloadavg()[0], 1)}, began_s=time.monotonic())

    @property
    def is_late(self) -> bool:
        """Whether nothing should be tried once more: the machine is too slow for it."""
        return time.monotonic() - self.began_s > _LATE_S

    def write(self) -> None:
        """For `python -m tests.scale.report`; a run in which nothing was measured leaves the last one."""
        if self.steady or self.events:
            RESULT.parent.mkdir(exist_ok=True)
            RESULT.write_bytes(msgspec.json.format(msgspec.json.encode(self)) + b"\n")


def percentile(values: Sequence[float], percent: int) -> float:
    """By interpolation; of a single value it is that value."""
    return quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]


def tables(report: Report) -> str:
    """Both tables, in Markdown."""
    steady = [
        (f"{one.workers}", f"{one.commands_s:,.0f}", f"{one.p50_ms:,.0f} ms", f"{one.p99_ms:,.0f} ms")
        for one in sorted(report.steady, key=lambda one: one.workers)
    ]
    by_event: dict[tuple[str, int, int], list[Moved]] = defaultdict(list)
    for one in report.events:
        by_event[one.event, one.before, one.after].append(one)
    events = [_event_row(*key, of_kind) for key, of_kind in sorted(by_event.items(), key=lambda item: item[0][1:])]
    said = f"{report.machine['processors']} processors for everything (load {report.machine['load']} at the beginning)"
    said = f"{said}, session time-out {report.session_ms / 1000:g} s"
    return "\n".join(
        [
            f"{said}, {report.rate:g} commands a second on each partition beside the checker's clients.",
            "",
            *_table(("workers", "commands/s", "send to reply, p50", "p99"), steady),
            "",
            *_table(
                (
                    "event",
                    "workers",
                    "tries",
                    "partitions that moved",
                    "pause, p50",
                    "p99",
                    "longest",
                    "others, longest",
                ),
                events,
            ),
        ]
    )


def _event_row(event: str, before: int, after: int, tries: Sequence[Moved]) -> tuple[str, ...]:
    moved = [pause for one in tries for pause in one.moved_ms]
    stayed = [pause for one in tries for pause in one.stayed_ms]
    partitions = len(tries[0].moved_ms) + len(tries[0].stayed_ms)
    figures = (percentile(moved, 50), percentile(moved, 99), max(moved)) if moved else ()
    return (
        event,
        f"{before} → {after}",
        f"{len(tries)}",
        f"{median(len(one.moved_ms) for one in tries):g} of {partitions}",
        *(f"{value / 1000:.2f} s" for value in figures),
        f"{max(stayed) / 1000:.2f} s" if stayed else "",
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    rule = [" --- ", *(" --: " for _ in heads[1:])]
    return [f"| {' | '.join(heads)} |", f"|{'|'.join(rule)}|", *(f"| {' | '.join(row)} |" for row in rows)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.scale.report", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"put the tables into docs/{PAGE.name}")
    shown = tables(msgspec.json.decode(RESULT.read_bytes(), type=Report))
    if parser.parse_args().write:
        PAGE.write_text(put(PAGE.read_text(), BEGIN, END, shown))
    sys.stdout.write(f"{shown}\n")


if __name__ == "__main__":
    main()
