"""Clients that send commands at a steady rate, and note when each is answered.

They share the processors with what is measured, and so are made to take little of them: replies are read by librdkafka.
"""

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any, Self

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import for_code
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka import TopicPartition as Assigned

from benchmarks.bed import Site
from benchmarks.load import PARTITIONS, CommandRecord, by_partition

_LONGEST_S = 60.0
_WAIT_S = 0.002
_TICK_S = 0.02
_AT_ONCE = 10_000
_BATCH_BYTES = 1_000_000
_ACK_MS = 30_000

Waits = list[tuple[int, float]]
"""For each command its partition, and the milliseconds from due to answered."""

_Requests = dict[int, ProduceRequest]
"""By the broker they go to."""


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
    """Sends what has become due every 20 ms, in one request with a batch for each partition, all made beforehand.

    librdkafka has a request for each partition: at 20,000 commands/s 1,600 a second, which take a fifth of a processor
    from what is measured, at the broker. To make the batches would take the same again, here.
    """

    def __init__(self, site: Site) -> None:
        self._topic = site.names.commands
        self._kafka = AIOKafkaClient(bootstrap_servers=site.settings.brokers)
        self._replies = _Replies(site)

    async def __aenter__(self) -> Self:
        await self._kafka.bootstrap()
        await self._kafka.set_topics([self._topic])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._replies.close()
        await self._kafka.close()

    async def measure(self, records: Sequence[CommandRecord], rate: float) -> Waits:
        """The waits, in the order of the records. Raises `TimeoutError`, `KafkaException`, aiokafka's errors."""
        requests = [self._requests(due) for due in _by_tick(records, rate)]
        self._replies.expect(records, rate)
        sending = asyncio.create_task(self._send(requests))
        try:
            while self._replies.are_missing:
                self._replies.take(_AT_ONCE, 0)
                await asyncio.sleep(_WAIT_S)
                if sending.done():
                    await sending
        finally:
            sending.cancel()
        return self._replies.waits()

    def _requests(self, records: Sequence[CommandRecord]) -> _Requests:
        """One for each broker that leads some of the partitions."""
        batches: dict[int, list[tuple[int, bytes]]] = {}
        for partition, of_partition in by_partition(records).items():
            if of_partition:
                leader = self._kafka.cluster.leader_for_partition(TopicPartition(self._topic, partition))
                batches.setdefault(leader, []).append((partition, _batch(of_partition)))
        return {leader: ProduceRequest(None, -1, _ACK_MS, [(self._topic, of)]) for leader, of in batches.items()}

    async def _send(self, ticks: Sequence[_Requests]) -> None:
        under_way = []
        for number, requests in enumerate(ticks, 1):
            await asyncio.sleep(number * _TICK_S - self._replies.elapsed_s)
            under_way += [asyncio.create_task(self._produce(*request)) for request in requests.items()]
        await asyncio.gather(*under_way)

    async def _produce(self, leader: int, request: ProduceRequest) -> None:
        response = await self._kafka.send(leader, request)
        for _, partitions in response.topics:
            for _, error_code, *_ in partitions:
                if error_code:
                    raise for_code(error_code)


def _by_tick(records: Sequence[CommandRecord], rate: float) -> Iterator[Sequence[CommandRecord]]:
    """What becomes due until each tick, at so many a second."""
    done = 0
    for tick in itertools.count(1):
        if done == len(records):
            return
        due = _due(len(records), rate, tick * _TICK_S)
        yield records[done:due]
        done = due


def _due(count: int, rate: float, at_s: float) -> int:
    """How many of so many commands should be sent by then, the first at once."""
    return min(count, int(at_s * rate) + 1)


def _batch(records: Sequence[CommandRecord]) -> bytes:
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=0, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1,
        batch_size=_BATCH_BYTES,
    )  # fmt: skip
    for place, record in enumerate(records):
        if builder.append(place, record.timestamp, record.key, record.value, []) is None:
            raise ValueError("too many commands a tick for one batch: lower the rate")
    return bytes(builder.build())


class _Replies:
    """When each of a run of commands was answered. All are accepted: a reply's offset is its command's."""

    def __init__(self, site: Site) -> None:
        self._consumer = Consumer(
            {**_brokers(site), "group.id": "bench-client", "enable.auto.commit": False, "fetch.wait.max.ms": 10}
        )
        self._consumer.assign([Assigned(site.names.results, n, 0) for n in range(PARTITIONS)])

    def close(self) -> None:
        self._consumer.close()

    def expect(self, records: Sequence[CommandRecord], rate: float) -> None:
        """The clock starts: so many of these commands are due each second, in this order.

        The commands of a partition follow on each other.
        """
        self._records, self._rate = records, rate
        of_partition = by_partition(records)
        self._first = {partition: of[0].offset if of else 0 for partition, of in of_partition.items()}
        self._arrived = {partition: [0.0] * len(of) for partition, of in of_partition.items()}
        self._missing = len(records)
        self._begin = time.perf_counter()

    @property
    def elapsed_s(self) -> float:
        return time.perf_counter() - self._begin

    @property
    def due(self) -> int:
        """How many of the commands should be sent by now."""
        return _due(len(self._records), self._rate, self.elapsed_s)

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
            partition, offset = reply.partition(), reply.offset()
            assert partition is not None
            assert offset is not None
            place = offset - self._first[partition]
            if place >= 0 and not self._arrived[partition][place]:
                self._arrived[partition][place] = now
                self._missing -= 1

    def waits(self) -> Waits:
        return [
            (record.partition, (self._arrived_s(record) - index / self._rate) * 1_000)
            for index, record in enumerate(self._records)
        ]

    def _arrived_s(self, record: CommandRecord) -> float:
        return self._arrived[record.partition][record.offset - self._first[record.partition]]


def _brokers(site: Site) -> dict[str, Any]:
    return {"bootstrap.servers": ",".join(site.settings.brokers)}
