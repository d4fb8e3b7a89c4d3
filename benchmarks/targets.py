"""What is promised: the rows of the table, each with its floor and its goal."""

from collections.abc import Iterable
from statistics import median
from typing import Literal

from msgspec import Struct

Unit = Literal["%", "x", "ms", "µs", "MB", "s"]


class Target(Struct, frozen=True):
    """A row of the table. With `more`, floor and goal are to be reached from below, else from above."""

    name: str
    unit: Unit
    floor: float
    goal: float
    more: bool = False


def _share(name: str, floor: float, goal: float) -> Target:
    return Target(name, "%", floor, goal, more=True)


TARGETS = {
    "drain-postgres": _share("drain, PostgreSQL, one worker, share of the bare path", 50, 75),
    "drain-sqlite": _share("drain, SQLite, share of the bare path", 50, 75),
    "drain-memory": _share("drain, memory store, share of the bare path without COPY", 45, 70),
    "two-workers": Target("drain, two workers against one, PostgreSQL", "x", 1.2, 1.5, more=True),
    "alone-postgres": _share("decide and commit alone, PostgreSQL, share of bulk", 45, 70),
    "alone-sqlite": _share("decide and commit alone, SQLite, share of bulk", 45, 70),
    "ten-events": Target("10 events a command: events/s against single-event commands/s", "x", 2, 3, more=True),
    "duplicates": _share("all duplicates, share of the plain rate", 70, 90),
    "conflicts": _share("5% conflicts, share of the plain rate", 70, 90),
    "telemetry": _share("drain with metrics, and traces of 1%, PostgreSQL, share of the rate without", 95, 97),
    "telemetry-cpu": _share("the same: CPU per command without, share of that with telemetry", 95, 97),
    "p50-postgres": Target("send to reply at 200/s, PostgreSQL, against the bare echo: p50", "x", 2.5, 1.5),
    "p99-postgres": Target("send to reply at 200/s, PostgreSQL, against the bare echo: p99", "x", 3, 2),
    "p50-sqlite": Target("send to reply at 200/s, SQLite, against the bare echo: p50", "x", 2.5, 1.5),
    "p99-sqlite": Target("send to reply at 200/s, SQLite, against the bare echo: p99", "x", 3, 2),
    "open-25": Target("open loop at 25% of the drain rate: p99", "ms", 100, 30),
    "open-50": Target("open loop at 50% of the drain rate: p99", "ms", 200, 60),
    "open-75": Target("open loop at 75% of the drain rate: p99", "ms", 400, 120),
    "open-90": Target("open loop at 90% of the drain rate: p99", "ms", 1_000, 300),
    "hot": Target("one hot partition gets 90% of the load: p99 of the others against an even load", "x", 2, 1.3),
    "cpu-postgres": Target("worker's CPU per command while draining, PostgreSQL", "µs", 45, 30),
    "cpu-sqlite": Target("worker's CPU per command while draining, SQLite", "µs", 45, 30),
    "memory": Target("worker's memory, streams stored and hot as below", "MB", 600, 400),
    "restart": Target("start to first decision after a crash, events stored as below", "s", 8, 4),
    "stored": _share("rate with events stored as below, share of the rate on an empty store", 60, 80),
}


class Row(Struct):
    """One figure beside its target. `measured` is None where no run counts; `detail` has the absolute figures."""

    key: str
    measured: float | None
    detail: str

    @property
    def target(self) -> Target:
        """What it has to reach."""
        return TARGETS[self.key]

    @property
    def reached(self) -> Literal["goal", "floor", "missed"]:
        """How far it came."""
        if self._is_within(self.target.goal):
            return "goal"
        return "floor" if self._is_within(self.target.floor) else "missed"

    def _is_within(self, bound: float) -> bool:
        if self.measured is None:
            return False
        return self.measured >= bound if self.target.more else self.measured <= bound


def in_order(rows: Iterable[Row]) -> list[Row]:
    """As the table has them."""
    places = list(TARGETS)
    return sorted(rows, key=lambda row: places.index(row.key))


def middle(values: Iterable[float | None], *, more: bool) -> float | None:
    """The median, where a run that failed (None) is worse than any other; None where it is the median itself."""
    worst = float("-inf") if more else float("inf")
    found = median([worst if value is None else value for value in values] or [worst])
    return None if abs(found) == float("inf") else found


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """How many times theirs ours is; None where one is not there."""
    return ours / theirs if ours is not None and theirs else None
