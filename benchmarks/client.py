"""Clients that send commands at a steady rate, and note when each is answered.

They share the processors with what is measured, and so are made to take little of them: replies are read by librdkafka.
"""

import asyncio
import time
from collections.abc import Sequence
from itertools import chain
from typing import Any, Self

from aiokafka import AIOKafkaProducer
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from benchmarks.bed import Site
from benchmarks.load import PARTITIONS, CommandRecord, by_partition, write

_LONGEST_S = 60.0
_WAIT_S = 0.002
_TICK_S = 0.02
_AT_ONCE = 10_000
_BATCH_BYTES = 512 * 1024

Waits = list[tuple[int, float]]
"""For each command its partition, and the milliseconds from due to answered."""


class Client:
    """Sends each command by itself when it is due, however late that is; librdkafka gathers them for `linger_ms`.

    `at_once`: replies are taken when so many are there, or 2 ms are over.
    """

    def __init__(self, site: Site, *, linger_ms: int, at_once: int) -> None:
        self._at_once = at_once
        self._topic = site.names.commands
        self._producer = Producer({**_brokers(site), "acks": "all", "linger.ms": linger_ms})
        self._replies = _Replies(site)

    def close(self) -> None:
        """Let go of the connections."""
        self._replies.close()
        self._producer.purge()
        self._producer.flush(_LONGEST_S)

    def measure(self, records: Sequence[CommandRecord], rate: float) -> Waits:
        """The waits, in the order of the records. Raises `TimeoutError`, `KafkaException`."""
        replies, sent = self._replies, 0
        replies.expect(records, rate)
        while replies.are_missing:
            due = replies.due
            for record in records[sent:due]:
                self._producer.produce(
                    self._topic, record.value, record.key, record.partition, timestamp=record.timestamp
                )
            sent = due
            self._producer.poll(0)
            until_due_s = sent / rate - replies.elapsed_s
            replies.take(self._at_once, min(max(until_due_s, _WAIT_S / 2), _WAIT_S))
        return replies.waits()


class BatchingClient:
    """Sends what has become due every 20 ms, as one batch for each partition and one request for all of them.

    librdkafka has a request for each partition: at 20,000 commands/s 1,600 a second, which take a fifth of a processor
    from what is measured, at the broker.
    """

    def __init__(self, site: Site) -> None:
        self._topic = site.names.commands
        self._producer = AIOKafkaProducer(
            bootstrap_servers=site.settings.brokers, acks="all", max_batch_size=_BATCH_BYTES
        )
        self._replies = _Replies(site)

    async def __aenter__(self) -> Self:
        await self._producer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._replies.close()
        await self._producer.stop()

    async def measure(self, records: Sequence[CommandRecord], rate: float) -> Waits:
        """The waits, in the order of the records. Raises `TimeoutError`, `KafkaException`, aiokafka's errors."""
        self._replies.expect(records, rate)
        sending = asyncio.create_task(self._send(records))
        try:
            while self._replies.are_missing:
                self._replies.take(_AT_ONCE, 0)
                await asyncio.sleep(_WAIT_S)
                if sending.done():
                    await sending
        finally:
            sending.cancel()
        return self._replies.waits()

    async def _send(self, records: Sequence[CommandRecord]) -> None:
        sent, under_way = 0, list[asyncio.Future[Any]]()
        while sent < len(records):
            due = self._replies.due
            of_partition = by_partition(records[sent:due])
            sent = due
            begun = await asyncio.gather(
                *(write(self._producer, self._topic, partition, of) for partition, of in of_partition.items())
            )
            under_way += chain.from_iterable(begun)
            await asyncio.sleep(_TICK_S)
        await asyncio.gather(*under_way)


class _Replies:
    """When each of a run of commands was answered. All are accepted: a reply's offset is its command's."""

    def __init__(self, site: Site) -> None:
        self._consumer = Consumer(
            {**_brokers(site), "group.id": "bench-client", "enable.auto.commit": False, "fetch.wait.max.ms": 10}
        )
        self._consumer.assign([TopicPartition(site.names.results, n, 0) for n in range(PARTITIONS)])

    def close(self) -> None:
        self._consumer.close()

    def expect(self, records: Sequence[CommandRecord], rate: float) -> None:
        """The clock starts: so many of these commands are due each second, in this order."""
        self._records, self._rate = records, rate
        self._places: dict[tuple[int | None, int | None], int] = {}
        self._places.update(((record.partition, record.offset), index) for index, record in enumerate(records))
        self._arrived = [0.0] * len(records)
        self._missing = len(records)
        self._begin = time.perf_counter()

    @property
    def elapsed_s(self) -> float:
        return time.perf_counter() - self._begin

    @property
    def due(self) -> int:
        """How many of the commands should be sent by now."""
        return min(len(self._records), int(self.elapsed_s * self._rate) + 1)

    @property
    def are_missing(self) -> bool:
        """Whether there is something to wait for. Raises `TimeoutError` when it has been too long."""
        if self.elapsed_s > len(self._records) / self._rate + _LONGEST_S:
            raise TimeoutError
        return self._missing > 0

    def take(self, most: int, timeout_s: float) -> None:
        """Note replies: as many when they are there, or those that are when the time is over."""
        replies = self._consumer.consume(most, timeout_s)
        now = self.elapsed_s
        for reply in replies:
            if reply.error() is not None:
                raise KafkaException(reply.error())
            index = self._places.get((reply.partition(), reply.offset()))
            if index is not None and not self._arrived[index]:
                self._arrived[index] = now
                self._missing -= 1

    def waits(self) -> Waits:
        return [
            (record.partition, (arrived - index / self._rate) * 1_000)
            for index, (record, arrived) in enumerate(zip(self._records, self._arrived, strict=True))
        ]


def _brokers(site: Site) -> dict[str, Any]:
    return {"bootstrap.servers": ",".join(site.settings.brokers)}
