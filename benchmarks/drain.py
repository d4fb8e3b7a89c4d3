"""Drain: a preloaded commands topic, from the first fetch to the last reply and feed record on the broker.

Worker and bare path are watched alike, from outside. The clock starts when the process says that it is about to read
(the worker: that it owns its first log), so that loading the program, joining the group and connecting do not count; it
stops when the ends of the replies and of the feed have moved by what the commands come to.

A relay compares the worker with itself: workers that are warm and own their logs stand still while the commands are
laid before them, and the clock starts when they are let go.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import NamedTuple, Self

import aiohttp
import psutil
from aiokafka import AIOKafkaConsumer, TopicPartition
from msgspec import Struct

from benchmarks.bed import Bed, Site, StoreKind
from benchmarks.invariants import check_run
from benchmarks.load import PARTITIONS, CommandRecord, preload
from benchmarks.process import WORKER, Measured, Program, bare_path, running
from benchmarks.ready import plans
from tests.servers import free_port

_LONGEST_S = 120.0
_POLL_S, _LAST_POLL_S = 0.1, 0.01
_LAST_PART = 0.9
_SEEN_S = 5.0
"""A worker looks every two seconds at what has come in."""
_PARTITIONS = range(PARTITIONS)


class Drained(Struct):
    """One run. `failure` says which invariant does not hold; such a run counts as zero.

    rate: commands a second. events: how many they came to. cpu_us: of the processes, for each command. busy: the share
    of the machine's processors that was in use, by all there is on it.
    """

    rate: float = 0.0
    events: int = 0
    cpu_us: float | None = None
    peak_mib: float | None = None
    busy: float | None = None
    failure: str | None = None


class Amount(NamedTuple):
    """How many replies and how many records on the feed."""

    replies: int
    events: int


def amount_of(records: Sequence[CommandRecord]) -> Amount:
    """What commands come to, from an empty store on."""
    return Amount(len(records), sum(len(plan.events) for plan in plans(records).values()))


async def drain(bed: Bed, kind: StoreKind, records: Sequence[CommandRecord], *, bare: bool) -> Drained:
    """Preload, drain and check, on topics and a store of its own; each command comes to an event."""
    async with bed.site(kind) as site:
        await preload(bed.bootstrap, site.names.commands, records)
        try:
            program = bare_path(len(records)) if bare else WORKER
            drained = await drained_from_start(site, len(records), program)
        except (TimeoutError, RuntimeError) as error:
            return Drained(failure=str(error) or f"not drained in {_LONGEST_S:.0f} s")
        return counted(drained, await check_run(site, records, bare=bare))


def counted(drained: Drained, failure: str | None) -> Drained:
    """The run, if its invariants hold; else nothing of it."""
    return drained if failure is None else Drained(failure=failure)


async def drained_from_start(
    site: Site,
    count: int,
    program: Program = WORKER,
    environment: Mapping[str, str] | None = None,
    longest_s: float = _LONGEST_S,
) -> Drained:
    """Drain the `count` commands that wait, each of which comes to an event, with one process.

    `environment`: the site's own where left out.
    """
    async with AsyncExitStack() as stack:
        ends = await stack.enter_async_context(Ends(site))
        there = await ends.now()
        process = await stack.enter_async_context(running(program, environment or site.environment()))
        begin = await process.ready()
        cpu_s = process.cpu_s()
        await ends.reach(Amount(there.replies + count, there.events + count), [process], longest_s)
        seconds = time.perf_counter() - begin
        cpu_s = process.cpu_s() - cpu_s
    return Drained(count / seconds, count, cpu_s / count * 1e6, process.peak_mib)


async def relay(
    bed: Bed, kind: StoreKind, warm_up: Sequence[CommandRecord], records: Sequence[CommandRecord], workers: int = 1
) -> Drained:
    """Drain `warm_up`, then, measured, `records`, whose offsets follow."""
    everything = [*warm_up, *records]
    before, after = amount_of(warm_up), amount_of(everything)
    async with bed.site(kind) as site:
        try:
            drained = await _relay(bed, site, warm_up, records, (before, after), workers)
        except (TimeoutError, RuntimeError) as error:
            return Drained(failure=str(error) or f"not drained in {_LONGEST_S:.0f} s")
        return counted(drained, await check_run(site, everything))


async def _relay(
    bed: Bed,
    site: Site,
    warm_up: Sequence[CommandRecord],
    records: Sequence[CommandRecord],
    amounts: tuple[Amount, Amount],
    workers: int,
) -> Drained:
    before, after = amounts
    # What comes in on which log has to be seen by one worker before the others have their share of it.
    first, rest = warm_up[: len(warm_up) // 2], warm_up[len(warm_up) // 2 :]
    async with AsyncExitStack() as stack:
        ends = await stack.enter_async_context(Ends(site))
        team = [await stack.enter_async_context(_Worker(site))]
        await _share_all(team)
        await preload(bed.bootstrap, site.names.commands, first)
        await ends.reach(amount_of(first), [team[0].process])
        await asyncio.sleep(_SEEN_S)
        team += [await stack.enter_async_context(_Worker(site)) for _ in range(workers - 1)]
        await _share_all(team)
        processes = [worker.process for worker in team]
        await preload(bed.bootstrap, site.names.commands, rest)
        await ends.reach(before, processes)
        for process in processes:
            process.suspend()
        await preload(bed.bootstrap, site.names.commands, records)
        cpu_s = sum(process.cpu_s() for process in processes)
        idle_s = _idle_s()
        begin = time.perf_counter()
        for process in processes:
            process.resume()
        await ends.reach(after, processes)
        seconds = time.perf_counter() - begin
        busy = 1 - (_idle_s() - idle_s) / (seconds * psutil.cpu_count())
        cpu_s = sum(process.cpu_s() for process in processes) - cpu_s
    peak_mib = max(process.peak_mib for process in processes)
    count = len(records)
    return Drained(count / seconds, after.events - before.events, cpu_s / count * 1e6, peak_mib, busy)


def _idle_s() -> float:
    """For how long the machine's processors have had nothing to do, added up."""
    times = psutil.cpu_times()
    idle_s: float = times.idle + getattr(times, "iowait", 0.0)
    return idle_s


async def _share_all(team: Sequence["_Worker"]) -> None:
    """Wait until each has its share of the logs. Raises `TimeoutError`, `RuntimeError`."""
    async with asyncio.timeout(_LONGEST_S), aiohttp.ClientSession() as session:
        while True:
            owned = [await worker.owned(session) for worker in team]
            if all(owned) and sum(owned) == PARTITIONS:
                return
            await asyncio.sleep(_POLL_S)


class _Worker:
    """A worker that says by its status page what it owns."""

    process: Measured

    def __init__(self, site: Site) -> None:
        address = f"127.0.0.1:{free_port()}"
        self._status = f"http://{address}/status"
        self._running = running(WORKER, site.environment(http=address))

    async def __aenter__(self) -> Self:
        self.process = await self._running.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._running.__aexit__(None, None, None)

    async def owned(self, session: aiohttp.ClientSession) -> int:
        """How many logs are its own. Raises `RuntimeError` where it has ended."""
        self.process.check()
        try:
            async with session.get(self._status) as response:
                found = await response.json()
        except aiohttp.ClientConnectionError:
            return 0
        return sum(log["state"] == "running" for log in found["logs"])


class Ends:
    """The ends of a site's replies and feed."""

    def __init__(self, site: Site) -> None:
        names = site.names
        self._replies = [TopicPartition(topic, n) for topic in (names.results, names.conflicts) for n in _PARTITIONS]
        self._feed = [TopicPartition(names.events, n) for n in _PARTITIONS]
        self._consumer = AIOKafkaConsumer(bootstrap_servers=site.settings.brokers)

    async def __aenter__(self) -> Self:
        await self._consumer.start()
        await self.now()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()

    async def now(self) -> Amount:
        """How much there is."""
        found = await self._consumer.end_offsets([*self._replies, *self._feed])
        return Amount(sum(found[tp] for tp in self._replies), sum(found[tp] for tp in self._feed))

    async def reach(self, amount: Amount, processes: Sequence[Measured], longest_s: float = _LONGEST_S) -> None:
        """Return when there is so much; looks more often towards the end. Raises `TimeoutError`, `RuntimeError`."""
        async with asyncio.timeout(longest_s):
            while (now := await self.now()).replies < amount.replies or now.events < amount.events:
                for process in processes:
                    process.check()
                late = sum(now) > _LAST_PART * sum(amount)
                await asyncio.sleep(_LAST_POLL_S if late else _POLL_S)
