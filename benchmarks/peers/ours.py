"""Tidemark at the same work: through Kafka, and through its store alone."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable

import msgspec
from uuid_utils import uuid7

from benchmarks.bed import LOGS, Site
from benchmarks.load import PARTITIONS, CommandRecord
from benchmarks.peers.work import (
    CLIENTS,
    DATA,
    EVENT,
    LONG_STREAM,
    LONG_STREAMS,
    PAGE,
    READ_FEED,
    READ_STREAM,
    places,
    whole,
)
from benchmarks.process import WORKER, running
from processor.client import Client, Event
from processor.cycle import REFUSED_KEPT, Cycles, OwnedLog
from processor.errors import Misfit, TidemarkError
from processor.messages import Accepted, Log, Outcome, Publication, Slice
from processor.names import DEFAULT_TENANT
from processor.partition import partition_of
from processor.store import Store
from processor.stores import open_store

_Append = Callable[[str, int, int], Awaitable[Outcome]]
"""Append so many events to a stream that has this version."""

_DATA = msgspec.json.decode(DATA)


async def through_kafka(site: Site, seconds: float) -> dict[str, float]:
    """By the Python client, to a worker; reads of the feed by the client, of a stream from the store."""
    async with running(WORKER, site.environment()) as worker, Client(site.settings) as client:
        await worker.ready()

        async def append(stream: str, version: int, events: int) -> Outcome:
            new = [Event(EVENT, _DATA) for _ in range(events)]
            return await client.append(stream, new, expected_version=version)

        told = await _appended(append, seconds)

        async def feed() -> int:
            return whole([event.data_json async for event in client.events(follow=False)])

        store = await _opened(site, read_only=True)
        try:
            told[READ_STREAM] = await _rate(lambda: _read_stream(store), seconds)
        finally:
            await store.close()
        told[READ_FEED] = await _rate(feed, seconds)
    return told


async def through_store(site: Site, seconds: float) -> dict[str, float]:
    """By the worker's cycles, without Kafka; reads from the store."""
    store = await _opened(site, read_only=False)
    alone = _Alone(store, site)
    running_cycles = asyncio.create_task(alone.cycles.run())
    try:
        await alone.own()
        told = await _appended(alone.append, seconds)
        told[READ_STREAM] = await _rate(lambda: _read_stream(store), seconds)
        told[READ_FEED] = await _rate(lambda: _read_logs(store), seconds)
    finally:
        running_cycles.cancel()
        await asyncio.gather(running_cycles, return_exceptions=True)
        await store.close()
    return told


async def _opened(site: Site, *, read_only: bool) -> Store:
    store = open_store(site.settings.store, partitions=PARTITIONS, read_only=read_only)
    await store.open()
    return store


async def _appended(append: _Append, seconds: float) -> dict[str, float]:
    told = {}
    for kind, clients in CLIENTS.items():
        begin = time.perf_counter()
        name = f"order-{clients}"
        done = await asyncio.gather(
            *(_client(append, name, client, clients, begin + seconds) for client in range(clients))
        )
        told[kind] = sum(done) / (time.perf_counter() - begin)
    for stream in range(LONG_STREAMS):
        await _accepted(append(f"long-{stream}", 0, LONG_STREAM))
    return told


async def _client(append: _Append, name: str, client: int, clients: int, until: float) -> int:
    for done, (stream, version) in enumerate(places(client, clients)):
        if time.perf_counter() >= until:
            return done
        await _accepted(append(f"{name}-{stream:04}", version - 1, 1))
    raise AssertionError("there is always a next place")


async def _accepted(outcome: Awaitable[Outcome]) -> None:
    found = await outcome
    match found:
        case Accepted():
            return
        case _:
            raise RuntimeError(f"not accepted: {found}")


async def _read_stream(store: Store) -> int:
    log = Log(DEFAULT_TENANT, partition_of(b"long-0", PARTITIONS))
    return whole(event.data for event in await store.read_stream(log, "long-0", 0, LONG_STREAM))


async def _read_logs(store: Store) -> int:
    """The logs beside each other: while a page of one is taken apart, the database gets one of another."""
    return sum(await asyncio.gather(*(_read_log(store, log) for log in LOGS)))


async def _read_log(store: Store, log: Log) -> int:
    after = read = 0
    while page := await store.read_log(log, after, PAGE):
        after, read = page[-1].position, read + whole(event.data for event in page)
    return read


async def _rate(work: Callable[[], Awaitable[int]], seconds: float) -> float:
    begin, done = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        done += await work()
    return done / (time.perf_counter() - begin)


class _Alone:
    """The cycles, fed by hand; also where their answers go."""

    has_room = True

    def __init__(self, store: Store, site: Site) -> None:
        settings = site.settings
        self.cycles = Cycles(store, settings.rules, settings.limits, batch_size=settings.batch_size, on_lost=self._lost)
        self._store = store
        self._offsets = [itertools.count() for _ in LOGS]
        self._gathered: list[list[CommandRecord]] = [[] for _ in LOGS]
        self._waiting: dict[tuple[int, int], asyncio.Future[Outcome]] = {}  # by partition and offset

    async def own(self) -> None:
        """Claim all logs."""
        refused = await self._store.refused_ids(LOGS, REFUSED_KEPT)
        for log, checkpoint in (await self._store.claim(LOGS)).items():
            self.cycles.add(OwnedLog(log, checkpoint, self, 1, 0, 0, refused[log]))

    def _lost(self, owned: OwnedLog, why: Misfit | None) -> None:
        for answer in self._waiting.values():
            answer.set_exception(TidemarkError(f"{owned.log} was lost: {why}"))
        self._waiting.clear()

    def put(self, publication: Publication) -> None:
        """What is committed is answered."""
        for _, outcome in publication.answers:
            self._waiting.pop((outcome.partition, outcome.offset)).set_result(outcome)

    async def append(self, stream: str, version: int, events: int) -> Outcome:
        """One command, from its bytes on."""
        partition = partition_of(stream.encode(), PARTITIONS)
        offset = next(self._offsets[partition])
        listed = [{"event_id": str(uuid7()), "type": EVENT, "data": msgspec.Raw(DATA)} for _ in range(events)]
        command = {"stream": stream, "expected_version": version, "events": listed, "command_id": str(uuid7())}
        record = CommandRecord(partition, offset, 0, stream.encode(), msgspec.json.encode(command))
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting[partition, offset] = answer
        if not self._gathered[partition]:
            asyncio.get_running_loop().call_soon(self._offer, partition)
        self._gathered[partition].append(record)
        return await answer

    def _offer(self, partition: int) -> None:
        """What clients have appended by now, as a fetch has what lies there."""
        records, self._gathered[partition] = self._gathered[partition], []
        begin, end = records[0].offset, records[-1].offset + 1
        self.cycles.offer(Slice(LOGS[partition], 1, begin, end, records))
