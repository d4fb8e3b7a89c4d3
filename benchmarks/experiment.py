"""The experiments: what takes turns, and what rows come of it."""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, NamedTuple, Protocol

from msgspec import Struct

from benchmarks.alone import alone
from benchmarks.bed import Bed, StoreKind
from benchmarks.drain import Drained, drain, relay
from benchmarks.large import large_store
from benchmarks.latency import RATE, WARM_UP_S, Latency, latency
from benchmarks.load import CommandRecord, Commands, Mix, commands, following
from benchmarks.openloop import HOT_AT, SHARES, Offered, offer
from benchmarks.targets import Row, middle, ratio
from benchmarks.telemetry import metered_drain, traced

_TELEMETRY_TIMES = 3
"""As many drains' commands, so that there are some seconds to be scraped in."""
_ALONE_TIMES = 3
"""As many, as without Kafka a drain's are done within half a second, of which the first and last cycle are much."""
_MIX_TIMES = 2.5
"""As many events, for two workers do a drain's within half a second, of which beginning and end are a fifth."""
_SEVERAL = 10
_AS_LONG = 2
"""Ten to a command, so many times as many events are done in the time of the others."""
_WARM_UPS, _WARM_UP_RATE = 3, 20_000.0
"""Of the broker, so that its compiler is done: with ten events a command, whose records are most of its work, and then
with an open loop, whose requests are many and small. That takes half of the processors for some 20 s."""

NAMES = {"sqlite": "SQLite", "postgres": "PostgreSQL", "memory": "memory store"}


class Options(Struct, frozen=True):
    """How much of everything. commands: of a drain. stored: events that a large store holds."""

    commands: int
    seconds: float
    runs: int
    stored: int


class Run(Protocol):
    """What came of a run; `failure` says why it does not count."""

    @property
    def failure(self) -> str | None: ...


Runs = Mapping[str, Sequence[Any]]
"""The runs by the name of the side."""


class Experiment(NamedTuple):
    """Sides that take turns, so that what else the machine does meets all of them, and the rows that they come to.

    `last` are run once, at the end.
    """

    sides: Mapping[str, Callable[[], Awaitable[Run]]]
    rows: Callable[[Runs], list[Row]]
    last: Mapping[str, Callable[[], Awaitable[Run]]] = {}


Make = Callable[[Bed, Options], AbstractAsyncContextManager[Experiment]]


# --- drains


@asynccontextmanager
async def drains(bed: Bed, options: Options, *, kind: StoreKind) -> AsyncIterator[Experiment]:
    """One worker against the bare path."""
    records = commands(options.commands)
    sides = {"bare path": True, "worker": False}
    yield Experiment(
        {side: partial(drain, bed, kind, records, bare=bare) for side, bare in sides.items()},
        partial(_drain_rows, kind),
    )


def _drain_rows(kind: StoreKind, runs: Runs) -> list[Row]:
    rows = [_rate_row(f"drain-{kind}", runs, "worker", "bare path")]
    if kind != "memory":
        cpu_us, bare_us = _cpu_us(runs["worker"]), _cpu_us(counting(runs["bare path"]))
        peak = middle((run.peak_mib for run in runs["worker"]), more=False)
        detail = f"the bare path {_shown(bare_us)} µs; the worker's memory {_shown(peak)} MiB at the highest"
        rows.append(Row(f"cpu-{kind}", cpu_us, detail))
    return rows


@asynccontextmanager
async def mixes(bed: Bed, options: Options) -> AsyncIterator[Experiment]:
    """The worker against itself on PostgreSQL: twice as many workers, and other commands, after the same warm-up."""
    count = int(_MIX_TIMES * options.commands)
    load = Commands()
    warm_up, plain = load.take(count), load.take(count)
    several = _several(count, _AS_LONG * count)
    stale = Commands().take(2 * count, Mix(stale_every=20))
    run = partial(relay, bed, "postgres")
    yield Experiment(
        {
            "plain": partial(run, warm_up, plain),
            "two workers": partial(run, warm_up, plain, workers=2),
            "10 events": partial(run, *several),
            "duplicates": partial(run, warm_up, following(warm_up, warm_up)),
            "5% conflicts": partial(run, stale[:count], stale[count:]),
        },
        _mix_rows,
    )


def _several(before: int, then: int) -> tuple[list[CommandRecord], list[CommandRecord]]:
    """Commands that come to so many events, and behind them others."""
    load, mix = Commands(), Mix(events=_SEVERAL)
    return load.take(before // _SEVERAL, mix), load.take(then // _SEVERAL, mix)


async def warm_up(bed: Bed, options: Options) -> None:
    """Have the broker's code compiled before anything is measured on it."""
    count = int(_MIX_TIMES * options.commands)
    several = _several(count, count)
    for _ in range(_WARM_UPS):
        await relay(bed, "memory", *several)

    async def steady() -> float:
        return _WARM_UP_RATE

    await offer(bed, steady, options.seconds / 2)


def _mix_rows(runs: Runs) -> list[Row]:
    return [
        _two_workers_row(runs),
        _several_row(runs),
        _rate_row("duplicates", runs, "duplicates", "plain"),
        _rate_row("conflicts", runs, "5% conflicts", "plain"),
    ]


def _two_workers_row(runs: Runs) -> Row:
    """What one worker has in use already, with its broker and database, another one can't gain."""
    row = _rate_row("two-workers", runs, "two workers", "plain")
    busy = middle((run.busy for run in counting(runs["plain"])), more=False)
    if busy is not None:
        row.detail += f"; with one, {busy:.0%} of all processors are in use"
    return row


def _several_row(runs: Runs) -> Row:
    """The more of a command's price its event is, the less there is to be gained by several events in one."""
    times = _times(runs, "10 events", "plain", lambda ten, one: ratio(_SEVERAL * ten.rate, one.rate))
    events, plain = _rate(runs["10 events"]), _rate(counting(runs["plain"]))
    detail = f"{_shown(events and _SEVERAL * events)} events/s, {_shown(plain)} commands/s"
    of_ten, of_one = (_cpu_us(counting(runs[side])) for side in ("10 events", "plain"))
    if of_ten is not None and of_one is not None:
        each = (of_ten - of_one) / (_SEVERAL - 1)
        detail += f"; worker's CPU {_shown(each)} µs an event and {_shown(of_one - each)} a command"
    return Row("ten-events", times, detail)


@asynccontextmanager
async def telemetry(bed: Bed, options: Options) -> AsyncIterator[Experiment]:
    """A worker with metrics and traces against one that keeps nothing of what it does."""
    records = traced(commands(_TELEMETRY_TIMES * options.commands))
    yield Experiment(
        {side: partial(metered_drain, bed, records, metered=side == "on") for side in ("off", "on")},
        _telemetry_rows,
    )


def _telemetry_rows(runs: Runs) -> list[Row]:
    share = _times(runs, "on", "off", lambda on, off: ratio(off.cpu_us, on.cpu_us))
    on_us, off_us = _cpu_us(runs["on"]), _cpu_us(counting(runs["off"]))
    return [
        _rate_row("telemetry", runs, "on", "off"),
        Row(
            "telemetry-cpu", None if share is None else 100 * share, f"{_shown(on_us)} µs, without {_shown(off_us)} µs"
        ),
    ]


@asynccontextmanager
async def stores_alone(bed: Bed, options: Options, *, kind: StoreKind) -> AsyncIterator[Experiment]:
    """The worker's cycles without Kafka against the database's bulk path."""
    yield Experiment(
        {what: partial(alone, bed, kind, _ALONE_TIMES * options.commands, what) for what in ("bulk", "cycles")},
        lambda runs: [_rate_row(f"alone-{kind}", runs, "cycles", "bulk")],
    )


# --- latency


@asynccontextmanager
async def trickles(bed: Bed, options: Options) -> AsyncIterator[Experiment]:
    """Send to reply of a worker on either store against the bare echo."""
    records = commands(int((WARM_UP_S + options.seconds) * RATE))
    yield Experiment(
        {
            "bare echo": partial(latency, bed, "memory", records, bare=True),
            "postgres": partial(latency, bed, "postgres", records, bare=False),
            "sqlite": partial(latency, bed, "sqlite", records, bare=False),
        },
        _trickle_rows,
    )


def _trickle_rows(runs: Runs) -> list[Row]:
    figures: dict[str, Callable[[Latency], float | None]] = {
        "p50": lambda run: run.p50_ms,
        "p99": lambda run: run.p99_ms,
    }
    rows = []
    for kind, (name, figure) in itertools.product(("postgres", "sqlite"), figures.items()):
        ours = middle(map(figure, runs[kind]), more=False)
        echo = middle(map(figure, counting(runs["bare echo"])), more=False)
        times = _times(runs, kind, "bare echo", partial(_ratio_of, figure), more=False)
        rows.append(Row(f"{name}-{kind}", times, f"{_shown(ours)} ms, the echo {_shown(echo)} ms"))
    return rows


def _ratio_of(figure: Callable[[Latency], float | None], run: Latency, echo: Latency) -> float | None:
    return ratio(figure(run), figure(echo))


@asynccontextmanager
async def open_loop(bed: Bed, options: Options) -> AsyncIterator[Experiment]:
    """At shares of the rate that a drain has right before."""
    records = commands(options.commands)

    async def drain_rate() -> float:
        drained = await drain(bed, "postgres", records, bare=False)
        if drained.failure is not None:
            raise RuntimeError(f"there is no drain rate to go by: {drained.failure}")
        return drained.rate

    yield Experiment({"offered": partial(offer, bed, drain_rate, options.seconds / 2)}, _open_rows)


def _open_rows(runs: Runs) -> list[Row]:
    offered: Sequence[Offered] = runs["offered"]
    rows = []
    for share in map(str, SHARES):
        levels = [run.levels.get(share) for run in offered]
        p99_ms = middle((level.p99_ms if level else None for level in levels), more=False)
        rate = middle((level.rate if level else None for level in levels), more=True)
        rows.append(Row(f"open-{share}", p99_ms, f"at {_shown(rate)} commands/s, PostgreSQL"))
    hot_ms = middle((run.hot_ms for run in offered), more=False)
    even_ms = middle((run.even_ms for run in counting(offered)), more=False)
    detail = f"{_shown(hot_ms)} ms against {_shown(even_ms)} ms, both at {HOT_AT}% of the drain rate"
    times = middle((ratio(run.hot_ms, run.even_ms) for run in offered), more=False)
    return [*rows, Row("hot", times, detail)]


# --- a large store


@asynccontextmanager
async def large(bed: Bed, options: Options, *, kind: StoreKind) -> AsyncIterator[Experiment]:
    """The worker on a store with many events against itself on an empty one."""
    records = commands(options.commands)
    async with large_store(bed, kind, options.stored) as store:
        yield Experiment(
            {
                "empty": partial(drain, bed, kind, records, bare=False),
                "stored": partial(store.drain, options.commands),
                "restart": partial(store.crash, options.commands),
            },
            partial(_large_rows, options.stored),
            {"hot": store.drain_hot},
        )


def _large_rows(stored: int, runs: Runs) -> list[Row]:
    peak_mib = middle((run.peak_mib for run in runs["hot"]), more=False)
    with_stored = f"with {stored:,} events in as many streams stored"
    rate = _rate_row("stored", runs, "stored", "empty")
    rate.detail += f", {with_stored}"
    return [
        Row("memory", None if peak_mib is None else peak_mib * 2**20 / 1e6, f"{with_stored}, a tenth of them hot"),
        Row("restart", middle((run.seconds for run in runs["restart"]), more=False), with_stored),
        rate,
    ]


# --- figures


def counting(runs: Sequence[Any]) -> Sequence[Any]:
    """The runs of a yardstick that hold: one that fails must not make the worker look better."""
    return [run for run in runs if run.failure is None]


def _rate(runs: Sequence[Drained]) -> float | None:
    return middle((run.rate for run in runs), more=True)


def _cpu_us(runs: Sequence[Drained]) -> float | None:
    return middle((run.cpu_us for run in runs), more=False)


def _times(
    runs: Runs, ours: str, theirs: str, of: Callable[[Any, Any], float | None], *, more: bool = True
) -> float | None:
    """The median of the turns: of what one side comes to beside the other in the same one.

    The machine's speed changes more from one turn to the next than within one. Where a yardstick fails, its turn is
    left out.
    """
    turns = zip(runs[ours], runs[theirs], strict=True)
    return middle((of(run, beside) for run, beside in turns if beside.failure is None), more=more)


def _rate_row(key: str, runs: Runs, ours: str, theirs: str) -> Row:
    share = _times(runs, ours, theirs, lambda run, beside: ratio(run.rate, beside.rate))
    our_rate, their_rate = _rate(runs[ours]), _rate(counting(runs[theirs]))
    row = Row(key, share, f"{_shown(our_rate)} of {_shown(their_rate)} commands/s")
    if row.target.unit == "%" and share is not None:
        row.measured = 100 * share
    return row


def _shown(value: float | None) -> str:
    if value is None:
        return "none"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


EXPERIMENTS: dict[str, Make] = {
    "drain-postgres": partial(drains, kind="postgres"),
    "drain-sqlite": partial(drains, kind="sqlite"),
    "drain-memory": partial(drains, kind="memory"),
    "mixes": mixes,
    "telemetry": telemetry,
    "alone-postgres": partial(stores_alone, kind="postgres"),
    "alone-sqlite": partial(stores_alone, kind="sqlite"),
    "latency": trickles,
    "open-loop": open_loop,
    "large-postgres": partial(large, kind="postgres"),
}
