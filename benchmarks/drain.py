"""Drain: a preloaded commands topic, from the first fetch to the last reply and feed record on the broker.

Worker and bare path are watched alike, from outside. The clock starts when the process says that it is about to read
(the worker: that it owns its first log), so that loading the program, joining the group and connecting do not count; it
stops when the ends of the results and of the feed have moved by one record for each command.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from math import inf
from typing import Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from msgspec import Struct

from benchmarks.bed import Bed, Site, StoreKind
from benchmarks.invariants import check_bare, check_worker
from benchmarks.load import PARTITIONS, CommandRecord, preload
from benchmarks.process import WORKER, Measured, bare_path, running

_LONGEST_S = 120.0
_POLL_S, _LAST_POLL_S = 0.1, 0.01
_LAST_PART = 0.9


class Drained(Struct):
    """One run. `failure` says which invariant does not hold; such a run counts as zero."""

    seconds: float
    cpu_us: float
    peak_mib: float
    rate: float
    failure: str | None = None


async def drain(bed: Bed, kind: StoreKind, records: Sequence[CommandRecord], *, bare: bool) -> Drained:
    """Preload, drain and check, on topics and a store of its own."""
    async with bed.site(kind) as site:
        await preload(bed.bootstrap, site.names.commands, records)
        try:
            drained = await _drain(site, records, bare=bare)
        except (TimeoutError, RuntimeError) as error:
            return Drained(inf, inf, inf, 0.0, str(error) or f"not drained in {_LONGEST_S:.0f} s")
        check = check_bare if bare else check_worker
        drained.failure = await check(site, records)
    if drained.failure is not None:
        drained.rate = 0.0
    return drained


async def _drain(site: Site, records: Sequence[CommandRecord], *, bare: bool) -> Drained:
    program = bare_path(len(records)) if bare else WORKER
    async with AsyncExitStack() as stack:
        ends = await stack.enter_async_context(Ends(site))
        process = await stack.enter_async_context(running(program, site.environment))
        begin = await process.ready()
        cpu_s = process.cpu_s()
        await ends.reach(len(records), process)
        seconds = time.perf_counter() - begin
        cpu_s = process.cpu_s() - cpu_s
    return Drained(seconds, cpu_s / len(records) * 1e6, process.peak_mib, len(records) / seconds)


class Ends:
    """The ends of a site's results and feed."""

    def __init__(self, site: Site) -> None:
        names = site.names
        self._lanes = [
            [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
            for topic in (names.results, names.events)
        ]
        self._consumer = AIOKafkaConsumer(bootstrap_servers=site.settings.brokers)

    async def __aenter__(self) -> Self:
        await self._consumer.start()
        await self._least()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()

    async def reach(self, count: int, process: Measured) -> None:
        """Return when both have `count` records; looks more often towards the end."""
        async with asyncio.timeout(_LONGEST_S):
            while (least := await self._least()) < count:
                process.check()
                await asyncio.sleep(_LAST_POLL_S if least > _LAST_PART * count else _POLL_S)

    async def _least(self) -> int:
        found = await self._consumer.end_offsets([tp for lane in self._lanes for tp in lane])
        least: int = min(sum(found[tp] for tp in lane) for lane in self._lanes)
        return least
