"""What commands cost, measured: processors, bytes and flushes, of a worker, the broker and PostgreSQL.

`measure` makes a few runs that differ in what they do: nothing at all, a drain of commands with one event, one of
commands with ten, two steady rates. What each kind of thing costs follows from their differences
(`benchmarks.capacity`). Further runs are there to be predicted.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, Self
from urllib.parse import urlsplit

import asyncpg
from msgspec import Struct

from benchmarks.bed import Bed, Site, say
from benchmarks.client import Client
from benchmarks.drain import Ends, amount_of
from benchmarks.invariants import check_run
from benchmarks.load import PARTITIONS, CommandRecord, Commands, Mix, preload
from benchmarks.process import WORKER, Measured, running
from processor.kafka.group import describe_group
from tests.servers import ROOMY_JAVA, Broker, Postgres

Amount = Literal[
    "worker_us", "broker_us", "postgres_us", "flushes", "commands_bytes", "feed_bytes", "reply_bytes", "store_bytes",
    "wal_bytes", "wire_bytes",
]  # fmt: skip

_IDLE_S = 6.0
_FLUSHES = "SELECT sum(fsyncs)::bigint FROM pg_stat_io WHERE object = 'wal'"
_STORED = """
SELECT sum(pg_total_relation_size(relid))::bigint FROM pg_catalog.pg_statio_user_tables
"""
_SETTLE_S = 0.2
_WARM_UPS = 2
_LONGEST_S = 60.0
_CHUNK = 64 * 1024


class Sample(Struct):
    """A run. amounts: CPU in µs, bytes, and how often PostgreSQL has flushed its log to the disk."""

    workers: int
    commands: int
    events: int
    seconds: float
    amounts: dict[Amount, float]

    @property
    def rate(self) -> float:
        """Commands a second."""
        return self.commands / self.seconds


class Costs(Struct):
    """All that was measured; `steady` and `busy` are two steady rates, `checks` are by what they are."""

    machine: dict[str, str | int | float]
    idle: Sample
    one_event: Sample
    ten_events: Sample
    steady: Sample
    busy: Sample
    checks: dict[str, Sample]


class Size(Struct, frozen=True):
    """How much is run."""

    commands: int = 30_000
    seconds: float = 10.0


async def measure(machine: dict[str, str | int | float], size: Size) -> Costs:
    """Make all runs, on servers of their own. Raises `RuntimeError` where a run breaks an invariant."""
    with Broker(ROOMY_JAVA) as broker, Postgres() as postgres, TemporaryDirectory() as folder:
        lab = _Lab(broker, postgres, Path(folder))
        count, several = size.commands, size.commands // 3
        # What the broker's compilers take for a while would be a price of whatever is measured first.
        for _ in range(_WARM_UPS):
            await lab.drain("warming up", Commands().take(count, Mix(events=10)))
        await lab.steady("warming up, steady", 1_000, size.seconds)
        return Costs(
            machine,
            one_event=await lab.drain("one event", Commands().take(count)),
            ten_events=await lab.drain("ten events", Commands().take(several, Mix(events=10))),
            steady=await lab.steady("steady", 1_000, size.seconds),
            busy=await lab.steady("steady, fast", 3_000, size.seconds),
            checks={
                "drain, 4 events a command": await lab.drain("four events", Commands().take(several, Mix(events=4))),
                "steady, 300 commands/s": await lab.steady("steady, slow", 300, size.seconds),
                "steady, 2,000 commands/s, 2 workers": await lab.steady("two workers", 2_000, size.seconds, workers=2),
            },
            idle=await lab.idle(),
        )


class _Lab:
    """The servers, and the runs on them."""

    def __init__(self, broker: Broker, postgres: Postgres, folder: Path) -> None:
        self._broker = broker
        self._postgres = postgres
        self._bed = Bed(broker.bootstrap, postgres.url(), folder)

    async def idle(self) -> Sample:
        """One worker that has nothing to do."""
        async with self._site() as (site, tap), self._working(site, tap, 1) as workers:
            gauge = _Gauge(self._broker, self._postgres, site, tap)
            await gauge.begin(workers)
            await asyncio.sleep(_IDLE_S)
            return await gauge.end(workers, [], _IDLE_S)

    async def drain(self, name: str, records: Sequence[CommandRecord]) -> Sample:
        """What one worker makes of commands that are there; the broker's part in taking them counts."""
        async with self._site() as (site, tap), Ends(site) as ends:
            gauge = _Gauge(self._broker, self._postgres, site, tap)
            taken_us = self._broker.cpu_s()
            await preload(self._bed.bootstrap, site.names.commands, records)
            taken_us = (self._broker.cpu_s() - taken_us) * 1e6
            async with self._working(site, tap, 1) as workers:
                await gauge.begin(workers)
                begin = time.perf_counter()
                await ends.reach(amount_of(records), workers)
                sample = await gauge.end(workers, records, time.perf_counter() - begin)
            sample.amounts["broker_us"] += taken_us
            return await self._checked(name, site, records, sample)

    async def steady(self, name: str, rate: int, seconds: float, workers: int = 1) -> Sample:
        """Commands that come at a rate."""
        records = Commands().take(int(rate * seconds))
        async with self._site() as (site, tap), self._working(site, tap, workers) as team:
            client = Client(site, linger_ms=2, at_once=1_000)
            gauge = _Gauge(self._broker, self._postgres, site, tap)
            try:
                await gauge.begin(team)
                begin = time.perf_counter()
                await asyncio.to_thread(client.measure, records, rate)
                sample = await gauge.end(team, records, time.perf_counter() - begin)
            finally:
                client.close()
            return await self._checked(name, site, records, sample)

    async def _checked(self, name: str, site: Site, records: Sequence[CommandRecord], sample: Sample) -> Sample:
        failure = await check_run(site, records)
        if failure is not None:
            raise RuntimeError(f"{name}: {failure}")
        per = {amount: round(value / len(records), 2) for amount, value in sample.amounts.items()}
        say(f"{name}: {sample.rate:,.0f} commands/s, for each {per}")
        return sample

    @asynccontextmanager
    async def _site(self) -> AsyncIterator[tuple[Site, "_Tap"]]:
        async with self._bed.site("postgres") as site, _Tap(self._postgres.port) as tap:
            yield site, tap

    @asynccontextmanager
    async def _working(self, site: Site, tap: "_Tap", count: int) -> AsyncIterator[Sequence[Measured]]:
        """So many workers, each with its share of the partitions. They reach PostgreSQL through the tap."""
        url = urlsplit(site.settings.store)
        store = url._replace(netloc=f"{url.username}@127.0.0.1:{tap.port}").geturl()
        async with AsyncExitStack() as stack:
            workers = [
                await stack.enter_async_context(running(WORKER, site.environment(store=store))) for _ in range(count)
            ]
            for worker in workers:
                await worker.ready()
            async with asyncio.timeout(_LONGEST_S):
                while True:
                    group = await describe_group(site.settings)
                    if [len(member.logs) for member in group.members] == [PARTITIONS // count] * count:
                        break
                    await asyncio.sleep(_SETTLE_S)
            yield workers


class _Gauge:
    """What everything has used between `begin` and `end`."""

    def __init__(self, broker: Broker, postgres: Postgres, site: Site, tap: "_Tap") -> None:
        self._broker = broker
        self._postgres = postgres
        self._site = site
        self._tap = tap
        self._before: dict[Amount, float] = {}

    async def begin(self, workers: Sequence[Measured]) -> None:
        """From now on."""
        self._before = await self._now(workers)

    async def end(self, workers: Sequence[Measured], records: Sequence[CommandRecord], seconds: float) -> Sample:
        """Until now. Ends the workers: what PostgreSQL has counted for a connection it tells for sure at its end."""
        now = await self._now(workers)
        for worker in workers:
            await worker.stop()
        now["flushes"] = await self._ask(_FLUSHES)
        now |= self._logs()
        now["store_bytes"] = await self._ask(_STORED)
        amounts = {amount: value - self._before.get(amount, 0.0) for amount, value in now.items()}
        return Sample(len(workers), len(records), amount_of(records).events, seconds, amounts)

    async def _now(self, workers: Sequence[Measured]) -> dict[Amount, float]:
        return {
            "worker_us": sum(worker.cpu_s() for worker in workers) * 1e6,
            "broker_us": self._broker.cpu_s() * 1e6,
            "postgres_us": self._postgres.cpu_s() * 1e6,
            "wal_bytes": await self._ask("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"),
            "wire_bytes": float(self._tap.passed),
            "flushes": await self._ask(_FLUSHES),
            "store_bytes": await self._ask(_STORED),
        }

    async def _ask(self, query: str) -> float:
        connection = await asyncpg.connect(self._site.settings.store)
        try:
            return float(await connection.fetchval(query))
        finally:
            await connection.close()

    def _logs(self) -> dict[Amount, float]:
        """What the topics hold, all of it from this run."""
        names = self._site.names
        of_topic: dict[Amount, str] = {
            "commands_bytes": names.commands,
            "feed_bytes": names.events,
            "reply_bytes": names.results,
        }
        data = self._broker.folder / "data"
        return {
            amount: float(sum(segment.stat().st_size for segment in data.glob(f"{topic}-*/*.log")))
            for amount, topic in of_topic.items()
        }


class _Tap:
    """Between the workers and PostgreSQL; counts the bytes that pass, both ways."""

    def __init__(self, to_port: int) -> None:
        self.passed = 0
        self.port = 0
        self._to_port = to_port
        self._passing: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._to_port)
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._pass(source, sink))
            self._passing.add(task)
            task.add_done_callback(self._passing.discard)

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while chunk := await source.read(_CHUNK):
                self.passed += len(chunk)
                sink.write(chunk)
                await sink.drain()
        except ConnectionError:
            pass
        finally:
            sink.close()
