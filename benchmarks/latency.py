"""Send to reply: an open loop at a steady rate, each command's time counted from when it was due to be sent.

The client is the same for the worker and for the echo, and so is what it looks for: a reply with the command's id.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from statistics import quantiles
from typing import Self

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from msgspec import Struct

from benchmarks.bed import Bed, Site, StoreKind
from benchmarks.invariants import check_run
from benchmarks.load import PARTITIONS, CommandRecord
from benchmarks.process import BARE_ECHO, WORKER, running

RATE = 200
WARM_UP_S = 2.0

_ANSWER_S = 30.0
_POLL_MS = 10


class Latency(Struct):
    """One run, in milliseconds. `failure` says what went wrong; such a run counts as endless (None)."""

    p50_ms: float | None = None
    p99_ms: float | None = None
    failure: str | None = None


class _Identified(Struct):
    """What a command and its reply have in common."""

    command_id: str


_identified = msgspec.json.Decoder(_Identified)


async def latency(bed: Bed, kind: StoreKind, records: Sequence[CommandRecord], *, bare: bool) -> Latency:
    """Send the records at `RATE` to a worker or to the echo; those of the first `WARM_UP_S` are not counted."""
    async with bed.site(kind) as site:
        try:
            waited_ms = await _waited_ms(site, records, bare=bare)
        except (TimeoutError, RuntimeError) as error:
            return Latency(failure=str(error) or "not every command was answered in time")
        failure = None if bare else await check_run(site, records)
    if failure is not None:
        return Latency(failure=failure)
    cuts = quantiles(waited_ms[int(WARM_UP_S * RATE) :], n=100, method="inclusive")
    return Latency(cuts[49], cuts[98])


async def _waited_ms(site: Site, records: Sequence[CommandRecord], *, bare: bool) -> list[float]:
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(_Client(site))
        process = await stack.enter_async_context(running(BARE_ECHO if bare else WORKER, site.environment()))
        await process.ready()
        return await client.measure(records)


class _Client:
    """Sends, and notes when each reply arrives."""

    def __init__(self, site: Site) -> None:
        brokers = site.settings.brokers
        self._topic = site.names.commands
        self._producer = AIOKafkaProducer(bootstrap_servers=brokers, acks="all")
        # A short poll: aiokafka leaves partitions out of a fetch that is under way, and they would wait for its end.
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=brokers, auto_offset_reset="earliest", fetch_max_wait_ms=_POLL_MS
        )
        self._replies = [TopicPartition(site.names.results, partition) for partition in range(PARTITIONS)]
        self._arrived: dict[str, float] = {}

    async def __aenter__(self) -> Self:
        await self._producer.start()
        await self._consumer.start()
        self._consumer.assign(self._replies)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()
        await self._consumer.stop()

    async def measure(self, records: Sequence[CommandRecord]) -> list[float]:
        """The milliseconds from due to answered, for each record. Raises `TimeoutError`."""
        due = [index / RATE for index in range(len(records))]
        ids = [_identified.decode(record.value).command_id for record in records]
        begin = time.perf_counter()
        async with asyncio.timeout(due[-1] + _ANSWER_S):
            await asyncio.gather(self._send(records, [begin + after for after in due]), self._receive(len(records)))
        return [(self._arrived[command_id] - begin - after) * 1000 for command_id, after in zip(ids, due, strict=True)]

    async def _send(self, records: Sequence[CommandRecord], due: Sequence[float]) -> None:
        for record, when in zip(records, due, strict=True):
            if (wait_s := when - time.perf_counter()) > 0:
                await asyncio.sleep(wait_s)
            await self._producer.send(
                self._topic, record.value, record.key, partition=record.partition, timestamp_ms=record.timestamp
            )

    async def _receive(self, count: int) -> None:
        while len(self._arrived) < count:
            for records in (await self._consumer.getmany(timeout_ms=1_000)).values():
                now = time.perf_counter()
                for record in records:
                    self._arrived.setdefault(_identified.decode(record.value).command_id, now)
