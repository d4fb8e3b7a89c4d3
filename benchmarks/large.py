"""A store with many events in it: how fast, how large and how soon after a crash a worker is."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from msgspec import Struct

from benchmarks.bed import Bed, Site, StoreKind, say
from benchmarks.drain import Amount, Drained, Ends, counted, drained_from_start
from benchmarks.fill import fill, hot_streams, starts
from benchmarks.invariants import Checker
from benchmarks.load import STREAMS, CommandRecord, Commands, preload
from benchmarks.process import WORKER, running
from processor.store import Store
from processor.stores import open_store

_LONGEST_S = 300.0
_POLL_S = 0.02
# With a name of its own, a worker that comes back within the session time-out has its partitions at once.
_NAMED = {"group_instance_id": "bench"}


class Restarted(Struct):
    """One crash. `seconds`: from the start of the next worker's process to its first decision in the store."""

    seconds: float | None = None
    failure: str | None = None


class LargeStore:
    """A site whose store has been filled, and the load that goes on from run to run."""

    def __init__(self, bed: Bed, site: Site, store: Store, count: int, checker: Checker) -> None:
        self._bed = bed
        self._site = site
        self._store = store
        self._count = count
        self._checker = checker
        self._load = Commands(version=1)
        self._unchecked: list[CommandRecord] = []

    async def drain(self, count: int) -> Drained:
        """So many commands on the usual streams."""
        return await self._drained(self._load.take(count))

    async def drain_hot(self) -> Drained:
        """A command for each hot stream, so that each is known to the worker."""
        return await self._drained(self._load.take_each(hot_streams(self._count)[STREAMS:], 1))

    async def crash(self, count: int) -> Restarted:
        """Kill a worker in the midst of so many commands, lay as many before the next, and wait for it."""
        try:
            seconds = await self._crash(count)
        except (TimeoutError, RuntimeError) as error:
            return Restarted(failure=str(error) or "no decision in time")
        failure = await self._check(crashed=True)
        return Restarted(failure=failure) if failure else Restarted(seconds)

    async def _crash(self, count: int) -> float:
        site = self._site
        async with AsyncExitStack() as stack:
            ends = await stack.enter_async_context(Ends(site))
            there, before = await ends.now(), await self._decided()
            await self._lay(self._load.take(count))
            async with running(WORKER, site.environment(**_NAMED)) as worker:
                await worker.ready()
                await ends.reach(Amount(there.replies + count // 4, there.events), [worker], _LONGEST_S)
                worker.kill()
            await self._lay(self._load.take(count))
            decided, last = await self._decided(), before + 2 * count
            begin = time.perf_counter()
            worker = await stack.enter_async_context(running(WORKER, site.environment(**_NAMED)))
            async with asyncio.timeout(_LONGEST_S):
                while await self._decided() == decided:
                    worker.check()
                    await asyncio.sleep(_POLL_S)
                seconds = time.perf_counter() - begin
                # Replies and events may come again, so their number alone does not tell that all is decided.
                while await self._decided() < last:
                    worker.check()
                    await asyncio.sleep(_POLL_S)
            await ends.reach(Amount(there.replies + 2 * count, there.events + 2 * count), [worker], _LONGEST_S)
        return seconds

    async def _drained(self, records: list[CommandRecord]) -> Drained:
        await self._bed.settle()
        await self._lay(records)
        try:
            environment = self._site.environment(**_NAMED)
            drained = await drained_from_start(self._site, len(records), environment=environment, longest_s=_LONGEST_S)
        except (TimeoutError, RuntimeError) as error:
            return Drained(failure=str(error) or f"not drained in {_LONGEST_S:.0f} s")
        return counted(drained, await self._check())

    async def _lay(self, records: list[CommandRecord]) -> None:
        await preload(self._bed.bootstrap, self._site.names.commands, records)
        self._unchecked += records

    async def _check(self, *, crashed: bool = False) -> str | None:
        failure = await self._checker.check(self._unchecked, crashed=crashed)
        if failure is None:
            self._unchecked.clear()
        return failure

    async def _decided(self) -> int:
        return sum(checkpoint.next_offset for checkpoint in (await self._store.checkpoints()).values())


@asynccontextmanager
async def large_store(bed: Bed, kind: StoreKind, count: int) -> AsyncIterator[LargeStore]:
    """A store with `count` events; gone afterwards."""
    async with bed.site(kind) as site:
        begin = time.monotonic()
        await fill(site, count)
        say(f"{count:,} events stored in {time.monotonic() - begin:.0f} s")
        store = open_store(site.settings.store, partitions=site.settings.partitions, read_only=True)
        await store.open()
        try:
            checker = Checker(site, starts(count, await store.checkpoints()))
            yield LargeStore(bed, site, store, count, checker)
        finally:
            await store.close()
