"""What a run of the measurements says: `.build/scale.json`, and its tables for people.

`python -m tests.scale.report` prints the tables of the last run; with `--write` it puts them into `docs/scaling.md`.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Self

import msgspec
from msgspec import Struct

from benchmarks.report import machine

RESULT = Path(__file__).parents[2] / ".build" / "scale.json"
PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"
BEGIN, END = "<!-- measured: moves -->", "<!-- end: moves -->"


class Steady(Struct):
    """Some seconds without an event. In ms: from when a command was due until its answer."""

    workers: int
    commands_s: float
    p50_ms: float
    p99_ms: float


class Moved(Struct):
    """One event: what happened, to how many workers, and how long each partition gave no answer.

    moved: partitions that have another owner than before.
    """

    event: str
    before: int
    after: int
    moved: int
    partitions: int
    pauses_ms: list[float]


class Report(Struct):
    """All that was measured in a run."""

    machine: dict[str, Any]
    session_ms: int = 0
    rate: float = 0.0
    steady: list[Steady] = []
    events: list[Moved] = []

    @classmethod
    def of_this_machine(cls) -> Self:
        """An empty one."""
        return cls(machine())

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
    said = f"{report.machine['processors']} processors for everything, session time-out {report.session_ms / 1000:g} s"
    return "\n".join(
        [
            f"{said}, {report.rate:g} commands a second on each partition beside the checker's clients.",
            "",
            *_table(("workers", "commands/s", "send to reply, p50", "p99"), steady),
            "",
            *_table(
                ("event", "workers", "tries", "partitions that moved", "pause of a partition, p50", "p99", "longest"),
                events,
            ),
        ]
    )


def _event_row(event: str, before: int, after: int, tries: Sequence[Moved]) -> tuple[str, ...]:
    pauses = [pause for one in tries for pause in one.pauses_ms]
    return (
        event,
        f"{before} → {after}",
        f"{len(tries)}",
        f"{median(one.moved for one in tries):g} of {tries[0].partitions}",
        *(f"{value / 1000:.2f} s" for value in (percentile(pauses, 50), percentile(pauses, 99), max(pauses))),
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    rule = [" --- ", *(" --: " for _ in heads[1:])]
    return [f"| {' | '.join(heads)} |", f"|{'|'.join(rule)}|", *(f"| {' | '.join(row)} |" for row in rows)]


def put(page: str, begin: str, end: str, text: str) -> str:
    """The page with the text between two marks."""
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{text}\n{end}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.scale.report", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"put the tables into docs/{PAGE.name}")
    shown = tables(msgspec.json.decode(RESULT.read_bytes(), type=Report))
    if parser.parse_args().write:
        PAGE.write_text(put(PAGE.read_text(), BEGIN, END, shown))
    sys.stdout.write(f"{shown}\n")


if __name__ == "__main__":
    main()
