"""Open loop: commands are sent when they are due, whatever has been answered, at shares of the drain rate.

Each command's time counts from when it was due, however late it was sent, so that a stall is seen by all whom it would
have kept waiting. The client is librdkafka's: it takes little of the processors that it shares with what is measured.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from statistics import quantiles

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from msgspec import Struct

from benchmarks.bed import Bed, Site
from benchmarks.invariants import check_run
from benchmarks.load import HOT_PARTITION, PARTITIONS, CommandRecord, Commands, Mix
from benchmarks.process import WORKER, running

SHARES = (25, 50, 75, 90)
HOT_AT = 50

_HOT = Mix(hot_share=0.9)
_WARM_UP_S = 1.0
_NOT_COUNTED = 0.1
"""The beginning of each level, while queues fill."""
_LONGEST_S = 60.0
_LINGER_MS = 2
_WAIT_S = 0.002
_AT_ONCE = 1_000

Waits = list[tuple[int, float]]
"""For each command its partition, and the milliseconds from due to answered."""


class Level(Struct):
    """A steady rate for a while. `percents`: the 1st to the 99th percentile in ms; p99_ms of these is the last."""

    rate: float
    p99_ms: float
    percents: list[float]

    def __repr__(self) -> str:
        return f"{self.rate:.0f}/s: {self.p99_ms:.1f} ms"


class Offered(Struct):
    """One run; `levels` by their share of the drain rate. `failure`: why none of them counts.

    even_ms, hot_ms: p99 of the partitions beside the hot one, under even load and beside it.
    """

    levels: dict[str, Level] = {}
    even_ms: float | None = None
    hot_ms: float | None = None
    failure: str | None = None


async def offer(bed: Bed, drain_rate: float, seconds: float) -> Offered:
    """All levels one after the other, each for so many seconds, on PostgreSQL; then one with a hot partition."""
    if not drain_rate:
        return Offered(failure="there is no drain rate to go by")
    load, sent = Commands(), list[CommandRecord]()
    offered = Offered()
    async with bed.site("postgres") as site:
        try:
            async with AsyncExitStack() as stack:
                worker = await stack.enter_async_context(running(WORKER, site.environment()))
                await worker.ready()
                client = Client(site)
                stack.callback(client.close)

                async def at(share: int, seconds: float, mix: Mix | None = None) -> tuple[Level, Waits]:
                    rate = share / 100 * drain_rate
                    records = load.take(int(rate * seconds), mix)
                    sent.extend(records)
                    waits = await asyncio.to_thread(client.measure, records, rate)
                    worker.check()
                    counted = waits[int(len(waits) * _NOT_COUNTED) :]
                    return _level(rate, counted), counted

                await at(SHARES[0], _WARM_UP_S)
                for share in SHARES:
                    offered.levels[str(share)], waits = await at(share, seconds)
                    if share == HOT_AT:
                        offered.even_ms = _p99_beside_hot(waits)
                _, waits = await at(HOT_AT, seconds, _HOT)
                offered.hot_ms = _p99_beside_hot(waits)
        except (TimeoutError, RuntimeError, KafkaException) as error:
            return Offered(failure=str(error) or "not every command was answered in time")
        failure = await check_run(site, sent)
    return offered if failure is None else Offered(failure=failure)


def _level(rate: float, waits: Waits) -> Level:
    percents = quantiles([waited for _, waited in waits], n=100, method="inclusive")
    return Level(rate, percents[-1], percents)


def _p99_beside_hot(waits: Waits) -> float:
    beside = [waited for partition, waited in waits if partition != HOT_PARTITION]
    return quantiles(beside, n=100, method="inclusive")[-1]


class Client:
    """Sends, and notes when each reply arrives. All are accepted, so a reply's offset is that of its command."""

    def __init__(self, site: Site) -> None:
        brokers = {"bootstrap.servers": ",".join(site.settings.brokers)}
        self._topic = site.names.commands
        self._producer = Producer({**brokers, "acks": "all", "linger.ms": _LINGER_MS})
        self._consumer = Consumer(
            {**brokers, "group.id": "bench-client", "enable.auto.commit": False, "fetch.wait.max.ms": 10}
        )
        self._consumer.assign([TopicPartition(site.names.results, n, 0) for n in range(PARTITIONS)])

    def close(self) -> None:
        self._consumer.close()
        self._producer.purge()

    def measure(self, records: Sequence[CommandRecord], rate: float) -> Waits:
        """The waits, in the order of the records. Raises `TimeoutError`, `KafkaException`."""
        places: dict[tuple[int | None, int | None], int] = {}
        places.update(((record.partition, record.offset), index) for index, record in enumerate(records))
        arrived = [0.0] * len(records)
        sent = answered = 0
        begin = time.perf_counter()
        while answered < len(records):
            now = time.perf_counter() - begin
            if now > len(records) / rate + _LONGEST_S:
                raise TimeoutError
            due = min(len(records), int(now * rate) + 1)
            for record in records[sent:due]:
                self._producer.produce(
                    self._topic, record.value, record.key, record.partition, timestamp=record.timestamp
                )
            sent = due
            self._producer.poll(0)
            replies = self._consumer.consume(_AT_ONCE, _WAIT_S)
            now = time.perf_counter() - begin
            for reply in replies:
                if reply.error() is not None:
                    raise KafkaException(reply.error())
                index = places.get((reply.partition(), reply.offset()))
                if index is not None and not arrived[index]:
                    arrived[index] = now
                    answered += 1
        return [(record.partition, (arrived[index] - index / rate) * 1_000) for index, record in enumerate(records)]
