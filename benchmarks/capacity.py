"""What Tidemark needs at a rate, from what commands cost: `make capacity` prints the tables of `docs/scaling.md`.

The measured inputs are in `benchmarks/capacity.json`. `--measure` measures them anew (some three minutes), `--write`
puts the tables into the page.

Every amount (CPU, bytes, flushes) is taken as so much a second for a worker that is there, so much for a command, for
an event, for a cycle, of which a flush of PostgreSQL's log is the mark, and for a slice, which is what a cycle has of
one log. A cycle takes a fixed time, some for each of its commands, and the rest behind a fetch, which is longer the
more slices there are by then, and the busier the worker is.
"""

import argparse
import asyncio
import math
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

import msgspec
from msgspec import Struct

from benchmarks.costs import Amount, Costs, Sample, Size, measure
from benchmarks.load import PARTITIONS
from benchmarks.report import machine
from processor.kafka.pace import rest_ms

INPUTS = Path(__file__).parent / "capacity.json"
PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"
RATES = (10_000, 100_000, 1_000_000)

_AMOUNTS: tuple[Amount, ...] = get_args(Amount)
_BUSY_DRAIN = 0.9
"""How many cores a worker uses while it drains and nothing is in its way (`docs/performance.md`)."""
_NOT_BY_CYCLE: frozenset[Amount] = frozenset({"flushes", "store_bytes"})
_DAY_S = 86_400
_SHORTEST_CYCLE_S = 0.0001
_ROUNDS = 100


class Planning(Struct, frozen=True):
    """What is chosen, not measured.

    busy: how far processors are to be used, so that there is room for peaks and for the work of a worker that is gone.
    database_cores, broker_cores: of one machine. wal_mb_s, broker_mb_s: what one machine's disk is to write. Retention
    in days.
    """

    busy: float = 0.6
    logs_per_worker: int = 4
    replication: int = 3
    database_cores: int = 16
    broker_cores: int = 8
    wal_mb_s: float = 100.0
    broker_mb_s: float = 100.0
    commands_days: float = 7.0
    feed_days: float = 7.0
    replies_days: float = 1.0


class Price(Struct, frozen=True):
    """One amount: for each second of a worker, command, event, cycle, and slice."""

    second: float
    command: float
    event: float
    cycle: float
    slice: float


class Model:
    """The costs, and what follows from them."""

    def __init__(self, costs: Costs) -> None:
        one, steady = costs.one_event, costs.steady
        # By its processors, not by the clock: the rest of the machine slows a run, and not what it costs.
        self.drain_rate = _BUSY_DRAIN * 1e6 / (one.amounts["worker_us"] / one.commands)
        period_s = steady.seconds / steady.amounts["flushes"]
        work_s = (1 - steady.rate / self.drain_rate) * period_s
        slices = _slices(steady.rate * period_s, PARTITIONS / steady.workers)
        busy = steady.amounts["worker_us"] / 1e6 / steady.seconds / steady.workers
        self.cycle_s = max(_SHORTEST_CYCLE_S, work_s - rest_ms(slices, busy) / 1000)
        self._prices = {amount: _price(amount, costs) for amount in _AMOUNTS}

    def price(self, amount: Amount) -> Price:
        """What makes up an amount."""
        return self._prices[amount]

    def cycles(self, rate: float, logs: float) -> float:
        """Of one worker with so many logs at a steady rate, a second."""
        idle = 1 - rate / self.drain_rate
        if idle <= 0:
            return 0.0
        # The longer a cycle takes, the more logs have something, and the longer is the rest: from above, this ends at
        # the period that brings itself about.
        period_s = math.inf
        for _ in range(_ROUNDS):
            rest = rest_ms(_slices(rate * period_s, logs), self._busy(rate, logs, period_s))
            period_s = (self.cycle_s + rest / 1000) / idle
        return min(rate, 1 / period_s)

    def _busy(self, rate: float, logs: float, period_s: float) -> float:
        """The share of a processor that a worker uses at a steady rate, with a cycle of one-event commands a period."""
        return min(1.0, _of_worker(self._prices["worker_us"], rate, 1 / period_s, logs) / 1e6)

    def per_second(
        self, amount: Amount, rate: float, workers: int, events: float = 1.0, partitions: int = PARTITIONS
    ) -> float:
        """An amount at a steady rate, spread evenly over workers and partitions; `events` of a command."""
        price = self._prices[amount]
        logs = partitions / workers
        cycles = self.cycles(rate / workers, logs)
        if amount == "flushes":
            return workers * cycles
        return workers * _of_worker(price, rate / workers, cycles, logs, events)


def _of_worker(price: Price, rate: float, cycles: float, logs: float, events: float = 1.0) -> float:
    """An amount a second, of a worker with so many logs at a rate of commands and of cycles; `events` of a command."""
    of_cycle = price.cycle + price.slice * (_slices(rate / cycles, logs) if cycles else 0.0)
    return price.second + cycles * of_cycle + rate * (price.command + events * price.event)


def _slices(commands: float, logs: float) -> float:
    """On how many of so many logs there is something, where so many commands have come by chance."""
    return logs * (1 - math.exp(-commands / logs))


def _cycles_and_slices(run: Sample) -> tuple[float, float]:
    """Of a run, for each of its commands."""
    cycles = run.amounts["flushes"]
    return cycles / run.commands, cycles * _slices(run.commands / cycles, PARTITIONS / run.workers) / run.commands


def _price(amount: Amount, costs: Costs) -> Price:
    """Runs with different mixes of commands, events, cycles and slices make an equation each; the idle one comes first.

    None is below nothing: where the two steady runs say so of cycles or slices, all that they cost is the other's.
    """
    idle = costs.idle
    second = max(0.0, idle.amounts[amount] / idle.seconds) if amount.endswith("_us") else 0.0
    runs = (costs.one_event, costs.ten_events, costs.steady, costs.busy)
    one, ten, steady, busy = ((run.amounts[amount] - second * run.seconds) / run.commands for run in runs)
    of_one, of_ten, of_steady, of_busy = map(_cycles_and_slices, runs)
    cycle, piece = 0.0, 0.0
    if amount not in _NOT_BY_CYCLE:
        cycle, piece = _solved(_less(of_steady, of_one), steady - one, _less(of_busy, of_one), busy - one)
    event = max(0.0, (ten - one - cycle * (of_ten[0] - of_one[0]) - piece * (of_ten[1] - of_one[1])) / 9)
    return Price(second, max(0.0, one - event - cycle * of_one[0] - piece * of_one[1]), event, cycle, piece)


def _less(pair: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    return pair[0] - other[0], pair[1] - other[1]


def _solved(first: tuple[float, float], one: float, second: tuple[float, float], two: float) -> tuple[float, float]:
    """The two unknowns of two equations (Cramer's rule), neither of them below 0."""
    determinant = first[0] * second[1] - first[1] * second[0]
    x = (one * second[1] - first[1] * two) / determinant
    y = (first[0] * two - one * second[0]) / determinant
    if x < 0:
        return 0.0, max(0.0, two / second[1])
    return (x, y) if y >= 0 else (max(0.0, one / first[0]), 0.0)


# --- tables


def prices_table(model: Model, costs: Costs) -> Iterator[str]:
    """What everything costs."""
    names: dict[Amount, str] = {
        "worker_us": "worker, CPU",
        "broker_us": "broker, CPU (without replication)",
        "postgres_us": "PostgreSQL, CPU",
        "wire_bytes": "between worker and PostgreSQL",
        "wal_bytes": "PostgreSQL's log (WAL)",
        "store_bytes": "stored, with indexes",
        "commands_bytes": "commands topic",
        "feed_bytes": "events topic (the feed)",
        "reply_bytes": "results topic",
    }
    heads = (
        "",
        "each command",
        "each event",
        "a command with one event",
        "each cycle",
        "each slice in it",
        "a worker that idles",
    )
    yield from _heads(heads)
    for amount, name in names.items():
        price, unit = model.price(amount), "µs" if amount.endswith("_us") else "bytes"
        idle = f"{price.second / 1e4:.1f}% of a core" if unit == "µs" else ""
        cycle, piece = (
            f"{cost:,.0f} {unit}" if amount not in _NOT_BY_CYCLE else "" for cost in (price.cycle, price.slice)
        )
        of_both = price.command + price.event
        cells = (f"{price.command:,.1f}", f"{price.event:,.1f}", f"{of_both:,.1f} {unit}", cycle, piece, idle)
        yield f"| {name} | {' | '.join(cells)} |"
    yield ""
    yield (
        f"A worker that drains uses {_BUSY_DRAIN:g} cores where nothing else is in its way; by what a command costs, "
        f"that is {model.drain_rate:,.0f} commands a second. A cycle takes {model.cycle_s * 1e3:.1f} ms, "
        f"{1e6 / model.drain_rate:.0f} µs for each of its commands, and flushes PostgreSQL's log once; behind it are "
        f"{rest_ms(10, 0.0) / 10:g} ms of rest for each slice that it had, {rest_ms(10, 1.0) / 10:g} where the worker "
        f"uses a whole core, {rest_ms(math.inf, 1.0):g} at the most. "
        f"Measured on {costs.machine['processors']} processors, the load {costs.machine['load']} at the beginning."
    )


def checks_table(model: Model, costs: Costs) -> Iterator[str]:
    """What the model says of runs that it was not made from, and what was measured."""
    yield from _heads(("run", "", "predicted", "measured", "off by"))
    for name, run in costs.checks.items():
        for what, predicted, measured in _predicted(model, name, run):
            off = (predicted / measured - 1) if measured else 0.0
            yield f"| {name} | {what} | {predicted:,.1f} | {measured:,.1f} | {off:+.0%} |"


def _predicted(model: Model, name: str, run: Sample) -> Iterator[tuple[str, float, float]]:
    events = run.events / run.commands
    units: dict[Amount, tuple[str, float]] = {
        "worker_us": ("worker, CPU µs a command", 1),
        "broker_us": ("broker, CPU µs a command", 1),
        "postgres_us": ("PostgreSQL, CPU µs a command", 1),
        "wal_bytes": ("WAL, bytes a command", 1),
        "wire_bytes": ("worker and PostgreSQL, bytes a command", 1),
        "flushes": ("flushes a second", run.rate),
    }
    for amount, (what, factor) in units.items():
        measured = run.amounts[amount] / run.commands * factor
        if name.startswith("drain"):
            if amount == "flushes":
                continue
            price = model.price(amount)
            cycles, slices = _cycles_and_slices(run)
            own = price.command + events * price.event + price.cycle * cycles + price.slice * slices
            yield what, own + price.second * run.seconds / run.commands, measured
        else:
            yield what, model.per_second(amount, run.rate, run.workers, events) / run.rate * factor, measured


class Needs:
    """What a rate needs, commands of one event and the size measured."""

    def __init__(self, model: Model, planning: Planning, rate: int) -> None:
        self.rate = rate
        self.workers = max(2, math.ceil(rate / (model.drain_rate * planning.busy)))
        self.partitions = max(32, 2 ** math.ceil(math.log2(self.workers * planning.logs_per_worker)))

        def of(amount: Amount) -> float:
            return model.per_second(amount, rate, self.workers, partitions=self.partitions)

        self.worker_cores = of("worker_us") / 1e6
        self.postgres_cores = of("postgres_us") / 1e6
        self.flushes = of("flushes")
        self.wal_mb_s = of("wal_bytes") / 1e6
        by_cores = self.postgres_cores / (planning.database_cores * planning.busy)
        self.databases = max(1, math.ceil(max(by_cores, self.wal_mb_s / planning.wal_mb_s)))
        topics = (of("commands_bytes"), of("feed_bytes"), of("reply_bytes"))
        self.topics_mb_s = sum(topics) / 1e6
        # A follower fetches and writes what its leader has taken: as much work again, at the most.
        self.broker_cores = of("broker_us") / 1e6 * planning.replication
        written = self.topics_mb_s * planning.replication
        by_disk = written / planning.broker_mb_s
        by_broker_cores = self.broker_cores / (planning.broker_cores * planning.busy)
        self.brokers = max(planning.replication, math.ceil(max(by_disk, by_broker_cores)))
        self.stored_tb_day = of("store_bytes") * _DAY_S / 1e12
        self.wal_tb_day = self.wal_mb_s * _DAY_S / 1e6
        days = (planning.commands_days, planning.feed_days, planning.replies_days)
        kept = sum(each * _DAY_S * kept for each, kept in zip(topics, days, strict=True))
        self.topics_tb = kept * planning.replication / 1e12
        self.zones_tb_day = self.topics_mb_s * (planning.replication - 1) * _DAY_S / 1e6


def needs_table(model: Model, planning: Planning) -> Iterator[str]:
    """What the rates need."""
    needs = [Needs(model, planning, rate) for rate in RATES]
    yield from _heads(("", *(f"{rate:,} commands/s" for rate in RATES)))
    rows = {
        "workers (processes of one core)": [f"{one.workers:,}" for one in needs],
        "partitions, at least": [f"{one.partitions:,}" for one in needs],
        "workers, cores in use": [f"{one.worker_cores:,.1f}" for one in needs],
        "PostgreSQL, cores in use": [f"{one.postgres_cores:,.1f}" for one in needs],
        "PostgreSQL, flushes/s": [f"{one.flushes:,.0f}" for one in needs],
        "PostgreSQL, WAL": [f"{one.wal_mb_s:,.0f} MB/s" for one in needs],
        "databases": [f"{one.databases:,}" for one in needs],
        "topics, written once": [f"{one.topics_mb_s:,.0f} MB/s" for one in needs],
        "brokers, cores in use": [f"{one.broker_cores:,.1f}" for one in needs],
        "brokers": [f"{one.brokers:,}" for one in needs],
        "stored, more each day": [f"{one.stored_tb_day:,.2f} TB" for one in needs],
        "WAL archived, each day": [f"{one.wal_tb_day:,.2f} TB" for one in needs],
        "topics, kept": [f"{one.topics_tb:,.1f} TB" for one in needs],
        "between zones, each day": [f"{one.zones_tb_day:,.1f} TB" for one in needs],
    }
    for name, cells in rows.items():
        yield f"| {name} | {' | '.join(cells)} |"


def _heads(heads: Sequence[str]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{'|'.join([' --- ', *(' --: ' for _ in heads[1:])])}|"


# --- the command


def main() -> None:
    given = _options()
    if given.measure:
        # So that a run that is ended ends what it has started.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        load = {"load": round(os.getloadavg()[0], 1)}
        costs = asyncio.run(measure(machine() | load, Size(given.commands, given.seconds)))
        INPUTS.write_bytes(msgspec.json.format(msgspec.json.encode(costs)) + b"\n")
    costs = msgspec.json.decode(INPUTS.read_bytes(), type=Costs)
    model = Model(costs)
    shown = {
        "prices": list(prices_table(model, costs)),
        "checks": list(checks_table(model, costs)),
        "needs": list(needs_table(model, Planning())),
    }
    page = PAGE.read_text()
    for name, lines in shown.items():
        text = "\n".join(lines)
        print(text, end="\n\n")
        page = put(page, f"<!-- measured: {name} -->", f"<!-- end: {name} -->", text)
    if given.write:
        PAGE.write_text(page)


def put(page: str, begin: str, end: str, text: str) -> str:
    """The page with the text between two marks."""
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{text}\n{end}{after}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capacity", description=__doc__)
    parser.add_argument("--measure", action="store_true", help=f"measure {INPUTS.name} anew")
    parser.add_argument("--write", action="store_true", help=f"put the tables into docs/{PAGE.name}")
    parser.add_argument("--commands", type=int, default=Size().commands, help="commands of a drain (30,000)")
    parser.add_argument("--seconds", type=float, default=Size().seconds, help="length of a steady run (10)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
